"""The counts of one telemetry tick, as a node, a region or a peer may send them.

A window compares one trial arm, the canary or the shadow, with the stable arm over the same
interval. The share of traffic is constant inside a window, so windows are never pooled across a
change of weight. Only integers: windows can be added up and checked by anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import zip_longest
from operator import add
from typing import TypeVar

from hanse.core.errors import Rejected
from hanse.core.evidence.ratio import COUNT_MAX

K = TypeVar("K")


def added(left: Mapping[K, int], right: Mapping[K, int]) -> dict[K, int]:
    out = dict(left)
    for key, count in right.items():
        out[key] = out.get(key, 0) + count
    return out


def added_bins(left: Iterable[int], right: Iterable[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip_longest(left, right, fillvalue=0))


def _counts(counted: ArmCounts | PairCounts) -> tuple[int, ...]:
    return tuple(getattr(counted, each) for each in counted.__slots__)


def _check(counts: tuple[int, ...]) -> None:
    if not all(type(count) is int and 0 <= count <= COUNT_MAX for count in counts):
        raise Rejected(f"counts are not integers from 0 to 2**40: {counts}")


class Trial(StrEnum):
    CANARY = "canary"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """One arm. `labelled` may exceed `requests`: labels arrive later than the answers."""

    requests: int = 0
    errors: int = 0
    slow: int = 0
    labelled: int = 0
    wrong: int = 0

    def __post_init__(self) -> None:
        _check(_counts(self))
        if max(self.errors, self.slow) > self.requests or self.wrong > self.labelled:
            raise Rejected(f"more bad events than observations: {self}")

    def __add__(self, other: ArmCounts) -> ArmCounts:
        """Raises `Rejected` beyond what anybody can have counted."""
        return ArmCounts(*map(add, _counts(self), _counts(other)))


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Requests answered by both models; the first four need a label, the last two do not."""

    only_trial_wrong: int = 0
    only_stable_wrong: int = 0
    both_right: int = 0
    both_wrong: int = 0
    agree: int = 0
    disagree: int = 0

    def __add__(self, other: PairCounts) -> PairCounts:
        return PairCounts(*map(add, _counts(self), _counts(other)))

    def __post_init__(self) -> None:
        _check(_counts(self))

    @property
    def labelled(self) -> int:
        discordant = self.only_trial_wrong + self.only_stable_wrong
        return discordant + self.both_right + self.both_wrong

    @property
    def compared(self) -> int:
        return self.agree + self.disagree


@dataclass(frozen=True, slots=True)
class Window:
    arm: Trial
    trial: ArmCounts = ArmCounts()
    stable: ArmCounts = ArmCounts()
    pairs: PairCounts = PairCounts()
    differences: Mapping[int, int] = field(default_factory=dict)
    """Compared answers by how much worse the trial's was; cells of `difference.level`."""
    series: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Histograms of what the trial saw and said, in the bins of the release's profile."""
    node: str = ""
    """Who counted it; empty if it is of several nodes, or of none."""

    def __add__(self, other: Window) -> Window:
        """What two nodes counted in one tick, of one arm. Raises `Rejected`."""
        names = {**self.series, **other.series}
        return Window(
            self.arm,
            self.trial + other.trial,
            self.stable + other.stable,
            self.pairs + other.pairs,
            added(self.differences, other.differences),
            {n: added_bins(self.series.get(n, ()), other.series.get(n, ())) for n in names},
        )

    @property
    def requests(self) -> int:
        return self.trial.requests + self.stable.requests
