"""Where an ONNX file keeps its weights, read without trusting the file or needing onnx.

A model may say that a tensor's bytes lie in another file. Only siblings are accepted, because
a release's folder holds exactly the files that its manifest names; a path would let a model
read whatever this process can. The walk visits only the fields that can lead to a tensor and
skips all weights, so it costs milliseconds on a large file. It also finds files that were cut off.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from hanse.core.errors import Rejected

_DEPTH_MAX = 64
# message -> {field number: message}; the numbers are those of onnx.proto3, which never change.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def require_siblings(model: Path) -> tuple[str, ...]:
    """The names of the files beside `model` that hold its weights.

    Raises `Rejected` if one lies elsewhere or is missing, or if the file cannot be walked.
    """
    try:
        with model.open("rb") as file:
            # Not closed by hand: views of it live on in the traceback of a refusal.
            raw = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        locations = tuple(dict.fromkeys(_locations(raw, "model", 0)))
    except (ValueError, OSError) as error:
        raise Rejected(f"{model.name} is not a whole ONNX file: {error}") from error
    for location in locations:
        if location in ("", ".", "..") or "/" in location or "\\" in location or "\0" in location:
            raise Rejected(
                f"{model.name} keeps weights in {location[:80]!r}, outside its own folder",
                fix="save external data beside the model, under a plain file name",
            )
        if not (model.parent / location).is_file():
            raise Rejected(
                f"{model.name} keeps weights in {location[:80]!r}, which the release does not have",
                fix="publish the release with all files of the model",
            )
    return locations


def _locations(data: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > _DEPTH_MAX:
        raise ValueError("nested too deep")
    for number, value in _fields(data):
        child = _CHILDREN[kind].get(number)
        if child is None or value is None:
            continue
        if child == "entry":
            entry = {n: bytes(v) for n, v in _fields(value) if v is not None}
            if entry.get(1) == b"location":
                yield entry.get(2, b"").decode(errors="replace")
        else:
            yield from _locations(value, child, depth + 1)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Field numbers with the bytes of the length-delimited ones."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        length = 0
        if wire == _VARINT:
            _, at = _varint(data, at)
        elif wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"no field begins at byte {at}")
        if at + length > end:
            raise ValueError("it was cut off")
        if wire == _BYTES:
            yield number, data[at : at + length]
        else:
            yield number, None
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it was cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"no number begins at byte {at}")
