"""What the regions know of a rollout together, and what each of them says of its own.

Each region tells the others, signed, the twelve harm weights of every metric that it has gathered
in a rollout, from the first step on. They are added up here and now: from what was heard, region
by region. What no other region can have made up alone counts as harm in this region too, so that
it undoes the release by its own word; enough such words are a quarantine, as ever.

A word is due by the clock and says what stands then, whether that rose or fell: a sum of words
that came only when they were high would raise false alarms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hanse.core import limits
from hanse.core.errors import InvalidSpec
from hanse.core.evidence.federation import discoveries, told
from hanse.core.evidence.grid import UNITS_PER_NAT, decode_weights, log_threshold
from hanse.core.evidence.metrics import Metric
from hanse.core.ids import Digest
from hanse.core.reading import canonical_json
from hanse.core.rollout.fields import LIST_MAX
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.progress import Progress
from hanse.core.rollout.spec import METRICS_MAX

ALPHA: Final = 1e-3
"""All metrics of one plan together, over its whole life. Stronger than what a region asks of itself
(`alpha` of a template): here others are undone."""
DISCOVERY_ALPHA: Final = 0.05
"""Share of false discoveries among all that a region ever finds in this way."""
ADDABLE: Final = ("ratio", "paired", "one-arm", "difference")
Weights = tuple[int, ...]
Words = Mapping[str, Mapping[str, Mapping[str, Weights]]]
"""Region, digest of a plan, metric: what was heard last."""


@dataclass(frozen=True, slots=True)
class Together:
    """What so many regions, ours included, show of one metric."""

    metric: str
    regions: int
    log_e: float


@dataclass(frozen=True, slots=True)
class Share:
    """This region's own part of one plan."""

    plan: RolloutSpec
    digest: Digest
    progress: Progress


def addable(plan: RolloutSpec) -> tuple[Metric, ...]:
    """The metrics whose evidence regions may add up: twelve weights, and they decide."""
    metrics = (metric for template in plan.templates for metric in template.deciding)
    return tuple(metric for metric in metrics if metric.test in ADDABLE)


def say(shares: Iterable[Share]) -> dict[str, Any]:
    """The body of our word. What does not fit is left out by digest, never by what it says."""
    rollouts: dict[str, Any] = {}
    left = limits.STATUS_BYTES_MAX - len(canonical_json({"rollouts": {}}))
    for share in sorted(shares, key=lambda share: share.digest):
        names = {metric.name for metric in addable(share.plan)}
        whole = {name: list(w) for name, w in share.progress.whole.items() if name in names}
        one = {str(share.digest): whole}
        left -= len(canonical_json(one))
        if whole and left >= 0:
            rollouts |= one
    return {"rollouts": rollouts}


def read(said: Mapping[str, Any]) -> dict[str, dict[str, Weights]]:
    """The body of somebody's word. Raises `Rejected`."""
    rollouts = said.get("rollouts")
    if set(said) != {"rollouts"} or not isinstance(rollouts, dict) or len(rollouts) > LIST_MAX:
        raise InvalidSpec("evidence is {rollouts: {plan: {metric: 12 weights}}}")
    found: dict[str, dict[str, Weights]] = {}
    for plan, metrics in rollouts.items():
        if not isinstance(metrics, dict) or len(metrics) > METRICS_MAX:
            raise InvalidSpec(f"evidence of a plan is of at most {METRICS_MAX} metrics")
        found[str(Digest.parse(plan))] = {
            str(name): decode_weights({"logw": weights}) for name, weights in metrics.items()
        }
    return found


def weigh(shares: Iterable[Share], words: Words, quorum: int) -> dict[Digest, dict[str, int]]:
    """Per plan the metrics that all regions together show to be harmful, in units of evidence.

    Fewer than `quorum` regions cannot bring it about, whatever they say. What was once found
    stays found with the evidence that it had then.
    """
    shares = tuple(shares)
    streams = {
        (share.digest, found.metric): found.log_e
        for share in shares
        for found in together(share, words, quorum - 1)
    }
    frozen = {
        (share.digest, name): units / UNITS_PER_NAT
        for share in shares
        for name, units in share.progress.rejected.items()
    }
    needed = {share.digest: needed_log_e(share.plan) for share in shares}
    found: dict[Digest, dict[str, int]] = {}
    for (digest, name), log_e in discoveries(streams, DISCOVERY_ALPHA, frozen.items()).items():
        if log_e >= needed[digest]:
            found.setdefault(digest, {})[name] = math.floor(log_e * UNITS_PER_NAT)
    return found


def needed_log_e(plan: RolloutSpec) -> float:
    return log_threshold(ALPHA / max(1, len(addable(plan))))


def together(share: Share, words: Words, spare: int) -> Iterator[Together]:
    """Of each metric, what is left when any `spare` other regions may have made theirs up."""
    named = sorted({region for stage in share.plan.stages for region in stage.regions})
    heard = [words[region].get(str(share.digest), {}) for region in named if region in words]
    for metric in addable(share.plan):
        own = share.progress.whole.get(metric.name)
        others = [said[metric.name] for said in heard if metric.name in said]
        regions = len(others) + (own is not None)
        yield Together(metric.name, regions, told(own, others, spare))
