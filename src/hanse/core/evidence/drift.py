"""Has a distribution moved from the one that the release was signed with?

The signed profile of a release freezes bin edges of each feature and output, and the counts of a
reference sample in these bins. Nodes count what they see into the same bins: 32 integers that add
up in any order. For every inner edge j two one-arm tests ask whether the share below it is further
than `delta` from the reference share p_j:

    e = mean over edges and both sides of e_j(share above p_j + d), e_j(share below p_j - d)
    d = delta + sqrt(ln(2 / alpha_ref) / (2 n_ref))

The mean of e-values is an e-value under any dependence, so nothing has to be corrected for the
number of edges. The second term of d is the reference's own error: without it a reference of
10 000 lets every long watch end in a false alarm. Drift of inputs is no fault of the release that
sees them: it holds and asks for retraining; undoing is for outputs, labels and errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Final, Protocol, Self

from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.evidence.cusum import Cusum
from hanse.core.evidence.grid import log_threshold
from hanse.core.evidence.one_arm import OneArmProcess
from hanse.core.evidence.ratio import COUNT_MAX, Arms

BINS_MAX: Final = 64
REFERENCE_ALPHA: Final = 0.01


@dataclass(frozen=True)
class Reference:
    """A frozen histogram, as the release was signed with it, and how far from it is drift.

    Without slots: the shares are computed once and asked for with every tick.
    """

    counts: tuple[int, ...]
    delta: float = 0.05

    def __post_init__(self) -> None:
        if not 2 <= len(self.counts) <= BINS_MAX or any(
            not 0 <= count <= COUNT_MAX for count in self.counts
        ):
            raise InvalidSpec(f"a reference has 2 to {BINS_MAX} bins of counts")
        if not sum(self.counts) or not 0 < self.delta < 0.5:
            raise InvalidSpec("a reference needs counts, and a delta between 0 and 0.5")

    def within(self, delta: float) -> Reference:
        """The same histogram, with another idea of how far is too far."""
        return Reference(self.counts, delta) if delta else self

    @cached_property
    def nulls(self) -> tuple[tuple[float, float], ...]:
        """For each inner edge the largest and the smallest share below it that is no drift."""
        total = sum(self.counts)
        slack = self.delta + math.sqrt(math.log(2 / REFERENCE_ALPHA) / (2 * total))
        below = list(accumulate(self.counts))[:-1]
        return tuple((count / total + slack, count / total - slack) for count in below)


class EdgeTest(Protocol):
    """A test of one edge and side, over all ticks or over the latest."""

    @property
    def logw(self) -> tuple[int, ...]: ...
    def observe(self, arms: Arms, /) -> Self: ...
    def log_e(self) -> float: ...
    def decoded(self, state: object, /) -> Self: ...


@dataclass(frozen=True)
class DriftProcess:
    """Evidence that what is seen differs from `reference`; the state are its one-arm tests."""

    reference: Reference
    tests: tuple[EdgeTest, ...] = ()

    def __post_init__(self) -> None:
        if not self.tests:
            object.__setattr__(self, "tests", _fresh(self.reference))

    @classmethod
    def lately(cls, reference: Reference) -> Self:
        """One that forgets what it lost, for watching without an end."""
        return cls(reference, tuple(Cusum(test) for test in _fresh(reference)))

    def observe(self, counts: Sequence[int]) -> Self:
        """Add one tick: how many values fell into each bin. Raises `Rejected`."""
        if not counts:
            return self
        if len(counts) != len(self.reference.counts) or any(
            type(count) is not int or not 0 <= count <= COUNT_MAX for count in counts
        ):
            raise Rejected(f"a tick has {len(self.reference.counts)} counts, one a bin")
        total = sum(counts)
        if not total:
            return self
        below = list(accumulate(counts))[:-1]
        # In the order of `_fresh`: per edge "too many below", then "too many above".
        seen = [side for count in below for side in (count, total - count)]
        tests = tuple(
            test.observe(Arms(side, 0, total, 0))
            for test, side in zip(self.tests, _kept(self.reference, seen), strict=True)
        )
        return replace(self, tests=tests)

    def log_e(self) -> float:
        """An edge at which no drift is possible stays at e = 1: it counts, and cannot win."""
        sides = 2 * (len(self.reference.counts) - 1)
        logs = [test.log_e() for test in self.tests] + [0.0] * (sides - len(self.tests))
        top = max(logs)
        return top + math.log(math.fsum(math.exp(value - top) for value in logs) / sides)

    def rejects(self, alpha: float) -> bool:
        return self.log_e() >= log_threshold(alpha)

    def encode(self) -> dict[str, object]:
        return {"edges": [list(test.logw) for test in self.tests]}

    def decoded(self, state: object) -> Self:
        """This hypothesis with stored weights. Raises `Rejected` when they are malformed."""
        edges = state.get("edges") if isinstance(state, dict) and len(state) == 1 else None
        if not isinstance(edges, list) or len(edges) != len(self.tests):
            raise Rejected(
                "the state of a drift test is one list of weights for each edge and side"
            )
        tests = zip(self.tests, edges, strict=True)
        return replace(self, tests=tuple(test.decoded({"logw": edge}) for test, edge in tests))


def _possible(reference: Reference) -> list[float | None]:
    """The null rate of each side of each edge; None where no share could be drift."""
    rates = [rate for high, low in reference.nulls for rate in (high, 1 - low)]
    return [rate if 0 < rate < 1 else None for rate in rates]


def _fresh(reference: Reference) -> tuple[OneArmProcess, ...]:
    return tuple(OneArmProcess(rate) for rate in _possible(reference) if rate is not None)


def _kept(reference: Reference, seen: Sequence[int]) -> list[int]:
    possible = _possible(reference)
    return [side for side, rate in zip(seen, possible, strict=True) if rate is not None]
