"""Did the arms get the shares of traffic that the plan gave them? (sample ratio mismatch)

A canary at 10 % that answers 8 % of the requests has lost some, and seldom the easy ones: whatever
else the counts say about it is biased. Against "each request goes to the trial with probability p"
bets a Dirichlet mixture centred on p:

    log e = ln B(X + kp, N - X + k(1-p)) - ln B(kp, k(1-p)) - X ln p - (N - X) ln(1-p)      k = 1000

X of N requests went to the trial. The state is (X, N), which adds up. Peeking at a chi-squared
test at p < .001 raises a false alarm in 3 of 100 healthy days; this one, at the same level, in
less than 1 of 1000.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Self

from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.evidence.grid import log_threshold
from hanse.core.evidence.ratio import COUNT_MAX, Arms

CONCENTRATION: Final = 1000.0


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Evidence that the trial's share of requests is not `share`."""

    share: float
    trial: int = 0
    total: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InvalidSpec(f"share is {self.share}", fix="write a share between 0 and 1")

    def observe(self, arms: Arms) -> Self:
        return replace(self, trial=self.trial + arms.n_t, total=self.total + arms.n_t + arms.n_c)

    def log_e(self) -> float:
        x, y, p, q = self.trial, self.total - self.trial, self.share, 1 - self.share
        prior = _log_beta(CONCENTRATION * p, CONCENTRATION * q)
        posterior = _log_beta(x + CONCENTRATION * p, y + CONCENTRATION * q)
        return posterior - prior - x * math.log(p) - y * math.log(q)

    def rejects(self, alpha: float) -> bool:
        return self.log_e() >= log_threshold(alpha)

    def encode(self) -> dict[str, object]:
        return {"trial": self.trial, "total": self.total}

    def decoded(self, state: object) -> Self:
        """This hypothesis with stored counts. Raises `Rejected` when they are malformed."""
        if not isinstance(state, dict) or set(state) != {"trial", "total"}:
            raise Rejected("the state of a sample ratio is {trial, total}")
        trial, total = state["trial"], state["total"]
        if not all(type(n) is int for n in (trial, total)) or not 0 <= trial <= total <= COUNT_MAX:
            raise Rejected("the state of a sample ratio is two counts, trial within total")
        return replace(self, trial=trial, total=total)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
