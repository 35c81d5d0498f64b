"""Evidence of many regions and many streams: what they say together.

**One release, many regions.** Each region sends, for a metric, its twelve log weights. Two ways to
look at them, each at half of alpha:

- `mean`: the mean of the regions' e-values. Valid whatever the regions have in common; finds what
  is bad in one region.
- `sum`: the weights added up grid point by grid point, as if all ticks had been one region's. Finds
  what is a little bad everywhere, with a sixth of the requests that any single region would need.

What others send may be false. `told` therefore leaves out of both the most that any few of them
say, grid point by grid point: whatever those lie, the rest is no more than what honest regions said
(if a lie is the most, it is gone; if not, an honest word at least as high went in its place).
See docs/decisions/0017.

**Many releases, many metrics.** e-BH keeps the expected share of false discoveries below alpha
under any dependence: sort e-values, reject the k* largest, k* = max{k : e_(k) >= K / (alpha k)}.
Looked at again and again it stays valid if a stream that was once rejected stays so with the
e-value that it had then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from hanse.core.evidence.grid import POINTS, ZERO, add, log_mean, log_threshold

K = TypeVar("K")


def told(own: tuple[int, ...] | None, others: Sequence[tuple[int, ...]], spare: int) -> float:
    """The log e-value of all regions together that no `spare` of the others can have made up.

    `own` is believed. Half of the larger of the two ways: at level alpha it needs ln(1/alpha).
    """
    count = len(others) + (own is not None)
    if not count:
        return 0.0
    logs = sorted(map(log_mean, others))[: max(0, len(others) - spare)]
    logs += [log_mean(own)] if own is not None else []
    mean = -math.inf
    if logs:
        top = max(logs)
        mean = top + math.log(math.fsum(math.exp(value - top) for value in logs) / count)
    columns = zip(*others, strict=True) if others else ((),) * POINTS
    # What speaks for the release is not left out: without it there would be more against it.
    kept = tuple(sum(c) - _highest(c, spare) for c in columns)
    return max(mean, log_mean(add(own or ZERO, kept))) - math.log(2)


def _highest(weights: Sequence[int], count: int) -> int:
    return sum(max(0, weight) for weight in sorted(weights, reverse=True)[:count])


def discoveries(
    log_e: Mapping[K, float], alpha: float, frozen: Iterable[tuple[K, float]] = ()
) -> dict[K, float]:
    """The streams that e-BH rejects, each with the log e-value that it was rejected with.

    `log_e` holds every stream, `frozen` what an earlier look returned.
    """
    values = {**log_e, **dict(frozen)}
    ranked = sorted(values.items(), key=lambda item: -item[1])
    count = len(ranked)
    best = 0
    for k, (_, value) in enumerate(ranked, start=1):
        if value >= math.log(count / k) + log_threshold(alpha):
            best = k
    return dict(ranked[:best])
