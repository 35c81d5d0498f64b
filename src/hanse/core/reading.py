"""Strict reading of untrusted JSON documents.

A reader is a mapping plus the path by which a person finds it in the document. Every key
must be asked for: what is left over is refused by name, with the nearest known key, so a
typing error is never read as "use the default". Duplicate keys and NaN are refused, because
two readers of the same signed bytes must not see two different documents.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

from hanse.core.errors import InvalidSpec, TooLarge

T = TypeVar("T")
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
DEPTH_MAX = 16


def parse_json(raw: bytes, what: str, *, bytes_max: int) -> Any:
    """Decode JSON with no duplicate keys, no NaN, nothing infinite, no half characters, bounded
    size and depth."""
    if len(raw) > bytes_max:
        raise TooLarge(f"{what} has {len(raw)} bytes", fix=f"keep it under {bytes_max}")
    try:
        value = json.loads(
            raw.decode(),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        if _HALF_CHARACTER.search(raw):
            canonical_json(value)  # a surrogate without its other half is no character
    except (ValueError, RecursionError) as error:
        raise InvalidSpec(f"{what} is not valid JSON: {error}") from error
    if _depth(value) > DEPTH_MAX:
        raise InvalidSpec(f"{what} is nested deeper than {DEPTH_MAX}")
    return value


def canonical_json(value: Any) -> bytes:
    """The one way in which Hanse writes JSON that will be hashed or signed."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


class Reader:
    """One mapping of a document; use `with` so that unknown keys are refused at the end."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            raise InvalidSpec(f"{path}: expected a mapping, found {_kind(value)}")
        self._value = value
        self._asked: set[str] = set()
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.finish()

    def finish(self) -> None:
        for key in sorted(set(map(str, self._value)) - self._asked):
            near = difflib.get_close_matches(key, self._asked, n=1, cutoff=0.5)
            hint = (
                f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(self._asked))}"
            )
            raise InvalidSpec(f"{self.path}.{key}: unknown field", fix=hint)

    def has(self, key: str) -> bool:
        self._asked.add(key)
        return key in self._value

    def raw(self, key: str, default: Any = ...) -> Any:
        self._asked.add(key)
        if key in self._value:
            return self._value[key]
        if default is ...:
            raise InvalidSpec(f"{self.path}.{key}: missing", fix="this field is required")
        return default

    def text(self, key: str, default: Any = ..., *, bytes_max: int = 512) -> str:
        value = self.raw(key, default)
        if value is default and default is not ...:
            return value  # type: ignore[no-any-return]  # the caller's own default
        if not isinstance(value, str) or len(value.encode(errors="replace")) > bytes_max:
            raise InvalidSpec(f"{self.path}.{key}: expected a text of at most {bytes_max} bytes")
        if any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in value):
            raise InvalidSpec(f"{self.path}.{key}: control characters are not allowed")
        return value

    def integer(self, key: str, default: Any = ..., *, low: int = 0, high: int = 2**53) -> int:
        value = self.raw(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidSpec(f"{self.path}.{key}: expected a whole number from {low} to {high}")
        return value

    def number(self, key: str, default: Any = ..., *, low: float, high: float) -> float:
        value = self.raw(key, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise InvalidSpec(f"{self.path}.{key}: expected a number from {low} to {high}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.raw(key, default)
        if not isinstance(value, bool):
            raise InvalidSpec(f"{self.path}.{key}: expected true or false")
        return value

    def one_of(self, key: str, choices: Sequence[str], default: Any = ...) -> str:
        value = self.raw(key, default)
        if value not in choices:
            raise InvalidSpec(
                f"{self.path}.{key}: {value!r} is not allowed", fix=f"use {' or '.join(choices)}"
            )
        return str(value)

    def child(self, key: str, default: Any = ...) -> Reader:
        return Reader(self.raw(key, default), f"{self.path}.{key}")

    def items(self, key: str, parse: Callable[[Any, str], T], *, count_max: int) -> tuple[T, ...]:
        """Parse a list; each element is given with its own path."""
        value = self.raw(key, [])
        path = f"{self.path}.{key}"
        if not isinstance(value, list) or len(value) > count_max:
            raise InvalidSpec(f"{path}: expected a list of at most {count_max}")
        return tuple(parse(item, f"{path}[{i}]") for i, item in enumerate(value))

    def pairs(self, key: str, *, count_max: int, bytes_max: int = 512) -> dict[str, str]:
        """A flat mapping of texts, such as labels, sorted by key."""
        value = self.raw(key, {})
        path = f"{self.path}.{key}"
        if not isinstance(value, Mapping) or len(value) > count_max:
            raise InvalidSpec(f"{path}: expected a mapping of at most {count_max} texts")
        reader = Reader(value, path)
        return {str(k): reader.text(k, bytes_max=bytes_max) for k in sorted(value, key=str)}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = dict(pairs)
    if len(seen) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return seen


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is larger than any number")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _depth(value: Any) -> int:
    deepest, stack = 0, [(value, 1)]
    while stack:
        node, depth = stack.pop()
        deepest = max(deepest, depth)
        if depth > DEPTH_MAX:
            return depth
        children = (
            node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        )
        stack.extend((child, depth + 1) for child in children)
    return deepest


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
