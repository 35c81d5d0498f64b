"""One decoder under atheris: `python -m fuzz.guided NAME FOLDER [libFuzzer options]`."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["hanse", "tuf"]):
    from fuzz.decoders import DECODERS


def main() -> None:
    name, folder, *options = sys.argv[1:]
    decoder = next(d for d in DECODERS if d.name == name)
    for number, raw in enumerate(decoder.seeds()):
        Path(folder, f"seed-{number:03d}").write_bytes(raw)
    atheris.Setup([sys.argv[0], *options, folder], lambda raw: decoder.fuzz_one(raw) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
