"""How one field crosses between a protobuf message and a core value.

A core dataclass and its message carry the same field names, so a `Shape` is a table of
`Field`s: what to write for a value, and how to parse what a stranger wrote. Most follow from the
types of the dataclass, see `shape`. Parsing raises
`InvalidName` or `InvalidSpec`; the codecs translate that into the error of their boundary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, get_type_hints

from google.protobuf.message import DecodeError

from hanse.core import limits
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Digest, EventId, Origin, Segment, Version, segment, version

Wire = Any  # what protobuf accepts and returns for a field: int, str, bool, bytes, message
Value = Any  # the parsed core value; mypy checks it where the codecs hand it out


@dataclass(frozen=True, slots=True)
class Field:
    to_wire: Callable[[Value], Wire]
    from_wire: Callable[[Wire], Value]


@dataclass(frozen=True, slots=True)
class Shape:
    """One core class, its message class, and a `Field` for each name that they share."""

    value: type[Any]
    message: type[Any]
    fields: Mapping[str, Field]
    _get: Callable[[Wire], Any] = attrgetter("DESCRIPTOR")
    _checks: tuple[tuple[int, Callable[[Wire], Value]], ...] = ()

    def __post_init__(self) -> None:
        """Prepare to read all fields at once, in the order in which the class takes them."""
        names = [argument.name for argument in dataclasses.fields(self.value)]
        fields = [self.fields[name] for name in names]
        checks = ((i, f.from_wire) for i, f in enumerate(fields) if f is not PLAIN)
        object.__setattr__(self, "_get", _getter(names))
        object.__setattr__(self, "_checks", tuple(checks))

    def to_message(self, value: Value) -> Wire:
        """Raises `InvalidSpec` if a field does not fit its wire type."""
        try:
            return self.message(
                **{name: field.to_wire(getattr(value, name)) for name, field in self.fields.items()}
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidSpec(f"{self.value.__name__} cannot be written: {error}") from None

    def from_message(self, message: Wire) -> Value:
        values = list(self._get(message))
        for i, read in self._checks:
            values[i] = read(values[i])
        return self.value(*values)


def _getter(names: Sequence[str]) -> Callable[[Wire], Sequence[Any]]:
    """All these fields of a message, as a sequence also when there is only one."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda message: [getattr(message, name) for name in names]


def parse(message: type[Any], raw: bytes) -> Wire:
    """Parse foreign bytes. Raises `InvalidSpec`; upb bounds the nesting by itself."""
    try:
        return message.FromString(raw)
    except DecodeError:
        raise InvalidSpec(f"these bytes are no {message.DESCRIPTOR.name} message") from None


def _same(value: Any) -> Any:
    return value


def _raw(value: Digest | EventId) -> bytes:
    return value.raw


@lru_cache(maxsize=4096)
def _origin(text: str) -> Origin:
    return Origin.parse(text)  # cached: a full head map names every member's log again


def hash_bytes(raw: bytes) -> bytes:
    if len(raw) != 32:
        raise InvalidSpec(f"a hash has 32 bytes, not {len(raw)}")
    return raw


def _or_empty(read: Callable[[Wire], Value]) -> Field:
    return Field(_same, lambda wire: read(wire) if wire else wire)


def _text(text: str) -> str:
    if len(text) * 4 > limits.TEXT_BYTES_MAX and len(text.encode()) > limits.TEXT_BYTES_MAX:
        raise InvalidSpec(f"a text is longer than {limits.TEXT_BYTES_MAX} bytes")
    return text


def bounded(bytes_max: int) -> Field:
    """Bytes of at most this length."""

    def check(raw: bytes) -> bytes:
        if len(raw) > bytes_max:
            raise InvalidSpec(f"a field of {len(raw)} bytes exceeds {bytes_max}")
        return raw

    return Field(_same, check)


def exactly(size: int) -> Field:
    """Bytes of exactly this length."""

    def check(raw: bytes) -> bytes:
        if len(raw) != size:
            raise InvalidSpec(f"a field has {len(raw)} bytes, not {size}")
        return raw

    return Field(_same, check)


def one_of(*words: str) -> Field:
    def check(word: str) -> str:
        if word not in words:
            raise InvalidSpec(f"{word[:80]!r} is none of {', '.join(words)}")
        return word

    return Field(_same, check)


def repeated(item: Field) -> Field:
    return Field(
        lambda values: [item.to_wire(value) for value in values],
        lambda wires: tuple(item.from_wire(wire) for wire in wires),
    )


def nested(shape: Shape) -> Field:
    return Field(shape.to_message, shape.from_message)


PLAIN = Field(_same, _same)  # numbers and flags, which protobuf has bounded already
TEXT = Field(_same, _text)
SEGMENT = Field(_same, segment)
SEGMENT_OR_EMPTY = _or_empty(segment)
VERSION = Field(_same, version)
ORIGIN = Field(str, _origin)
ORIGIN_OR_EMPTY = _or_empty(lambda text: str(_origin(text)))
HASH = Field(_same, hash_bytes)
HASH_OR_EMPTY = _or_empty(hash_bytes)
EVENT_ID = Field(_raw, EventId)
DIGEST = Field(_raw, Digest.from_bytes)
DIGEST_OR_NONE = Field(
    lambda digest: digest.raw if digest is not None else b"",
    lambda raw: Digest.from_bytes(raw) if raw else None,
)

_BY_TYPE: Mapping[Any, Field] = {
    int: PLAIN,
    bool: PLAIN,
    str: TEXT,
    Segment: SEGMENT,
    Version: VERSION,
    Origin: ORIGIN,
    EventId: EVENT_ID,
    Digest: DIGEST,
    Digest | None: DIGEST_OR_NONE,
    tuple[Digest, ...]: repeated(DIGEST),
}


def shape(value: type[Any], messages: Any, **told: Field) -> Shape:
    """What crosses as its type says, and as is `told` where that does not tell all.

    Of bytes it never does: how many there may be has to be said.
    """
    types = get_type_hints(value)
    fields = {
        argument.name: told.pop(argument.name)
        if argument.name in told
        else _BY_TYPE[types[argument.name]]
        for argument in dataclasses.fields(value)
    }
    assert not told, f"{value.__name__} has no {', '.join(told)}"
    return Shape(value, getattr(messages, value.__name__), fields)
