"""Small files that tell when a bit of them has flipped: SHA-256 of the content in hex, a line
feed, the content."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from hanse.core.ids import Digest
from hanse.storage.incoming import sync_folder, write_all

_LINE = 65


def read_sealed(path: Path, bytes_max: int) -> bytes | None:
    """None if there is none, or it is not what was written."""
    try:
        with path.open("rb") as file:
            line, raw = file.read(_LINE), file.read(bytes_max + 1)
    except FileNotFoundError:
        return None
    return raw if line == Digest.of(raw).hex.encode() + b"\n" else None


def write_sealed(path: Path, raw: bytes, *, durable: bool = False) -> None:
    """Replaces the file. What is not `durable` a power cut may damage, and that is found."""
    fd, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        try:
            write_all(fd, Digest.of(raw).hex.encode() + b"\n")
            write_all(fd, raw)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    if durable:
        sync_folder(path.parent)
