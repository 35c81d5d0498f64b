"""`scripts/bench`: run the benchmarks and keep their tables in docs/performance.md."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

from measure.table import surroundings

TARGET = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
BENCHES = (
    "publish",
    "spread",
    "sync",
    "scale",
    "ingest",
    "audit",
    "swap",
    "rollback",
    "cli",
    "bytes",
    "folding",
    "decisions",
    "slices",
    "fanout",
    "transfer",
)
HEAD = """# Performance

Written by `scripts/bench`. Absolute figures move with the machine; what counts are the ratios,
which compare Hanse with the bare stack in the same run.
"""


def main() -> int:
    chosen = sys.argv[1:] or BENCHES
    unknown = [name for name in chosen if name not in BENCHES]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
        return 2
    sections = _kept()
    for name in chosen:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        text = importlib.import_module(f"measure.{name}").run()
        sections[name] = f"<!-- {name} -->\n{text}\n{surroundings()}\n"
        print(text)
    body = "\n".join(sections[name] for name in BENCHES if name in sections)
    TARGET.write_text(f"{HEAD}\n{body}", encoding="utf-8")
    return 0


def _kept() -> dict[str, str]:
    """The sections of an earlier run, so that one benchmark can be repeated alone."""
    if not TARGET.exists():
        return {}
    parts = re.split(r"(?m)^<!-- (\w+) -->\n", TARGET.read_text(encoding="utf-8"))[1:]
    return {
        name: f"<!-- {name} -->\n{text.rstrip()}\n"
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


if __name__ == "__main__":
    sys.exit(main())
