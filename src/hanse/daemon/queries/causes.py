"""By whose decision a release was taken off a region, and on which numbers."""

from __future__ import annotations

from hanse.core.catalog.view import Release
from hanse.core.events import Kill, Rollback, RolloutControl
from hanse.core.evidence.metrics import EVENTS, Metric
from hanse.core.evidence.verdict import Reading, Reason
from hanse.core.rollout.stimuli import Cause
from hanse.daemon.queries.matter import Matter, in_time, plain
from hanse.daemon.queries.parts import BACK, Part

Judged = list[tuple[Metric, Reading]]
_OWN_WORDS = frozenset({*map(str, Cause), *map(str, Reason), "killed", "quarantined", "held"})
"""Reasons that a region writes by itself; whatever else stands there, a person wrote."""


def cause(
    matter: Matter,
    release: Release,
    region: str,
    found: Part | None,
    decided: Judged,
) -> str:
    word = _word_of_a_person(matter, release, region)
    reason = found.reason if found is not None and found.state in BACK else ""
    if decided and reason == Reason.WORSE:
        return f"by the region itself: {harm(decided)}"
    if word and reason in ("", Cause.ABORTED):
        return f"by an operator: {word}"
    if reason == Cause.ABORTED:
        return "because its rollout was aborted"
    if release.quarantined and reason in ("", Cause.QUARANTINED):
        return f"because it is quarantined{held(matter, release)}"
    text = found.text if found is not None and found.text else "no reason was given"
    return f"by the region itself: {text}"


def _word_of_a_person(matter: Matter, release: Release, region: str) -> str:
    """What somebody wrote when taking the release away, newest last."""
    said = ""
    plans = {(r.rollout, r.generation) for r in matter.view.rollouts if r.release == release.digest}
    for record in in_time(matter.records):
        match record.event.body:
            case Rollback(from_release=digest, region=where, reason=reason):
                ours = digest == release.digest and where == region
            case RolloutControl(action="abort", reason=reason) as body:
                ours = (body.rollout, body.generation) in plans and body.region in ("", region)
            case _:
                continue
        if ours and reason and reason not in _OWN_WORDS:
            said = plain(reason)
    return said


def killed(matter: Matter, release: Release) -> str:
    killed = matter.latest(Kill, release=release.digest)
    if killed is None:
        return ": one of its model files belongs to a killed release"
    record, body = killed
    return f" by {matter.by(record)}: {plain(body.reason)}"


def held(matter: Matter, release: Release) -> str:
    holds = [h for h in matter.view.holds if h.release == release.digest]
    regions = ", ".join(sorted({h.region for h in holds}))
    return f", held by {regions}: {plain(holds[0].reason)}" if holds else ""


def harm(decided: Judged) -> str:
    """Such as `accuracy shows harm after 212 labelled pairs (29 only the old one right, …)`."""
    return " and ".join(
        f"{metric.name} shows harm after {_counts(metric, reading)}" for metric, reading in decided
    )


def _counts(metric: Metric, reading: Reading) -> str:
    counts, unit = reading.counts, EVENTS[metric.event].unit
    if metric.test == "paired":
        sides = f"{counts.bad_t} only the old one right, {counts.bad_c} only the new"
        return f"{counts.n_t} {unit} ({sides})"
    bad = {"error": "failed", "disagree": "differ"}.get(metric.event, metric.event)
    if metric.test == "one-arm":
        return f"{counts.n_t} {unit} ({counts.bad_t} {bad}, at most {metric.slo or 0:.3g} allowed)"
    old = f"of the old one {counts.bad_c} of {counts.n_c}"
    return f"{counts.n_t} {unit} ({counts.bad_t} {bad}, {old})"
