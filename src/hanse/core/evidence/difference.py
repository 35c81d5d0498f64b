"""Is the mean of a bounded difference above a margin? For scores, losses and relative errors.

Each pair of answers gives D = (loss of the trial) - (loss of the stable) in [-1, 1]. Bets of fixed
size lambda_j on "E[D] > m" win or lose ln(1 + lambda_j (D - m)) a pair, so

    logw_j += sum over pairs of ln(1 + lambda_j (D - m))        lambda_j = g_j / (1 + m)

with twelve g_j, log-spaced from 0.01 to 0.5. Under E[D] <= m each is a test supermartingale, and so
is their mean. Sizes that learn from the past (aGRAPA) would be a little faster, but what they have
won depends on the order of pairs; fixed sizes make evidence add up in any order and grouping.

Differences travel as counts on a grid of 1/32: `levels[i]` pairs had D in [i/32 - 1, (i+1)/32 - 1).
Harm is reckoned from the lower end of each cell and proof from its upper end, so that rounding
can only lose wealth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.evidence.grid import POINTS, to_units
from hanse.core.evidence.ratio import COUNT_MAX
from hanse.core.evidence.weighted import Weighted

STEPS: Final = 32
LEVELS: Final = 2 * STEPS + 1
"""Cells of a difference; the last one holds exactly +1."""
_BETS: Final = tuple(0.01 * 50 ** (j / (POINTS - 1)) for j in range(POINTS))


def level(difference: float) -> int:
    """The cell of one difference. Raises `Rejected` outside [-1, 1] and for NaN."""
    if not -1 <= difference <= 1:
        raise Rejected(f"a difference of {difference} is not in [-1, 1]")
    return math.floor((difference + 1) * STEPS)


@dataclass(frozen=True, slots=True)
class DifferenceProcess(Weighted):
    """Evidence that E[D] is above `margin`, or with `proof` that it is below."""

    margin: float
    proof: bool = False

    def __post_init__(self) -> None:
        if not -1 < self.margin < 1:
            raise InvalidSpec(f"margin is {self.margin}", fix="write a number between -1 and 1")

    def observe(self, levels: Mapping[int, int]) -> Self:
        """Add the pairs of one tick: how many fell into each cell, 0 to `LEVELS - 1`."""
        for cell, count in levels.items():
            if not (0 <= cell < LEVELS and 0 <= count <= COUNT_MAX):
                raise Rejected(f"{count} pairs in cell {cell}: there are cells 0 to {LEVELS - 1}")
        table = _table(self.margin, self.proof)
        gains = (
            math.fsum(count * row[cell] for cell, count in sorted(levels.items())) for row in table
        )
        return self.gained(to_units(gains))


@lru_cache(maxsize=256)
def _table(margin: float, proof: bool) -> tuple[tuple[float, ...], ...]:
    """For each bet, what one pair in each cell is worth, in nats.

    Proof is harm with the sign of everything turned: "E[-D] > -margin".
    """
    ends = [min(1.0, (cell + proof) / STEPS - 1) for cell in range(LEVELS)]
    sign, null = (-1, -margin) if proof else (1, margin)
    return tuple(
        tuple(math.log1p(bet / (1 + null) * (sign * end - null)) for end in ends) for bet in _BETS
    )
