"""Where the tensors of a model file lie: ONNX and safetensors, by their own bytes alone.

An ONNX file is walked as raw protobuf, field by field, without a message in memory: initialisers
of the graph, constants and subgraphs of its nodes. Whoever wrote the file may be hostile, so a
reader here never believes a length, ends at a bound and answers None where the file is not what
it seems; then it is bytes like any other. Whatever is found is in order and does not overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from hanse.core.errors import Rejected
from hanse.core.limits import TENSORS_MAX
from hanse.core.reading import parse_json

FIELDS_MAX = 2_000_000
HEADER_BYTES_MAX = 8 * 1024 * 1024
NAME_BYTES_MAX = 256
_DEPTH_MAX = 8
RANK_MAX = 8
WIDTHS = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1,
    "I8": 1, "U8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8,
}  # fmt: skip
"""Bytes of an element. The names are those of safetensors."""
_ONNX_TYPES = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16",
    11: "F64", 12: "U32", 13: "U64", 16: "BF16", 17: "F8_E4M3", 19: "F8_E5M2",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Span:
    """The elements of one tensor, little-endian: `data[start:end]`."""

    start: int
    end: int
    name: str
    dtype: str
    shape: tuple[int, ...]


def spans(data: memoryview) -> tuple[Span, ...]:
    """The tensors in order of their place; none if this is no model of a known form."""
    try:
        found = _safetensors(data) if bytes(data[8:9]) == b"{" else _Onnx(data).tensors()
    except (Rejected, _Strange):
        return ()
    return _disjoint(found, len(data))


def external_spans(model: memoryview, location: str, size: int) -> tuple[Span, ...]:
    """The tensors that an ONNX model has in another file of so many bytes, by its own words."""
    try:
        walk = _Onnx(model, location)
        walk.tensors()
    except _Strange:
        return ()
    return _disjoint(walk.outside, size)


def _disjoint(found: list[Span], size: int) -> tuple[Span, ...]:
    """In order, or nothing if one reaches into another or beyond the file."""
    found.sort(key=lambda span: (span.start, span.end))
    ends = [0, *(span.end for span in found)]
    if ends[-1] > size or any(s.start < end for s, end in zip(found, ends, strict=False)):
        return ()
    return tuple(found)


class _Strange(Exception):
    """The bytes are not what they seem."""


def _safetensors(data: memoryview) -> list[Span]:
    length = int.from_bytes(data[:8], "little")
    if length > min(HEADER_BYTES_MAX, len(data) - 8):
        raise _Strange
    header = parse_json(bytes(data[8 : 8 + length]), "header", bytes_max=HEADER_BYTES_MAX)
    found = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        match entry:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(low), int(high)]}:
                found.append(_span(8 + length + low, 8 + length + high, name, dtype, shape))
            case _:
                raise _Strange
        if low < 0 or len(found) > TENSORS_MAX:
            raise _Strange
    return found


def _span(start: int, end: int, name: str, dtype: str, shape: list[object]) -> Span:
    count, dims = 1, list[int]()
    for size in shape:
        if type(size) is not int or not 0 <= size < 2**40 or len(dims) == RANK_MAX:
            raise _Strange
        count *= size
        dims.append(size)
    if dtype not in WIDTHS or end - start != count * WIDTHS[dtype]:
        raise _Strange
    return Span(start, end, name if name_fits(name) else "", dtype, tuple(dims))


def name_fits(name: str) -> bool:
    """Others are left out, and their tensors known by their order alone."""
    return name.isprintable() and len(name.encode()) <= NAME_BYTES_MAX


class _Onnx:
    """A walk over ModelProto.graph (field 7) and what lies in it."""

    def __init__(self, data: memoryview, location: str = "") -> None:
        self._data, self._location = data, location
        self.outside: list[Span] = []
        self._fields_left = FIELDS_MAX
        self._found: list[Span] = []

    def tensors(self) -> list[Span]:
        for number, start, end in self._walk(0, len(self._data)):
            if number == 7:
                self._graph(start, end, 0)
        return self._found

    def _graph(self, start: int, end: int, depth: int) -> None:
        for number, low, high in self._walk(start, end):
            if number == 1:
                self._node(low, high, depth)
            elif number == 5:
                self._tensor(low, high, "")

    def _node(self, start: int, end: int, depth: int) -> None:
        """A constant is named after the output of its node."""
        output, attributes = "", []
        for number, low, high in self._walk(start, end):
            if number == 2 and not output:
                output = self._text(low, high)
            elif number == 5:
                attributes.append((low, high))
        if depth == _DEPTH_MAX:
            return
        for low, high in attributes:
            for number, inner, outer in self._walk(low, high):
                if number in (5, 10):
                    self._tensor(inner, outer, output)
                elif number in (6, 11):
                    self._graph(inner, outer, depth + 1)

    def _tensor(self, start: int, end: int, name: str) -> None:
        dims: list[int] = []
        elsewhere: dict[str, str] = {}
        kind, where = 0, None
        for number, low, high in self._walk(start, end):
            if number == -1:
                dims.append(low)
            elif number == 1:
                while low < high:
                    size, low = self._varint(low, high)  # noqa: PLW2901  # packed
                    dims.append(size)
                    if len(dims) > RANK_MAX:
                        raise _Strange
            elif number == -2:
                kind = low
            elif number == 8:
                name = self._text(low, high) or name
            elif number in (4, 9, 10):  # float_data and double_data, if packed
                where = (low, high)
            elif number == 13:
                key, value = self._entry(low, high)
                elsewhere[key] = value
        dtype, found = _ONNX_TYPES.get(kind, ""), self._found
        if len(dims) > RANK_MAX:
            return
        if elsewhere and where is None and elsewhere.get("location") == self._location:
            offset, found = elsewhere.get("offset", "0"), self.outside
            start = int(offset) if offset.isdecimal() and len(offset) < 16 else 0
            where = (start, start + math.prod(dims) * WIDTHS.get(dtype, 0))
        if where is None or len(found) >= TENSORS_MAX:
            return
        with suppress(_Strange):  # e.g. numbers that are not packed: to us it is no tensor
            found.append(_span(*where, name, dtype, list(dims)))

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        texts = {1: "", 2: ""}
        for number, low, high in self._walk(start, end):
            if number in texts:
                texts[number] = self._text(low, high)
        return texts[1], texts[2]

    def _text(self, start: int, end: int) -> str:
        return bytes(self._data[start : min(end, start + NAME_BYTES_MAX + 1)]).decode(
            errors="replace"
        )

    def _walk(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(field, start, end) of what has a length; (-field, value, 0) of a bare number."""
        while start < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise _Strange
            tag, start = self._varint(start, end)
            number, wire = tag >> 3, tag & 7
            if wire == 0:
                value, start = self._varint(start, end)
                yield -number, value, 0
            elif wire == 2:
                size, start = self._varint(start, end)
                if size > end - start:
                    raise _Strange
                yield number, start, start + size
                start += size
            elif wire in (1, 5):
                start += 8 if wire == 1 else 4
            else:
                raise _Strange
        if start != end:
            raise _Strange

    def _varint(self, start: int, end: int) -> tuple[int, int]:
        data, value = self._data, 0
        for shift in range(0, 64, 7):
            if start >= end:
                raise _Strange
            byte = data[start]
            start += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, start
        raise _Strange
