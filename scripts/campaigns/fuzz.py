"""Every decoder under atheris, which looks for bytes that reach code not reached before.

Each has its turn in a process of its own, again and again until the time is over. What reached
new code is kept in `build/fuzz/NAME`, so that the next campaign begins where this one ends;
bytes that break a decoder are kept there as `crash-…` and belong into `tests/vectors/found`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build/fuzz"
TOOL, TOOL_FOLDER = "atheris==3.0.0", ROOT / "build/atheris"
TURN_S = 20
MEMORY_MB = 2048


def rounds(seed: int) -> Iterator[Mapping[str, int]]:
    from fuzz.decoders import DECODERS

    _install()
    chosen = os.environ.get("HANSE_FUZZ", "").split() or [d.name for d in DECODERS]
    for turn in count():
        for name in chosen:
            yield {"turns": 1, "inputs": _turn(name, (seed + turn) % 2**31)}


def _install() -> None:
    """For this alone, and so not in the lock; it needs CPython 3.11 on Linux."""
    if not TOOL_FOLDER.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", TOOL_FOLDER, TOOL], check=True)


def _turn(name: str, seed: int) -> int:
    """How many inputs were tried. Raises with what broke it."""
    folder = KEPT / name
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(str(p) for p in (TOOL_FOLDER, ROOT / "tests"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fuzz.guided", name, str(folder)),
            *(f"-max_total_time={TURN_S}", f"-seed={seed}", f"-artifact_prefix={folder}/"),
            *(f"-rss_limit_mb={MEMORY_MB}", "-timeout=10", "-max_len=8192", "-verbosity=1"),
        ],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    found = re.search(r"Done (\d+) runs", done.stderr)
    if done.returncode or found is None:
        raise AssertionError(f"{name}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return int(found[1])
