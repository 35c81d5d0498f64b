"""A model's file is looked at before onnxruntime is given it: see `artefacts.onnx_walk`."""

from __future__ import annotations

import mmap
from functools import partial
from pathlib import Path

from hanse.artefacts.onnx_walk import check_beside, walk
from hanse.core.errors import InvalidSpec


def check_model_file(path: Path) -> None:
    """Refuse a file that reaches out of its folder or grows without bound. Raises `InvalidSpec`.

    The folder holds exactly what the release's manifest names, each file checked by its digest.
    """
    try:
        with path.open("rb") as file:
            # Not closed by hand: views of it live on in the traceback of a refusal.
            raw = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise InvalidSpec(f"{path.name} is not a whole ONNX file: {error}") from error
    check_beside(path.name, walk(raw, path.name).external, partial(_size, path.parent))


def _size(folder: Path, name: str) -> int | None:
    path = folder / name
    return path.stat().st_size if path.is_file() and not path.is_symlink() else None
