"""What speaks against a release in one region: evidence, all regions together, nodes that fail.

One node alone undoes nothing where there are three or more: see `evidence.voices`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hanse.core.evidence.grid import UNITS_PER_NAT
from hanse.core.evidence.metrics import Metric
from hanse.core.evidence.verdict import Kind, Reason, Verdict
from hanse.core.evidence.voices import CROWD_MIN
from hanse.core.evidence.watch import alarm_level
from hanse.core.rollout.table import STEPPING, State
from hanse.core.rollout.tick import View


def harm_of(view: View) -> Verdict | None:
    """The gravest harm that any watched template or all regions show, in whatever state."""
    found = [*_harm_here(view), *_harm_together(view)]
    return min(
        found, key=lambda v: (v.on_fail != "rollback", v.reason != Reason.WORSE), default=None
    )


def judged(view: View, metrics: Iterable[Metric], alpha: float, samples_min: int = 0) -> Verdict:
    """What our nodes show, as far as none of them decides alone."""
    progress = view.progress
    return progress.voices.judge(progress.evidence, metrics, alpha, samples_min, late=view.late)


def _harm_together(view: View) -> Iterator[Verdict]:
    """What this region's counts need not show: it was found in the regions' counts together."""
    for template in view.spec.templates:
        for metric in template.deciding:
            if units := view.progress.rejected.get(metric.name):
                why = f"{metric.name}: all regions together show harm {units / UNITS_PER_NAT:.1f}"
                yield Verdict(Kind.HARM, Reason.WORSE, why, (), metric.on_fail)


def _harm_here(view: View) -> list[Verdict]:
    if view.progress.watching:
        metrics = [row.metric for row in view.progress.evidence.rows]
        deciding = sum(not metric.dry_run for metric in metrics)
        found = [judged(view, metrics, alarm_level(max(1, deciding)))]
    else:
        found = [
            judged(view, template.metrics, template.share(view.stage.epochs))
            for template in view.spec.watched(view.stage)
        ]
    return [verdict for verdict in found if verdict.kind is Kind.HARM]


def failing(view: View, spare: int = 0) -> str | None:
    """Too many nodes cannot run it, or were never heard again after they took it, even if `spare`
    of them say so without a cause.

    With nobody online it is we who are cut off, and that says nothing about the release.
    """
    nodes, progress = view.facts.nodes, view.progress
    if progress.active not in (*STEPPING, State.PREFETCHING) or not nodes.online:
        return None
    bad, took = nodes.failing + nodes.silent, nodes.ready + nodes.failing + nodes.silent
    if max(took, nodes.online) < CROWD_MIN:
        spare = 0
    if bad - spare <= view.spec.nodes.failing_share * (took - spare):
        return None
    named = f": {', '.join(nodes.against)}" if nodes.against else ""
    counts = f"{nodes.failing} of {took} nodes failed to run it, {nodes.silent} fell silent with it"
    return counts + named
