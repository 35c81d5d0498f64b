"""Everything that stands between a region and the next step of its rollout, all of it at once.

The machine goes by the first thing that stops it; a person who asks why wants to see the others
too, with how much there is and how much is asked for. Nothing here decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from hanse.core.evidence.verdict import Kind, Reason, judge
from hanse.core.rollout.harm import harm_of, judged
from hanse.core.rollout.plan import Analysis, Approve, Pause, SetWeight, Shadow, Step
from hanse.core.rollout.stimuli import (
    NOT_HERE,
    Call,
    Cause,
    called,
    closed,
    hold_causes,
    is_back,
    too_old,
    unconfirmed,
)
from hanse.core.rollout.table import TABLE, TERMINAL, State
from hanse.core.rollout.tick import View


@dataclass(frozen=True, slots=True)
class Need:
    """What is missing. `have` of `needed`, where it is a matter of quantity."""

    reason: str
    text: str
    have: float | None = None
    needed: float | None = None


def needs(view: View) -> tuple[Need, ...]:
    """Without repetition, what stops it first."""
    progress = view.progress
    if progress.state in TERMINAL:
        return ()
    if progress.state is State.ROLLING_BACK:
        nodes = view.facts.nodes
        text = f"{nodes.on_target} of {nodes.online} nodes are back"
        back = Need(Cause.NODES, text, nodes.on_target, max(1, nodes.online))
        return () if is_back(view) else (back,)
    stops = _stops(hold_causes(view, harm_of(view)))
    found = (*stops, *_of_step(view), *_of_next(view))
    return tuple(dict.fromkeys(found))


def ahead(view: View) -> tuple[State | None, Step | None, bool]:
    """The next state, the step of the plan that it is of, and whether the next tick enters it."""
    progress, call = view.progress, called(view)
    if call is not None and call.stimulus is not None:
        state = TABLE[progress.state][call.stimulus] or progress.active
        return state, _step_at(view, progress.step + 1) if state in _STEPS else None, True
    if progress.state is State.HELD:
        return progress.active, _step_at(view, progress.step), False
    if progress.state in _FIXED:
        return _FIXED[progress.state], None, False
    step = _step_at(view, progress.step + 1)
    return (_STATE_OF[type(step)] if step else State.SOAKING), step, False


_FIXED: Final[dict[State, State | None]] = {
    State.PENDING: State.GATED,
    State.GATED: State.PREFETCHING,
    State.SOAKING: State.HEALTHY,
    State.ROLLING_BACK: State.ROLLED_BACK,
    **dict.fromkeys(TERMINAL),
}
_STATE_OF: Final[dict[type, State]] = {
    Shadow: State.SHADOWING,
    SetWeight: State.WEIGHTING,
    Pause: State.PAUSED,
    Analysis: State.ANALYZING,
    Approve: State.AWAITING,
}
_STEPS: Final = frozenset(_STATE_OF.values())


def _step_at(view: View, index: int) -> Step | None:
    steps = view.stage.steps
    return steps[index] if 0 <= index < len(steps) else None


def _of_step(view: View) -> Iterator[Need]:
    """What the active state waits for, also while it is held."""
    progress, step = view.progress, _step_at(view, view.progress.step)
    match progress.active:
        case State.GATED:
            yield from _stops((*closed(view), *too_old(view)))
        case State.PREFETCHING if not view.facts.prefetched:
            yield Need(Cause.PREFETCH, NOT_HERE)
        case State.WEIGHTING:
            yield from _of_nodes(view)
        case State.SOAKING:
            yield from _duration(view, view.stage.soak_ms)
            yield from _of_nodes(view)
            yield from _stops(closed(view))
        case _:
            pass
    match step:
        case Shadow() | Pause() if progress.active in (State.SHADOWING, State.PAUSED):
            yield from _duration(view, step.duration_ms)
            yield from _samples(view, step.samples_min)
        case Analysis() if progress.active is State.ANALYZING:
            yield from _samples(view, step.samples_min)
            yield from _proofs(view, step)
        case Approve() if progress.active is State.AWAITING:
            yield from _approval(view, step)
        case _:
            pass


def _of_next(view: View) -> Iterator[Need]:
    """What would keep it from raising the weight, were the step done."""
    if view.progress.active in (State.PENDING, State.GATED, State.SOAKING):
        return
    if isinstance(_step_at(view, view.progress.step + 1), SetWeight | Shadow):
        yield from _stops(closed(view))


def _stops(calls: Iterable[Call]) -> Iterator[Need]:
    return (Need(call.reason, call.why) for call in calls)


def _duration(view: View, needed_ms: int) -> Iterator[Need]:
    if (elapsed_ms := view.elapsed_ms) < needed_ms:
        text = f"{(needed_ms - elapsed_ms) / 1000:.0f} s to go"
        yield Need(Cause.DURATION, text, round(elapsed_ms / 1000, 1), needed_ms / 1000)


def _samples(view: View, needed: int) -> Iterator[Need]:
    if (seen := view.progress.evidence.requests) < max(1, needed):
        text = f"{seen} of {max(1, needed)} required requests"
        yield Need(Reason.NOT_ENOUGH_SAMPLES, text, seen, max(1, needed))


def _proofs(view: View, step: Analysis) -> Iterator[Need]:
    for label in step.templates:
        template = view.spec.template(label)
        level = template.share(view.stage.epochs)
        whole = judge(view.progress.evidence, template.deciding, level, step.samples_min)
        for reading in whole.readings:
            if not reading.proven:
                have, needed = round(reading.proof_log_e or 0.0, 3), round(reading.needed_log_e, 3)
                yield Need(Reason.UNDECIDED, f"proof of {reading.metric}", have, needed)
        found = judged(view, template.metrics, level, step.samples_min)
        if whole.kind is Kind.HEALTHY != found.kind:
            yield Need(found.reason, found.why)


def _approval(view: View, step: Approve) -> Iterator[Need]:
    at = (view.stage.name, view.progress.step, step.role)
    have = max((count for *where, count in view.facts.approvals if tuple(where) == at), default=0)
    if have < step.count:
        text = f"signatures of {step.role}: hanse rollout approve {view.spec.model}"
        yield Need(Cause.APPROVAL, f"{text} {view.spec.name}", have, step.count)


def _of_nodes(view: View) -> Iterator[Need]:
    if (call := unconfirmed(view)) is not None:
        nodes = view.facts.nodes
        yield Need(call.reason, call.why, nodes.confirmed, max(1, nodes.online - nodes.failing))
