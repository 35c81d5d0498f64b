"""Inspect many files in one process with the bounds of a real inspection.

python -m fuzz.onnx_child FOLDER      prints "accepted" or "refused" for each file, in order
"""

from __future__ import annotations

import sys
from pathlib import Path

from hanse.core.errors import Rejected
from hanse.daemon.inspection import _limit_resources
from hanse.daemon.onnx_file import examine


def main(folder: Path) -> None:
    files = sorted(folder.iterdir())
    _limit_resources(max(files, key=lambda path: path.stat().st_size))
    for path in files:
        try:
            examine(path)
        except Rejected:
            print("refused", flush=True)
        else:
            print("accepted", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
