"""What the facts ask for: stimuli in order of weight, each with its reason and a sentence.

    barred > abort > harm > superseded > overdue > a cause to hold > the next thing to do

The first that the row of the current state knows is taken. Nothing here changes anything.

The weight is never raised on old news: a start, a raise and a promotion need fresh trust, that
what others recorded is final, and the gate's quorum of regions both healthy and heard within
`freshness.within`. Going on at the same weight, and going back, need nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hanse.core.evidence.verdict import Kind, Reason, Verdict
from hanse.core.limits import CLOCK_AHEAD_S
from hanse.core.rollout.harm import failing, harm_of, judged
from hanse.core.rollout.plan import (
    Analysis,
    Approve,
    Pause,
    Requires,
    SetWeight,
    Shadow,
)
from hanse.core.rollout.table import STEPPING, TABLE, TERMINAL, State, Stimulus
from hanse.core.rollout.tick import View


class Cause(StrEnum):
    """Reason codes beside those of verdicts."""

    QUARANTINED = "quarantined"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"
    DEADLINE = "deadline"
    OPERATOR = "operator"
    FROZEN = "frozen"
    NO_ROOM = "noRoom"
    HELD_HERE = "heldHere"
    HELD_ELSEWHERE = "heldElsewhere"
    STALE = "stale"
    FINALITY = "finality"
    DISAGREEMENT = "disagreement"
    CLOCK = "clock"
    GATE = "gate"
    TURN = "turn"
    MAX_AGE = "maxAge"
    WINDOW = "freezeWindow"
    ONLINE = "nodesOnline"
    TRUST = "trust"
    APPROVAL = "approval"
    NODES = "nodes"
    FAILING = "nodesFailing"
    DURATION = "duration"
    PREFETCH = "prefetch"
    RETIRED = "retired"


WAITING: Final = (
    Cause.STALE,
    Cause.GATE,
    Cause.TURN,
    Cause.MAX_AGE,
    Cause.WINDOW,
    Cause.ONLINE,
    Cause.TRUST,
    Cause.FINALITY,
    Cause.DISAGREEMENT,
    Cause.CLOCK,
    Cause.RETIRED,
)
"""Held for these, a rollout goes on by itself once they are gone."""

STICKY: Final = (Reason.WORSE, Reason.ONE_NODE, Cause.DEADLINE)
"""Held for these, a rollout goes on only when a person says so."""

NOT_HERE: Final = "the release and its rollback target are not both here yet"


@dataclass(frozen=True, slots=True)
class Call:
    """A stimulus, or None to stay and say why."""

    stimulus: Stimulus | None
    reason: str = ""
    why: str = ""
    verdict: Verdict | None = None


def called(view: View) -> Call | None:
    """The first call that the row of the current state knows, or that stays."""
    row = TABLE[view.progress.state]
    return next((c for c in _calls(view) if c.stimulus is None or c.stimulus in row), None)


def _calls(view: View) -> Iterator[Call]:
    harm = harm_of(view)
    yield from _alarms(view, harm)
    if harm and view.progress.state is State.HEALTHY:
        yield Call(None, harm.reason, harm.why, harm)
    cause = next(hold_causes(view, harm), None)
    if cause and view.progress.state is State.HELD:
        yield Call(None, cause.reason, cause.why, cause.verdict)
    elif cause:
        yield cause
    else:
        yield _GO_ON[view.progress.state](view)


def _alarms(view: View, harm: Verdict | None) -> Iterator[Call]:
    facts = view.facts
    if facts.barred:
        yield Call(Stimulus.BARRED, Cause.QUARANTINED, "the release is killed or quarantined")
    if facts.aborted:
        yield Call(Stimulus.ABORT, Cause.ABORTED, "an operator aborted the rollout")
    if harm and harm.on_fail == "rollback" and (facts.way_back or not view.progress.watching):
        # Without a way back, a release in service is better than none (fail static).
        yield Call(Stimulus.HARM, harm.reason, harm.why, harm)
    failed = failing(view, spare=1)
    if failed and view.spec.nodes.on_exceeded == "rollback":
        yield Call(Stimulus.HARM, Cause.FAILING, failed)
    if facts.superseded:
        yield Call(Stimulus.SUPERSEDE, Cause.SUPERSEDED, "a newer rollout of the model is signed")
    overdue = _overdue(view)
    if overdue and view.spec.deadline.on_exceeded == "rollback":
        yield Call(Stimulus.OVERDUE, Cause.DEADLINE, overdue)


def hold_causes(view: View, harm: Verdict | None) -> Iterator[Call]:
    """Everything that stops it where it stands, the gravest first."""
    progress, facts = view.progress, view.facts
    if progress.state in TERMINAL or progress.state is State.ROLLING_BACK:
        return
    if harm and progress.reason == Reason.ONE_NODE:
        yield _hold(harm.reason, harm.why, harm)  # which node it is shows better with time
    if progress.state is State.HELD and progress.reason in STICKY and not facts.resumed:
        yield _hold(progress.reason, progress.why)
    if harm:
        yield _hold(harm.reason, harm.why, harm)
    if failed := failing(view):
        yield _hold(Cause.FAILING, failed)
    if facts.paused:
        yield _hold(Cause.OPERATOR, "an operator paused the rollout")
    if facts.frozen:
        yield _hold(Cause.FROZEN, "the model or the region is frozen")
    if facts.no_room:
        yield _hold(Cause.NO_ROOM, "the disk of this region's daemon is nearly full")
    if facts.held_here:
        yield _hold(Cause.HELD_HERE, "this region holds the release")
    if facts.held_elsewhere:
        regions = ", ".join(sorted(facts.held_elsewhere))
        yield _hold(Cause.HELD_ELSEWHERE, f"held by {regions}")
    if overdue := _overdue(view):
        yield _hold(Cause.DEADLINE, overdue)
    if progress.state is State.HELD and progress.reason in WAITING:
        yield from closed(view)
    if progress.state is State.HELD and progress.active is State.GATED:
        yield from too_old(view)
    yield from _silence(view)


def _hold(reason: str, why: str, verdict: Verdict | None = None) -> Call:
    return Call(Stimulus.HOLD, reason, why, verdict)


def _silence(view: View) -> Iterator[Call]:
    """Missing telemetry says nothing about the release: hold, never abort."""
    progress, limit_s = view.progress, view.spec.freshness.telemetry_ms / 1000
    if progress.active not in STEPPING or not progress.has_traffic:
        return
    if (gap_s := view.now_s - progress.telemetry_at_s) > limit_s:
        yield _hold(Reason.TELEMETRY_GAP, f"no telemetry for {gap_s:.0f} s")
    elif (gap_s := view.now_s - progress.traffic_at_s) > limit_s:
        yield _hold(Reason.NO_TRAFFIC, f"nodes report, but no request came for {gap_s:.0f} s")
    if view.facts.gap and progress.weight_percent:
        yield _hold(*view.facts.gap)


def _overdue(view: View) -> str | None:
    deadline, progress = view.spec.deadline, view.progress
    if progress.active not in (*STEPPING, State.PREFETCHING):
        return None
    if deadline.step_ms is not None and view.elapsed_ms > deadline.step_ms:
        return f"{progress.active} took longer than {deadline.step_ms // 1000} s"
    stage_ms = (view.now_s - progress.stage_entered_at_s) * 1000
    if deadline.stage_ms is not None and stage_ms > deadline.stage_ms:
        return f"stage {view.stage.name} took longer than {deadline.stage_ms // 1000} s"
    return None


def _not_fresh(view: View) -> Call | None:
    return next(closed(view), None)


def closed(view: View) -> Iterator[Call]:
    """Why a start, a raise or a promotion is not allowed now, as holds."""
    for cause, why in view.facts.barriers:
        yield _hold(cause, why)
    if view.stage.requires is not None:
        yield from _gate(view, view.stage.requires)
    yield from _turn(view)
    if (online := view.facts.nodes.online) < (needed := view.spec.nodes.min_online):
        why = f"{online} of {needed} nodes that can run the release are online"
        yield _hold(Cause.ONLINE, why)


def _turn(view: View) -> Iterator[Call]:
    """So many regions of our own stage at once. Healthy is attested for ever; who has gone back
    has nobody exposed any more."""
    before, quorum = view.stage.turn(view.region) if view.stage.select else ((), 0)
    ended = [r for r in before if view.facts.reports.get(r) in (State.HEALTHY, State.ROLLED_BACK)]
    if len(ended) < quorum:
        first = ", ".join(r for r in before if r not in ended)[:200]
        why = f"{len(ended)} of {quorum} regions before this one have ended: waits for {first}"
        yield _hold(Cause.TURN, why)


def too_old(view: View) -> Iterator[Call]:
    """Of the attestations that open the gate. Their age is by their authors' clocks and ours, so
    what may be too old by the allowance for clocks, or lies in the future, is too old."""
    requires = view.stage.requires
    if requires is None or requires.age_ms is None:
        return
    regions, limit_s = view.spec.stage(requires.stage).regions, requires.age_ms / 1000
    ages = {r: view.facts.attested_age_s.get(r, math.inf) for r in regions}
    young = [r for r, age in ages.items() if -CLOCK_AHEAD_S <= age <= limit_s - CLOCK_AHEAD_S]
    quorum = requires.quorum(len(regions))
    if len(young) < quorum:
        why = f"{len(young)} of {quorum} proofs of stage {requires.stage} are from the last "
        why += f"{limit_s / 3600:.1f} h: start a new generation of the rollout"
        yield _hold(Cause.MAX_AGE, why)


def _gate(view: View, requires: Requires) -> Iterator[Call]:
    regions = view.spec.stage(requires.stage).regions
    quorum = requires.quorum(len(regions))
    healthy = [r for r in regions if view.facts.reports.get(r) is State.HEALTHY]
    if len(healthy) < quorum:
        why = f"{len(healthy)} of {quorum} regions of stage {requires.stage} are healthy"
        waiting = ((r, view.facts.unheard[r]) for r in regions if r in view.facts.unheard)
        unheard = (f"the word of {r} is not final: {what}" for r, what in waiting)
        yield _hold(Cause.GATE, "; ".join([why, *unheard]))
        return
    within_s = view.spec.freshness.within_ms / 1000
    ages = view.facts.heard_age_s
    heard = [r for r in healthy if ages.get(r, float("inf")) <= within_s]
    if len(heard) < quorum:
        silent = ", ".join(r for r in healthy if r not in heard)
        yield _hold(Cause.STALE, f"not heard within {within_s:.0f} s: {silent}")


def _onward(view: View, verdict: Verdict | None = None) -> Call:
    """To the step after this one, unless that would raise the weight on old news."""
    index = view.progress.step + 1
    if index == len(view.stage.steps):
        return Call(Stimulus.TO_SOAK, verdict=verdict)
    match view.stage.steps[index]:
        case SetWeight():
            return _not_fresh(view) or Call(Stimulus.TO_WEIGHT, verdict=verdict)
        case Shadow():
            return _not_fresh(view) or Call(Stimulus.TO_SHADOW, verdict=verdict)
        case Pause():
            return Call(Stimulus.TO_PAUSE, verdict=verdict)
        case Analysis():
            return Call(Stimulus.TO_ANALYSIS, verdict=verdict)
        case Approve():
            return Call(Stimulus.TO_APPROVAL, verdict=verdict)


def _pending(view: View) -> Call:
    return Call(Stimulus.BEGIN)


def _gated(view: View) -> Call:
    if shut := _not_fresh(view):
        return Call(None, shut.reason, shut.why)
    return next(too_old(view), None) or Call(Stimulus.GATE_MET)


def _prefetching(view: View) -> Call:
    if view.facts.prefetched:
        return _onward(view)
    return Call(None, Cause.PREFETCH, NOT_HERE)


def _dwelling(view: View) -> Call:
    """Shadow and pause: the duration has passed and enough requests were seen."""
    step = view.stage.steps[view.progress.step]
    if not isinstance(step, Shadow | Pause):
        return Call(None)
    if view.elapsed_ms < step.duration_ms:
        left_s = (step.duration_ms - view.elapsed_ms) / 1000
        return Call(None, Cause.DURATION, f"{left_s:.0f} s to go")
    if (seen := view.progress.evidence.requests) < step.samples_min:
        why = f"{seen} of {step.samples_min} required requests"
        return Call(None, Reason.NOT_ENOUGH_SAMPLES, why)
    return _onward(view)


def _weighting(view: View) -> Call:
    return unconfirmed(view) or _onward(view)


def unconfirmed(view: View) -> Call | None:
    nodes, asked = view.facts.nodes, view.progress.weight_percent
    confirmed = nodes.confirmed if nodes.weight_percent == asked else 0
    if 0 < nodes.online - nodes.failing <= confirmed and not (asked and nodes.whole == 0):
        return None
    why = f"{confirmed} of {nodes.online} nodes confirm weight {asked}, {nodes.ready} are ready"
    if asked and nodes.whole == 0 < nodes.online:
        why = f"none of {nodes.online} nodes falls into {asked} % of them: write a larger weight"
    why += f"; {nodes.unable} more cannot run the release" if nodes.unable else ""
    return Call(None, Cause.NODES, why)


def _analyzing(view: View) -> Call:
    step = view.stage.steps[view.progress.step]
    if not isinstance(step, Analysis):
        return Call(None)
    verdict: Verdict | None = None
    for label in step.templates:
        template = view.spec.template(label)
        level = template.share(view.stage.epochs)
        verdict = judged(view, template.metrics, level, step.samples_min)
        if verdict.kind is not Kind.HEALTHY:
            return Call(None, verdict.reason, verdict.why, verdict)
    return _onward(view, verdict)


def _awaiting(view: View) -> Call:
    step = view.stage.steps[view.progress.step]
    if not isinstance(step, Approve):
        return Call(None)
    if step.met(view.stage.name, view.progress.step, view.facts.approvals):
        return _onward(view)
    people = f"{step.count} {step.role}" + ("s" if step.count > 1 else "")
    asked = f"hanse rollout approve {view.spec.model} {view.spec.name}"
    return Call(None, Cause.APPROVAL, f"waits for {people} to sign: {asked}")


def _soaking(view: View) -> Call:
    if view.elapsed_ms < view.stage.soak_ms:
        left_s = (view.stage.soak_ms - view.elapsed_ms) / 1000
        return Call(None, Cause.DURATION, f"{left_s:.0f} s of soak to go")
    proven = Call(Stimulus.PROMOTE, Reason.PROVEN, "all steps passed and the soak is over")
    return unconfirmed(view) or _not_fresh(view) or proven


def _held(view: View) -> Call:
    return Call(Stimulus.RESUME)


def _rolling_back(view: View) -> Call:
    """Done when the digests that nodes report say so, not when it was asked for."""
    stimulus = Stimulus.ON_TARGET if is_back(view) else None
    return Call(stimulus, view.progress.reason, view.progress.why)


def is_back(view: View) -> bool:
    nodes = view.facts.nodes
    return nodes.on_target >= nodes.online and (nodes.online > 0 or not view.progress.exposed)


def _final(view: View) -> Call:
    return Call(None, view.progress.reason, view.progress.why)


_GO_ON: Final[Mapping[State, Callable[[View], Call]]] = {
    State.PENDING: _pending,
    State.GATED: _gated,
    State.PREFETCHING: _prefetching,
    State.SHADOWING: _dwelling,
    State.WEIGHTING: _weighting,
    State.PAUSED: _dwelling,
    State.ANALYZING: _analyzing,
    State.AWAITING: _awaiting,
    State.SOAKING: _soaking,
    State.HELD: _held,
    State.ROLLING_BACK: _rolling_back,
    **dict.fromkeys(TERMINAL, _final),
}
