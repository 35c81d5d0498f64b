"""Is the bad-event rate of the trial arm more than `margin` times that of the control arm?

Per tick the test asks only: *given* that k bad events happened, how many fell on the trial arm?
Under a rate ratio r that share is r*n_t / (r*n_t + n_c), whatever the base rate. Base rates may
drift, incidents may hit both arms and the weight may change between ticks; all of it cancels
(Lindon and Malek's multinomial test). Pooling ticks before testing would lose exactly this.

With r_j = margin * g_j over the grid:

    logw_j += x_t*ln(g_j) - k*ln((r_j*n_t + n_c) / (margin*n_t + n_c))

Harm and proof are the same test with the roles of the arms exchanged:

- `RatioProcess(1.25)`: H0 "ratio <= 1.25"; rejecting it is harm.
- `RatioProcess(2.0, proof=True)`: H0 "ratio >= 2", that is control/trial <= 1/2; rejecting it
  proves "less than twice as often". Without this proof the absence of an alarm says nothing.

Labelled shadow pairs (McNemar) are this test too. b requests only the trial got wrong, c only
the control: each discordant pair is one bad event between two equally exposed arms, so observe
`Arms(b, c, 1, 1)`; with margin 1 and theta_j = g_j/(1+g_j) the line above becomes
b*ln(2*theta_j) + c*ln(2*(1-theta_j)). Only n_t : n_c counts, so `Arms(b, c, pairs, pairs)` is
the very same evidence and keeps the number of pairs for people to read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.evidence.grid import GRID, LOG_GRID, ZERO, to_units
from hanse.core.evidence.weighted import Weighted

COUNT_MAX = 2**40
"""No tick of any region counts more; a larger number is an error or a lie."""


@dataclass(frozen=True, slots=True)
class Arms:
    """Counts of one tick: bad events and exposures of the trial (t) and the control (c)."""

    bad_t: int
    bad_c: int
    n_t: int
    n_c: int

    def __post_init__(self) -> None:
        if not all(0 <= count <= COUNT_MAX for count in (*self.bad, *self.exposed)):
            raise Rejected(f"a count is outside 0 to 2**40: {self}")
        if (self.bad_t and not self.n_t) or (self.bad_c and not self.n_c):
            raise Rejected(f"bad events in an arm that saw nothing: {self}")

    @property
    def bad(self) -> tuple[int, int]:
        return self.bad_t, self.bad_c

    @property
    def exposed(self) -> tuple[int, int]:
        return self.n_t, self.n_c

    def swapped(self) -> Arms:
        return Arms(self.bad_c, self.bad_t, self.n_c, self.n_t)

    def __add__(self, other: Arms) -> Arms:
        return Arms(
            self.bad_t + other.bad_t,
            self.bad_c + other.bad_c,
            self.n_t + other.n_t,
            self.n_c + other.n_c,
        )


@dataclass(frozen=True, slots=True)
class RatioProcess(Weighted):
    """Evidence that trial/control is above `margin`, or with `proof` that it is below.

    `margin` comes from the signed spec.
    """

    margin: float
    proof: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.margin < math.inf:
            raise InvalidSpec(f"margin is {self.margin}", fix="write a ratio above 0, such as 1.25")

    def gains(self, arms: Arms) -> tuple[int, ...]:
        """What one tick is worth to each grid point, in units of 2**-32 nats."""
        if self.proof:
            return _increments(1 / self.margin, arms.swapped())
        return _increments(self.margin, arms)

    def observe(self, arms: Arms) -> Self:
        """Add one tick. Ticks of different weight must not be added up before this."""
        return self.gained(self.gains(arms))


def _increments(margin: float, arms: Arms) -> tuple[int, ...]:
    total = arms.bad_t + arms.bad_c
    # With one arm only, every bad event falls where it must: nothing is learnt.
    if not total or not arms.n_t or not arms.n_c:
        return ZERO
    # Reduced, so that equal proportions give equal bits whatever the traffic.
    common = math.gcd(arms.n_t, arms.n_c)
    n_t, n_c = arms.n_t // common, arms.n_c // common
    return to_units(
        arms.bad_t * log_g - total * log_spread
        for log_g, log_spread in zip(LOG_GRID, _log_spreads(margin, n_t, n_c), strict=True)
    )


@lru_cache(maxsize=1024)
def _log_spreads(margin: float, n_t: int, n_c: int) -> tuple[float, ...]:
    """ln((r_j*n_t + n_c) / (margin*n_t + n_c)), by log1p so that a small share stays exact."""
    null = margin * n_t + n_c
    return tuple(math.log1p(margin * (g - 1) * n_t / null) for g in GRID)
