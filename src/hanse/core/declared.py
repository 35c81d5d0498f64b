"""Metrics that a plan declares and a Prometheus server beside the daemon counts.

    prometheus: {bad: 'sum(orders_failed_total{release="$release"})',
                 total: 'sum(orders_total{release="$release"})'}

Both are counters that only rise; what is judged is by how much they rose between two looks, of the
canary and of the stable release at the same moment. The plan says what is asked and never whom: the
address is a setting of the daemon, so that no plan can make it call others.

Whatever is no pair of such counts (no answer, nothing found, NaN, several series, a counter that
fell) adds nothing. When nothing was added for longer than `freshness.telemetry`, the rollout holds:
an outage is neither health nor harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hanse.core.evidence.metrics import DECLARED, TESTS, Metric
from hanse.core.evidence.ratio import COUNT_MAX, Arms
from hanse.core.evidence.verdict import Reason
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.progress import Progress
from hanse.core.rollout.templates import PLACEHOLDER

Epoch = tuple[int, int, int]
Pair = tuple[int, int]
"""Bad events and all of them, since the counters began."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What one metric of one rollout needs now: (bad, total) of the canary, then of stable."""

    rollout: str
    epoch: Epoch
    metric: str
    queries: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """`counts`, one pair for each of `ask.queries`; or None, and why there are none."""

    ask: Ask
    counts: tuple[Pair, ...] | None
    why: str = ""


def declared(plan: RolloutSpec) -> Iterator[Metric]:
    for template in plan.templates:
        yield from (metric for metric in template.metrics if metric.event == DECLARED)


def fill(query: str, values: Mapping[str, str]) -> str:
    """The query with its placeholders replaced; the parser has let no others through."""
    return PLACEHOLDER.sub(lambda found: values[found[1]], query)


def needs_stable(metric: Metric) -> bool:
    return TESTS[metric.test].needs_control


@dataclass(slots=True)
class Counters:
    """Of one rollout in one region. Not stored: after a restart one look begins anew."""

    epoch: Epoch | None = None
    _since_s: float = 0.0
    _base: dict[str, tuple[Pair, ...]] = field(default_factory=dict)
    _waiting: dict[str, Arms] = field(default_factory=dict)
    _rose_s: dict[str, float] = field(default_factory=dict)
    _why: dict[str, str] = field(default_factory=dict)

    def follow(self, progress: Progress, now_s: float) -> None:
        """Begin anew when the arms changed: counts of earlier arms must not be pooled."""
        epoch = (progress.stage, progress.weight_percent, progress.shadow_percent)
        if epoch != self.epoch:
            self.epoch = epoch
            self._since_s = now_s
            for kept in (self._base, self._waiting, self._rose_s, self._why):
                kept.clear()

    def hear(self, answer: Answer, now_s: float) -> None:
        name = answer.ask.metric
        if answer.ask.epoch != self.epoch:
            return
        if answer.counts is None:
            self._why[name] = answer.why
            return
        base, self._why[name] = self._base.get(name), ""
        rose = base and tuple(
            (bad - old_bad, total - old_total)
            for (bad, total), (old_bad, old_total) in zip(answer.counts, base, strict=True)
        )
        if not rose or any(min(pair) < 0 for pair in rose):
            self._base[name] = answer.counts  # the first look, or a counter began again
            return
        if any(bad > total or total > COUNT_MAX for bad, total in rose):
            self._why[name] = "more bad events than events in all"  # perhaps scraped in between
            return
        if not any(total for _, total in rose):
            return
        self._base[name], self._rose_s[name] = answer.counts, now_s
        (bad_t, n_t), (bad_c, n_c) = (*rose, (0, 0))[:2]
        self._waiting[name] = self._waiting.get(name, Arms(0, 0, 0, 0)) + Arms(
            bad_t, bad_c, n_t, n_c
        )

    def take(self) -> dict[str, Arms]:
        """What was counted since the last tick; handed out once."""
        taken, self._waiting = self._waiting, {}
        return taken

    def gap(self, plan: RolloutSpec, now_s: float) -> tuple[str, str] | None:
        """Why this rollout has to wait for a metric, as a reason and a sentence."""
        limit_s = plan.freshness.telemetry_ms / 1000
        for metric in declared(plan):
            gap_s = now_s - self._rose_s.get(metric.name, self._since_s)
            if not metric.dry_run and gap_s > limit_s:
                why = self._why.get(
                    metric.name, "nobody asks Prometheus: is prometheus_url set here?"
                )
                said = why or "Prometheus answers, and counted no event"
                reason = Reason.TELEMETRY_GAP if why else Reason.NO_TRAFFIC
                return reason, f"{metric.name}: nothing for {gap_s:.0f} s: {said}"
        return None
