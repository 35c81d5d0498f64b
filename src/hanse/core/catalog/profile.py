"""What a release saw and said when it was signed, as frozen histograms: the base of drift.

    {"tensor": "y", "side": "output", "element": null,
     "edges": [-1.5, 0.0, 2.25], "counts": [120, 5012, 4811, 57]}

A series counts values of one tensor, all elements or one index of its last axis, into bins that
the inner `edges` part: bin i holds edges[i-1] < value <= edges[i]. Edges and reference counts are
part of the signed manifest, so every node counts into the same bins, counts of many nodes add up,
and nobody can move the base afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from hanse.core.errors import InvalidSpec
from hanse.core.evidence.drift import BINS_MAX, Reference
from hanse.core.evidence.ratio import COUNT_MAX
from hanse.core.reading import Reader

SERIES_MAX: Final = 8
_SIDES: Final = ("input", "output")
_ELEMENT_MAX: Final = 2**20


@dataclass(frozen=True, slots=True)
class Series:
    """One histogram; `name` is how plans and telemetry call it: `output:y`, `input:x[3]`."""

    tensor: str
    side: str
    element: int | None
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def name(self) -> str:
        where = "" if self.element is None else f"[{self.element}]"
        return f"{self.side}:{self.tensor}{where}"

    def to_mapping(self) -> dict[str, Any]:
        return {
            "tensor": self.tensor,
            "side": self.side,
            "element": self.element,
            "edges": list(self.edges),
            "counts": list(self.counts),
        }


def references(profile: Iterable[Series]) -> dict[str, Reference]:
    """By name, what the tests compare with."""
    return {series.name: Reference(series.counts) for series in profile}


def parse_series(value: Any, path: str) -> Series:
    with Reader(value, path) as reader:
        element = reader.raw("element")
        if element is not None and (type(element) is not int or not 0 <= element < _ELEMENT_MAX):
            raise InvalidSpec(f"{path}.element: expected null or a whole number")
        return Series(
            reader.text("tensor"),
            reader.one_of("side", _SIDES),
            element,
            _numbers(reader.raw("edges"), f"{path}.edges"),
            reader.items("counts", _count, count_max=BINS_MAX),
        )


def check_profile(profile: tuple[Series, ...], tensors: Mapping[str, Iterable[str]]) -> None:
    """Refuse series that nobody could count: of unknown tensors, twice, or with bins amiss.

    `tensors` names the inputs and the outputs by side.
    """
    names = [series.name for series in profile]
    if len(set(names)) != len(names):
        raise InvalidSpec("manifest.profile: a series stands twice")
    for series in profile:
        if series.tensor not in set(tensors[series.side]):
            raise InvalidSpec(f"manifest.profile: there is no {series.side} {series.tensor!r}")
        if len(series.counts) != len(series.edges) + 1 or not sum(series.counts):
            raise InvalidSpec(f"manifest.profile: {series.name} needs one count more than edges")
        if any(a >= b for a, b in pairwise(series.edges)):
            raise InvalidSpec(f"manifest.profile: the edges of {series.name} do not rise")


def _numbers(value: Any, path: str) -> tuple[float, ...]:
    if not isinstance(value, list) or not 1 <= len(value) < BINS_MAX:
        raise InvalidSpec(f"{path}: expected 1 to {BINS_MAX - 1} numbers")
    # JSON knows no infinity here: reading refuses it.
    if not all(type(number) in (int, float) for number in value):
        raise InvalidSpec(f"{path}: expected numbers")
    return tuple(value)


def _count(value: Any, path: str) -> int:
    if type(value) is not int or not 0 <= value <= COUNT_MAX:
        raise InvalidSpec(f"{path}: expected a count")
    return value
