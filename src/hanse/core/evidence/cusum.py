"""After promotion: has something become worse *lately*? An e-CUSUM over the same increments.

One long test grows deaf: the wealth that it lost while all was well has to be won back before a
late regression shows. The CUSUM forgets losses: per grid point

    c_j <- max(c_j, 0) + increment_j          alarm when log mean_j exp(c_j) >= ln(level)

While the null holds, the expected number of ticks to the first false alarm is at least `level`
(Shin, Ramdas and Rinaldo, e-detectors). At one tick a minute a level of 1e5 is seventy days.

Forgetting depends on the order of ticks, so states of two regions do not add: each region watches
its own, and what crosses regions are counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

from hanse.core.evidence.ratio import Arms
from hanse.core.evidence.weighted import Weighted


class Test(Protocol):
    """A sequential test that can say what one tick is worth to each grid point."""

    def gains(self, arms: Arms) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class Cusum(Weighted):
    """Evidence that `test`'s null has lately stopped to hold.

    It alarms at `alpha` once in 1/alpha ticks at most, while the null holds.
    """

    test: Test

    def observe(self, arms: Arms) -> Self:
        kept = tuple(max(weight, 0) for weight in self.logw)
        return replace(self, logw=kept).gained(self.test.gains(arms))
