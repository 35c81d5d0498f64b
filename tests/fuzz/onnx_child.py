"""Inspect many files in one process, bounded and confined as a real inspection is.

python -m fuzz.onnx_child FOLDER      prints "accepted" or "refused" for each file, in order
"""

from __future__ import annotations

import sys
from pathlib import Path

from hanse.core.errors import Rejected
from hanse.daemon.inspection import ONNX, _give_up, _opened
from hanse.daemon.onnx_file import examine


def main(folder: Path) -> None:
    paths = sorted(folder.iterdir())
    files = {path.name: _opened(path.name, str(path)) for path in paths}
    _give_up(map(str, paths), {ONNX})
    for name, file in files.items():
        try:
            examine(file, name)
        except Rejected:
            print("refused", flush=True)
        else:
            print("accepted", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
