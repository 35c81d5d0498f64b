"""Strict reading of plain mappings: every error names the path and what to write there.

A field that nobody knows is refused, never ignored: `setWeigth: 1` must not become a rollout
without a weight. Values have exactly the type that is asked for; `true` is not the number 1.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from hanse.core.errors import InvalidName, InvalidSpec
from hanse.core.ids import Digest, Segment, segment

T = TypeVar("T")
D = TypeVar("D")
Word = TypeVar("Word", bound=str)
Parser = Callable[[object, str], T]
"""Takes the value and its path; returns the parsed value or raises `InvalidSpec`."""

LIST_MAX: Final = 256
DURATION_MS_MAX: Final = 400 * 86_400_000
_UNITS_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")


def fail(path: str, what: str, fix: str) -> InvalidSpec:
    return InvalidSpec(f"{path}: {what}", fix=fix)


@dataclass(frozen=True, slots=True)
class Fields:
    """One mapping whose keys were all checked against the known ones."""

    values: Mapping[str, object]
    path: str

    @classmethod
    def of(cls, value: object, path: str, known: Iterable[str]) -> Self:
        names = tuple(known)
        if not isinstance(value, Mapping):
            raise fail(path, f"{_shown(value)} is not a mapping", f"write {{{', '.join(names)}}}")
        for key in value:
            if key not in names:
                raise _unknown(path, key, names)
        return cls(value, path)

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def required(self, key: str, parse: Parser[T], example: str) -> T:
        if key not in self.values:
            raise fail(self.at(key), "missing", f"write {key}: {example}")
        return parse(self.values[key], self.at(key))

    def optional(self, key: str, parse: Parser[T], default: D) -> T | D:
        return parse(self.values[key], self.at(key)) if key in self.values else default


def _unknown(path: str, key: object, names: tuple[str, ...]) -> InvalidSpec:
    where = f"{path}.{str(key)[:64]}" if path else str(key)[:64]
    return fail(where, f"unknown field{_guess(key, names)}", f"known here: {', '.join(names)}")


def _guess(written: object, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(written)[:64], names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def name(value: object, path: str) -> Segment:
    try:
        return segment(_text(value, path, "a name"), "this")
    except InvalidName as error:
        raise fail(path, error.message, error.fix) from error


def label(value: object, path: str) -> str:
    """The value of a label: letters, digits and . _ -, at most 64."""
    if isinstance(value, str) and _LABEL.fullmatch(value):
        return value
    raise fail(path, f"{_shown(value)} is not a label", "write 1 to 64 of a-z A-Z 0-9 . _ -")


def digest(value: object, path: str) -> Digest:
    try:
        return Digest.parse(_text(value, path, "sha256: and 64 hex digits"))
    except InvalidName as error:
        raise fail(path, error.message, error.fix) from error


def one_of(*choices: Word) -> Parser[Word]:
    def parse(value: object, path: str) -> Word:
        for choice in choices:
            if value == choice:
                return choice
        what = f"{_shown(value)} is not known{_guess(value, choices)}"
        raise fail(path, what, f"write {' or '.join(choices)}")

    return parse


def whole(low: int, high: int) -> Parser[int]:
    def parse(value: object, path: str) -> int:
        if type(value) is not int or not low <= value <= high:
            raise fail(
                path, f"{_shown(value)} is not a whole number", f"write {low} to {high}, no quotes"
            )
        return value

    return parse


def number(low: float, high: float) -> Parser[float]:
    """A finite number from `low` to `high`."""

    def parse(value: object, path: str) -> float:
        fine = isinstance(value, int | float) and not isinstance(value, bool)
        if not fine or not math.isfinite(_float(value)) or not low <= _float(value) <= high:
            raise fail(
                path, f"{_shown(value)} is not usable", f"write a number from {low:g} to {high:g}"
            )
        return _float(value)

    return parse


def share(value: object, path: str) -> float:
    """A rate such as `0.05` or `5%`, above 0 and below 1."""
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    rate = float(found[1]) / 100 if found else value
    if isinstance(rate, float) and 0 < rate < 1:
        return rate
    raise fail(path, f"{_shown(value)} is not a share", "write 5% or 0.05")


def percent(value: object, path: str) -> int:
    """A whole percentage such as `10%`, from 1 to 100."""
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if found and found[1].isdecimal() and 1 <= int(found[1]) <= 100:
        return int(found[1])
    raise fail(path, f"{_shown(value)} is not a percentage", "write 1% to 100%, such as 10%")


def duration_ms(low: int) -> Parser[int]:
    """A duration such as `30s`, `10m`, `2h` or `1500ms`, at least `low` milliseconds."""

    def parse(value: object, path: str) -> int:
        found = _DURATION.fullmatch(value) if isinstance(value, str) else None
        length = int(found[1]) * _UNITS_MS[found[2]] if found else -1
        if not low <= length <= DURATION_MS_MAX:
            raise fail(
                path,
                f"{_shown(value)} is not a duration" if length < 0 else f"{value} is out of range",
                "write a whole number and ms, s, m, h or d, such as 10m, up to 400d",
            )
        return length

    return parse


def duration_text(length_ms: int) -> str:
    """The one way a duration is written back: the largest unit that divides it."""
    if length_ms == 0:
        return "0s"
    unit = next(u for u, size in _UNITS_MS.items() if length_ms % size == 0 and length_ms >= size)
    return f"{length_ms // _UNITS_MS[unit]}{unit}"


def listed(parse: Parser[T], *, empty: bool = False) -> Parser[tuple[T, ...]]:
    def parse_list(value: object, path: str) -> tuple[T, ...]:
        if not isinstance(value, list | tuple) or not (value or empty) or len(value) > LIST_MAX:
            at_least = 0 if empty else 1
            raise fail(
                path, f"{_shown(value)} is not a list", f"write {at_least} to {LIST_MAX} entries"
            )
        return tuple(parse(item, f"{path}[{i}]") for i, item in enumerate(value))

    return parse_list


def distinct(names: Iterable[str], path: str) -> None:
    seen: set[str] = set()
    for item in names:
        if item in seen:
            raise fail(path, f"{item} is named twice", "name each only once")
        seen.add(item)


def known(item: str, names: Iterable[str], path: str, what: str) -> None:
    """Refuse a reference to something that the document does not define."""
    choices = tuple(names)
    if item in choices:
        return
    there = ", ".join(choices) or "none is defined"
    raise fail(path, f"there is no {what} {item}{_guess(item, choices)}", f"known here: {there}")


def _text(value: object, path: str, what: str) -> str:
    if not isinstance(value, str):
        raise fail(path, f"{_shown(value)} is not a text", f"write {what}")
    return value


def _float(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # the caller checked that it is a number
    except OverflowError:
        return math.inf


def _shown(value: object) -> str:
    return repr(value)[:80]
