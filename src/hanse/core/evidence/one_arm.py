"""Is a rate above an absolute limit, or proven to be below one? No control arm is needed.

Bernoulli likelihood ratio against rate q on the odds grid, S bad of n in one tick:

    harm,  H0 rate <= q:  theta_j = q*g_j / (1 - q + q*g_j)    odds g_j times higher
    proof, H0 rate >= q:  theta_j = q / (g_j*(1 - q) + q)      odds g_j times lower, mirrored
    logw_j += S*ln(theta_j/q) + (n - S)*ln((1 - theta_j)/(1 - q))

The mirrored grid is the same twelve g_j: 126 requests without one bad event prove "below 5 %" at
alpha 0.01 (the least any test could need is 90), 638 prove "below 1 %".

A limit does not cancel a shared incident: use it for budgets (disagreement, absolute promises) and
for first releases, and the ratio of two arms wherever there are two arms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.evidence.grid import GRID, to_units
from hanse.core.evidence.ratio import Arms
from hanse.core.evidence.weighted import Weighted


@dataclass(frozen=True, slots=True)
class OneArmProcess(Weighted):
    """Evidence that the trial's rate is above `rate`, or with `proof` that it is below."""

    rate: float
    proof: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise InvalidSpec(f"rate is {self.rate}", fix="write a share between 0 and 1: 0.05")

    def gains(self, arms: Arms) -> tuple[int, ...]:
        """What one tick is worth to each grid point, in units of 2**-32 nats."""
        if arms.bad_t > arms.n_t:
            raise Rejected(f"more bad events than requests: {arms}")
        good = arms.n_t - arms.bad_t
        return to_units(
            arms.bad_t * on_bad + good * on_good
            for on_bad, on_good in _log_odds(self.rate, self.proof)
        )

    def observe(self, arms: Arms) -> Self:
        """Add one tick; the control's counts are not looked at."""
        return self.gained(self.gains(arms))


@lru_cache(maxsize=256)
def _log_odds(q: float, proof: bool) -> tuple[tuple[float, float], ...]:
    """For each grid point: what one bad and what one good request are worth, in nats."""
    factors = (1 / g if proof else g for g in GRID)
    # theta/q = f/(1 - q + q*f) and (1 - theta)/(1 - q) = 1/(1 - q + q*f) for odds factor f.
    return tuple((math.log(f) - math.log1p(q * (f - 1)), -math.log1p(q * (f - 1))) for f in factors)
