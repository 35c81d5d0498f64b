"""Wealth of a sequential test: twelve log weights, kept as integers.

Every test here bets against a null hypothesis with 12 fixed alternatives ("the odds are g times
what the null says", g log-spaced from 1.15 to 8) of equal prior weight. After a tick, alternative
j has won or lost `increment_j` nats; e = mean_j exp(sum of increments). By Ville's inequality
P(e ever reaches 1/alpha) <= alpha under the null, so it may be looked at after every tick.

Weights are whole multiples of 2**-32 nats. An increment is computed in floating point from the
integer counts of one tick and rounded DOWN once; from there on only integers are added. Sums are
therefore exact, independent of order and grouping, and the same after a restart; and rounding
down can only lose wealth, never raise a false alarm. See docs/decisions/0003.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from hanse.core.errors import InvalidSpec, Rejected

POINTS: Final = 12
GRID: Final = tuple(1.15 * (8 / 1.15) ** (j / (POINTS - 1)) for j in range(POINTS))
LOG_GRID: Final = tuple(math.log(g) for g in GRID)
UNITS_PER_NAT: Final = 2**32
ZERO: Final = (0,) * POINTS

# Decoded weights are summed for years; 80 bits is far above what counts can reach and far below
# what would make a hostile state expensive to add.
_WEIGHT_BITS_MAX = 80


def to_units(nats: Iterable[float]) -> tuple[int, ...]:
    """Round one tick's increments down to whole units of 2**-32 nats."""
    return tuple(math.floor(value * UNITS_PER_NAT) for value in nats)


def add(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def log_mean(logw: tuple[int, ...]) -> float:
    """The log of the e-value in nats. A float, for comparing and showing, never for keeping."""
    top = max(logw)
    spread = math.fsum(math.exp((weight - top) / UNITS_PER_NAT) for weight in logw)
    return top / UNITS_PER_NAT + math.log(spread / POINTS)


def log_threshold(alpha: float) -> float:
    """The log e-value that rejects at level alpha: ln(1/alpha). Raises `InvalidSpec`."""
    if not 0 < alpha < 1:
        raise InvalidSpec(f"alpha is {alpha}", fix="choose a level between 0 and 1, such as 0.01")
    return -math.log(alpha)


def decode_weights(state: object) -> tuple[int, ...]:
    """Read `{"logw": [12 integers]}`. Raises `Rejected` for anything else."""
    weights = state.get("logw") if isinstance(state, Mapping) and len(state) == 1 else None
    if not isinstance(weights, list) or len(weights) != POINTS:
        raise Rejected(f"evidence state is not {{'logw': [{POINTS} integers]}}")
    for weight in weights:
        if type(weight) is not int or weight.bit_length() > _WEIGHT_BITS_MAX:
            raise Rejected("an evidence weight is not an integer of at most 80 bits")
    return tuple(weights)
