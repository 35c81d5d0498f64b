"""After a promotion: against what a release is watched, and when that is an alarm.

No second arm is left to compare with, so each metric of the plan is measured against what the
release itself showed while it was proven:

    ratio, paired   the rate in the rollout, at most what its counts leave possible, times
                    `watch.factor` of the plan; the highest that is possible without one of the
                    nodes, so that none can set a limit which all the others then exceed
    one-arm         the same absolute limit as in the rollout
    drift           the profile that the release was signed with

A limit does not cancel an incident that hits every release alike, so factors are generous and one
alarm undoes one promotion, never a second (see `region`). The test is an e-CUSUM, which does not
grow deaf with time. A tick is ten seconds of counts: a level of 1e6 is 115 days between false
alarms of a release that is as bad as its limit, and far longer for one that is as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from hanse.core.evidence.metrics import Metric
from hanse.core.evidence.window import ArmCounts

TICK_S: Final = 10.0
LEVEL: Final = 1e6
_CONFIDENCE: Final = math.log(1000)  # the true rate is above the bound once in a thousand
_RATE_MAX: Final = 0.5
_STEPS: Final = 50


def watched(metric: Metric, shown: Sequence[ArmCounts], factor: float) -> Metric | None:
    """This metric after the promotion; None for one that needs the other arm or has no data.

    `shown` is everything that the release answered during its rollout, then the same as it is
    without one node after the other.
    """
    if metric.test == "drift":
        return replace(metric, test="drift-watch", proven_below=None)
    event = "wrong" if metric.event == "wrong-pair" else metric.event
    if event not in ("error", "slow", "wrong"):
        return None
    limit = metric.slo
    if limit is None:
        limit, *others = (factor * rate_at_most(*_counts(event, seen)) for seen in shown)
        if limit <= _RATE_MAX:  # the others without a node may be too few to say anything
            limit = max(limit, *(rate for rate in (0.0, *others) if rate <= _RATE_MAX))
    if not 0 < limit <= _RATE_MAX:
        return None
    return replace(metric, test="watch", event=event, slo=limit, proven_below=None)


def alarm_level(metrics: int) -> float:
    """The level at which one of so many metrics alarms, as the alpha of its test."""
    return 1 / (LEVEL * max(1, metrics))


def _counts(event: str, seen: ArmCounts) -> tuple[int, int]:
    bad = {"error": seen.errors, "slow": seen.slow, "wrong": seen.wrong}[event]
    return bad, seen.labelled if event == "wrong" else seen.requests


def rate_at_most(bad: int, exposed: int) -> float:
    """The largest rate q with exposed * KL(bad/exposed || q) <= ln 1000 (Chernoff); 1 of nothing.

    Conservative at every number of requests, and needs no table.
    """
    if not exposed:
        return 1.0
    seen = bad / exposed
    low, high = seen, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if exposed * _kl(seen, middle) <= _CONFIDENCE else (low, middle)
    return high


def _kl(p: float, q: float) -> float:
    """Kullback-Leibler divergence of two coins, in nats, for 0 < q."""
    if q >= 1:
        return math.inf if p < 1 else 0.0
    bad = p * math.log(p / q) if p else 0.0
    good = (1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0
    return bad + good
