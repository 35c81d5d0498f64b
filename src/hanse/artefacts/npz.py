"""Arrays in a NumPy archive that nobody here has written: `.npz`, read with bounds.

Golden inputs travel with a release, so they may be a bomb: sizes that lie, a directory of millions
of entries, an array of a petabyte, objects that are pickles. So all sizes are compared before
anything is unpacked, and no more is unpacked than was said (T27, T32).
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Final

from hanse.core.errors import InvalidSpec

ENTRIES_MAX: Final = 256
_DIRECTORY_BYTES_MAX: Final = 256 * 1024
_HEADER_BYTES_MAX: Final = 4096
_END: Final = struct.Struct("<4s4H2LH")
_HEADER: Final = re.compile(
    r"\{\s*'descr':\s*'([<>|=]?)([biufSU?])([0-9]{0,6})',\s*'fortran_order':\s*(True|False),"
    r"\s*'shape':\s*\(([0-9, ]*)\),?\s*\}\s*"
)
_STORED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True, slots=True)
class Array:
    """What an entry says of itself; its elements take `size` bytes after `start`."""

    entry: zipfile.ZipInfo
    dtype: str
    shape: tuple[int, ...]
    fortran: bool
    start: int
    size: int

    @property
    def name(self) -> str:
        return self.entry.filename.removesuffix(".npy")


def listed(file: BinaryIO, name: str, *, bytes_max: int) -> tuple[Array, ...]:
    """The arrays, none of them unpacked. Raises `InvalidSpec` for what is no such archive."""
    with _errors(name):
        return tuple(_arrays(_opened(file, name, bytes_max), name, bytes_max))


def read(file: BinaryIO, name: str, *, bytes_max: int) -> dict[str, Any]:
    """The arrays by name, as NumPy has them. Raises `InvalidSpec`."""
    import numpy as np

    with _errors(name):
        archive = _opened(file, name, bytes_max)
        found = {}
        for each in tuple(_arrays(archive, name, bytes_max)):
            with archive.open(each.entry) as stream:
                raw = _exactly(stream, each.start + each.size)[each.start :]
            flat = np.frombuffer(raw, np.dtype(each.dtype), math.prod(each.shape))
            found[each.name] = flat.reshape(each.shape, order="F" if each.fortran else "C")
        return found


def _opened(file: BinaryIO, name: str, bytes_max: int) -> zipfile.ZipFile:
    """The archive, once its directory is known to be small."""
    size = file.seek(0, 2)
    if size > bytes_max:
        raise InvalidSpec(f"{name} has {size} bytes", fix=f"at most {bytes_max} are taken")
    file.seek(max(0, size - _END.size))
    end = file.read(_END.size)
    if len(end) < _END.size or end[:4] != b"PK\x05\x06":
        raise InvalidSpec(f"{name} is not an .npz file", fix="write it with numpy.savez")
    _, _, _, _, entries, directory, _, comment = _END.unpack(end)
    if entries > ENTRIES_MAX or directory > _DIRECTORY_BYTES_MAX or comment:
        raise InvalidSpec(f"{name} holds {entries} arrays", fix=f"at most {ENTRIES_MAX} are taken")
    file.seek(0)
    return zipfile.ZipFile(file)


def _arrays(archive: zipfile.ZipFile, name: str, bytes_max: int) -> Iterator[Array]:
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    if len(names) != len(entries) or not all(each.endswith(".npy") for each in names):
        raise InvalidSpec(
            f"{name} holds other things than arrays, each once", fix="write it with numpy.savez"
        )
    size = sum(entry.file_size for entry in entries)
    if size > bytes_max:
        raise InvalidSpec(f"{name} unpacks to {size} bytes", fix=f"at most {bytes_max} are taken")
    for entry in entries:
        if entry.compress_type not in _STORED or entry.flag_bits & 1:
            raise InvalidSpec(
                f"{name}: {entry.filename[:80]!r} is packed in an unknown way",
                fix="write it with numpy.savez",
            )
        with archive.open(entry) as stream:
            yield _array(entry, stream, name)


def _array(entry: zipfile.ZipInfo, stream: IO[bytes], name: str) -> Array:
    """The header of a `.npy`: a text that NumPy itself would read as Python."""
    lead = _exactly(stream, 8)
    width = 2 if lead[6:7] == b"\x01" else 4
    length = int.from_bytes(_exactly(stream, width), "little")
    what = f"{name}: {entry.filename[:80]!r}"
    if lead[:6] != b"\x93NUMPY" or lead[6] not in (1, 2, 3) or length > _HEADER_BYTES_MAX:
        raise InvalidSpec(f"{what} is no array", fix="write it with numpy.savez")
    found = _HEADER.fullmatch(_exactly(stream, length).decode("utf-8", "replace"))
    if found is None:
        raise InvalidSpec(
            f"{what} is not an array of numbers or texts", fix="leave objects out: they are pickles"
        )
    order, kind, width_text, fortran, dims = found.groups()
    shape = tuple(int(dim) for dim in dims.split(",") if dim.strip())
    item = int(width_text or 1) * (4 if kind == "U" else 1)
    start, size = 8 + width + length, math.prod(shape) * item
    if len(shape) > 32 or start + size != entry.file_size:
        raise InvalidSpec(f"{what} does not have as many elements as it says", fix="write it again")
    return Array(entry, f"{order}{kind}{width_text}", shape, fortran == "True", start, size)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("it was cut off")
    return data


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """What the libraries below raise for bytes that are not what they say; `NotImplementedError` is
    zipfile's word for a compression that it does not know, `RuntimeError` for one with a password.
    """
    try:
        yield
    except (
        OSError, ValueError, EOFError, KeyError, TypeError, NotImplementedError, RuntimeError,
        MemoryError, zipfile.BadZipFile, zlib.error, struct.error,
    ) as error:  # fmt: skip
        why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InvalidSpec(f"{name} cannot be read: {why}", fix="write it again") from error
