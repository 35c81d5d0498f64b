"""What an ONNX file reaches for outside itself, and how it would grow: from its raw protobuf.

The parsers that load a model are large and the file is not ours, so this walk comes before them,
where a release is published and on every node. It refuses weights that are not a plain file beside
the model (T29), what no tensor says of its data (T30), operators that bring code along (T31) and
functions that call each other until nothing fits in memory (T27). It visits only the fields that
can lead there and skips all weights: milliseconds for a large file.

It must see what a protobuf parser sees. So what parsers read in different ways is refused: groups,
field numbers beyond 32 bits, a key that stands twice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.ids import segment

DOMAINS: Final = ("ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Operator sets that a node can run."""
FIELDS_MAX: Final = 5_000_000
DEPTH_MAX: Final = 32
COPIES_MAX: Final = 50_000
"""Nodes that a runtime makes of calls of functions, when it puts their bodies in their places."""
ELEMENTS_MAX: Final = 2**40
SPARSE_ELEMENTS_MAX: Final = 2**27
"""A runtime lays a sparse tensor out in full."""

# message -> {field number: message}; the numbers are those of onnx.proto3, which never change.
_CHILDREN: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 25: "function", 20: "training", 14: "property"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_ENTRY_KEYS: Final = {"location", "offset", "length", "checksum"}
_CONFIG_KEY: Final = "ort_config"  # in a model's metadata: settings of the runtime
_CODE: Final = {("com.microsoft", "EPContext")}  # what a provider compiled, or the path to it
_BITS: Final = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64,
    15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Function = tuple[str, str, str]
"""Domain, name and overload, as a node names its operator."""
_MAIN: Final[Function] = ("", "", "")


@dataclass(frozen=True, slots=True)
class Walked:
    """`external`: how many bytes of which file beside it. `domains`: of operators that it uses
    and does not define itself."""

    external: dict[str, int]
    domains: frozenset[str]


def walk(data: memoryview, name: str) -> Walked:
    """Raises `InvalidSpec` for a file that may be loaded nowhere."""
    found = _Walk(name)
    try:
        found.visit(data, "model", _MAIN, 0)
    except _Strange as error:
        raise InvalidSpec(
            f"{name} is not a whole ONNX file: {error}", fix="copy or export it again"
        ) from None
    return found.judged()


def check_beside(name: str, external: dict[str, int], size_of: Callable[[str], int | None]) -> None:
    """Refuse weights that are not there, or too short. `size_of` knows plain files only."""
    for location, end in external.items():
        size = size_of(location)
        if size is None:
            raise InvalidSpec(
                f"{name} keeps weights in {location!r}, and the release does not have that file",
                fix="publish the release with all files of the model, no links among them",
            )
        if size < end:
            raise InvalidSpec(
                f"{name} keeps weights in {location!r}, which is too short for them",
                fix="copy that file again",
            )


class _Strange(Exception):
    """The bytes are no protobuf, or not one that every parser reads alike."""


class _Walk:
    def __init__(self, name: str) -> None:
        self._name = name
        self._fields_left = FIELDS_MAX
        self._external: dict[str, int] = {}
        self._calls: dict[Function, Counter[Function]] = {_MAIN: Counter()}

    def visit(self, data: memoryview, kind: str, body: Function, depth: int) -> None:
        """`body`: the function, or the graphs themselves, whose nodes these are."""
        if depth > 3 * DEPTH_MAX:  # a graph, its node, that one's attribute
            raise InvalidSpec(f"{self._name}: its graphs are nested too deeply", fix="export again")
        match kind:
            case "tensor":
                self._tensor(data)
                return
            case "property":
                self._property(data)
                return
            case "function":
                body = self._named(data, 10, 1, 13)
                self._calls.setdefault(body, Counter())
            case "node":
                self._calls[body][self._named(data, 7, 4, 8)] += 1
            case "sparse":
                self._check_size(self._numbers(data, 3), SPARSE_ELEMENTS_MAX)
        children = _CHILDREN[kind]
        for number, value in self._fields(data):
            if number in children and isinstance(value, memoryview):
                self.visit(value, children[number], body, depth + 1)

    def judged(self) -> Walked:
        own = set(self._calls) - {_MAIN}
        used = {call for calls in self._calls.values() for call in calls}
        code = sorted({op for domain, op, _ in used if (domain, op) in _CODE})
        if code:
            raise InvalidSpec(
                f"{self._name} uses {', '.join(code)}, which stands for compiled code",
                fix="publish the model from which it was compiled",
            )
        domains = frozenset(domain for domain, _, _ in used - own)
        if unknown := sorted(domains - set(DOMAINS)):
            raise InvalidSpec(
                f"{self._name} uses operators of {', '.join(unknown)[:200]}, which no node can run",
                fix=f"export it with operators of {', '.join(DOMAINS)} only",
            )
        sizes: dict[Function, int] = {}
        for call, count in self._calls[_MAIN].items():
            self._check_copies(count * self._size(call, sizes, 0) if call in own else 0)
        return Walked(dict(sorted(self._external.items())), domains)

    def _size(self, called: Function, sizes: dict[Function, int], depth: int) -> int:
        """How many nodes a call becomes. Functions that call themselves are too deep."""
        if called not in self._calls or called == _MAIN:
            return 1
        if depth > DEPTH_MAX:
            raise InvalidSpec(f"{self._name}: its functions nest too deeply", fix="export again")
        if called not in sizes:
            calls = self._calls[called].items()
            size = sum(count * self._size(call, sizes, depth + 1) for call, count in calls)
            self._check_copies(size)
            sizes[called] = size
        return sizes[called]

    def _check_copies(self, count: int) -> None:
        if count > COPIES_MAX:
            raise InvalidSpec(
                f"{self._name}: its functions call each other more than {COPIES_MAX} times",
                fix="export it without functions",
            )

    def _named(self, data: memoryview, *numbers: int) -> Function:
        texts = dict.fromkeys(numbers, "")
        for number, value in self._fields(data):
            if number in texts and isinstance(value, memoryview):
                texts[number] = bytes(value[:256]).decode(errors="replace")
        domain, name, overload = texts.values()
        return domain or "ai.onnx", name, overload

    def _property(self, data: memoryview) -> None:
        key, _ = self._entry(data)
        if key == _CONFIG_KEY:
            raise InvalidSpec(
                f"{self._name}: its metadata {_CONFIG_KEY} are settings of the runtime",
                fix="remove them: a node's owner decides how it runs models",
            )

    def _tensor(self, data: memoryview) -> None:
        kind, outside, entries = 0, False, dict[str, str]()
        for number, value in self._fields(data):
            if number == 2 and isinstance(value, int):
                kind = value & 0xFFFFFFFF
            elif number == 14 and isinstance(value, int):
                outside = value == 1
            elif number == 13 and isinstance(value, memoryview):
                key, text = self._entry(value)
                if key in entries or key not in _ENTRY_KEYS:
                    raise InvalidSpec(
                        f"{self._name}: {key[:40]!r} is nothing that a tensor says of its data",
                        fix="export it again",
                    )
                entries[key] = text
        count = self._check_size(self._numbers(data, 1), ELEMENTS_MAX)
        if outside or entries:
            location = self._location(entries.get("location", ""))
            length = self._place(entries.get("length", "0"))
            length = length or math.ceil(count * _BITS.get(kind, 0) / 8)
            end = self._place(entries.get("offset", "0")) + length
            self._external[location] = max(end, self._external.get(location, 0))

    def _location(self, text: str) -> str:
        """The plain name of a file beside the model: a path would let it read whatever we can."""
        try:
            return segment(text)
        except Rejected as error:
            raise InvalidSpec(
                f"{self._name} keeps weights in {text[:80]!r}, outside its own folder",
                fix=f"save them beside the model under a plain file name: {error.fix}",
            ) from None

    def _place(self, text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 16):
            raise InvalidSpec(
                f"{self._name}: {text[:40]!r} is no place in a file", fix="export it again"
            )
        return int(text)

    def _check_size(self, dims: list[int], elements_max: int) -> int:
        count = math.prod(dims)
        if len(dims) > 64 or any(dim > ELEMENTS_MAX for dim in dims) or count > elements_max:
            raise InvalidSpec(
                f"{self._name}: a tensor says that it has {min(count, 2**64)} elements or more",
                fix="export it again",
            )
        return count

    def _numbers(self, data: memoryview, wanted: int) -> list[int]:
        """A repeated whole number, packed or not. Negative ones come out as very large."""
        found: list[int] = []
        for number, value in self._fields(data):
            if number != wanted:
                continue
            if isinstance(value, int):
                found.append(value)
            elif value is not None:
                at = 0
                while at < len(value) and len(found) <= 64:
                    one, at = _varint(value, at)
                    found.append(one)
        return found

    def _entry(self, data: memoryview) -> tuple[str, str]:
        texts = {1: "", 2: ""}
        for number, value in self._fields(data):
            if number in texts and isinstance(value, memoryview):
                texts[number] = bytes(value[:1024]).decode(errors="replace")
        return texts[1], texts[2]

    def _fields(self, data: memoryview) -> Iterator[tuple[int, memoryview | int | None]]:
        """Field numbers with what has a length, or is a whole number."""
        at, end = 0, len(data)
        while at < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise _Strange(f"it has more than {FIELDS_MAX} fields")
            tag, at = _varint(data, at)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 2**29:
                raise _Strange("a field has a number that no field can have")
            value: memoryview | int | None = None
            if wire == _VARINT:
                value, at = _varint(data, at)
            elif wire == _BYTES:
                length, at = _varint(data, at)
                value = data[at : at + length]
                at += length
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
            else:
                raise _Strange(f"no field begins before byte {at} of a message")
            if at > end:
                raise _Strange("it was cut off")
            yield number, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _Strange("it was cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at  # as parsers do
    raise _Strange(f"no number begins at byte {at} of a message")
