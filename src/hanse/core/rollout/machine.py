"""One region's part of a rollout: facts in, progress and actions out, one call a tick.

`advance` is pure. It hears the telemetry, lets `stimuli.called` say what the facts ask for, and
takes the first stimulus that the row of the current state in `table.TABLE` knows. Then, by state:

- shadowing, weighting: the arms change, so the evidence starts anew;
- held: traffic stays as it is (fail static), evidence goes on, the step's clock stands still;
- rollingBack: a signed hold for the others, all traffic back, nodes to the target;
- healthy: promote, then attest with the evidence of every analysis that passed; from then on the
  release is watched, and what became worse since is undone like any harm, once.

Evidence restarts with each change of arms because pooled weights confound drift with harm, and
because a long test grows deaf to a late regression; the plan pays for it by splitting alpha.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from hanse.core.errors import Conflict, Rejected
from hanse.core.evidence.metrics import Setting
from hanse.core.evidence.tally import Evidence
from hanse.core.evidence.verdict import Reason
from hanse.core.evidence.voices import fits
from hanse.core.evidence.window import Trial
from hanse.core.ids import Digest
from hanse.core.reading import canonical_json
from hanse.core.rollout.actions import (
    Action,
    Attest,
    Hold,
    Prefetch,
    Promote,
    Report,
    RollBack,
    SetTraffic,
)
from hanse.core.rollout.facts import Facts
from hanse.core.rollout.plan import RolloutSpec, SetWeight, Shadow
from hanse.core.rollout.progress import Progress, kept
from hanse.core.rollout.stimuli import STICKY, Call, Cause, called
from hanse.core.rollout.table import TABLE, TERMINAL, State, Stimulus
from hanse.core.rollout.tick import View

_TO_NEXT_STEP = (
    Stimulus.TO_SHADOW,
    Stimulus.TO_WEIGHT,
    Stimulus.TO_PAUSE,
    Stimulus.TO_ANALYSIS,
    Stimulus.TO_APPROVAL,
    Stimulus.TO_SOAK,
)

_STAYS = (State.HELD, State.HEALTHY)
"""Where harm that asks for no rollback is said to the others as a hold."""


def advance(
    spec: RolloutSpec, region: str, progress: Progress, facts: Facts, now_s: float
) -> tuple[Progress, tuple[Action, ...]]:
    """One tick. Store the progress before carrying out the actions.

    `now_s` is the local monotonic clock. Raises `Conflict` if the progress is of another region.
    """
    stage = spec.stages[progress.stage]
    if region not in stage.regions:
        raise Conflict(f"stage {stage.name} does not name region {region}")
    heard = _hear(View(spec, stage, progress, facts, now_s, region))
    view = View(spec, stage, heard, facts, now_s, region)
    call = called(view) or Call(None, heard.reason, heard.why)
    after, actions = _enter(view, call)
    if after.reason == Reason.WORSE != progress.reason and after.state in _STAYS:
        actions = (Hold(after.reason), *actions)
    if (after.state, after.step) != (progress.state, progress.step):
        actions = (*actions, _report(heard, after, call))
    return after, actions


def _hear(view: View) -> Progress:
    """Take in the tick's telemetry, and an operator's word to start this step again."""
    progress, now_s = view.progress, view.now_s
    if progress.state is not State.HEALTHY and progress.state in (*TERMINAL, State.ROLLING_BACK):
        return progress
    if view.facts.resumed and progress.state in _STAYS and progress.reason in STICKY:
        # The operator has judged what the evidence said; it must not stop the step again.
        progress = progress.restarted(_fresh(view, progress), now_s)
        if progress.watching:
            progress = replace(progress, reason=str(Cause.OPERATOR), why="judged by a person")
    arm = Trial.CANARY if progress.weight_percent else Trial.SHADOW
    evidence, seen = progress.evidence, progress.seen
    windows, references = view.facts.windows, view.facts.references
    # Late windows of the shadow say nothing about the canary that followed it.
    ours = [w for w in windows if w.arm is arm and fits(w, references)]
    asked = view.nodes_asked if view.late else max(view.nodes_asked, progress.voices.asked)
    voices, window = replace(progress.voices, asked=asked), None
    if ours and progress.has_traffic:
        voices, window = voices.hear(ours, evidence, seen, watching=progress.watching)
    if window is not None:
        with suppress(Rejected):  # more than anybody can have counted: a node lies
            evidence = evidence.observe(window)
            seen = seen if progress.watching else seen + window.trial
    if progress.weight_percent:
        evidence = evidence.declare(view.facts.declared)
        voices = voices.declare(view.facts.declared)
    return replace(
        progress,
        evidence=evidence,
        voices=voices,
        seen=seen,
        rejected={**view.facts.rejected, **progress.rejected},
        telemetry_at_s=now_s if windows else progress.telemetry_at_s,
        traffic_at_s=now_s if any(w.requests for w in windows) else progress.traffic_at_s,
    )


def _enter(view: View, call: Call) -> tuple[Progress, tuple[Action, ...]]:
    progress = replace(view.progress, reason=str(call.reason), why=call.why)
    if call.stimulus is None:
        return progress, ()
    state = TABLE[progress.state][call.stimulus]
    if state is None:
        return _resume(progress, view.now_s), ()
    if state is State.HELD:
        held = replace(progress, state=state, resumes=progress.state, held_at_s=view.now_s)
        return held, ()
    entered = replace(progress, state=state, resumes=None, entered_at_s=view.now_s)
    if call.stimulus in _TO_NEXT_STEP:
        return _step(view, entered)
    return _arrive(view, entered, call)


def _resume(progress: Progress, now_s: float) -> Progress:
    return replace(
        progress,
        state=progress.active,
        resumes=None,
        entered_at_s=progress.entered_at_s + progress.held_s(now_s),
    )


def _step(view: View, progress: Progress) -> tuple[Progress, tuple[Action, ...]]:
    """Enter the next step, or the soak after the last one."""
    if view.progress.state is State.ANALYZING:
        proof = Digest.of(_evidence_bytes(progress))
        progress = replace(progress, proofs=(*progress.proofs, proof))
    progress = replace(progress, step=progress.step + 1)
    steps = view.stage.steps
    step = steps[progress.step] if progress.step < len(steps) else None
    if isinstance(step, SetWeight):
        return _traffic(view, progress, step.percent, step.shadow_percent)
    if isinstance(step, Shadow):
        return _traffic(view, progress, 0, step.sample_percent)
    return progress, ()


def _traffic(
    view: View, progress: Progress, weight_percent: int, shadow_percent: int
) -> tuple[Progress, tuple[Action, ...]]:
    """New arms: new evidence, and the nodes get time to send their first telemetry."""
    arms = replace(progress, weight_percent=weight_percent, shadow_percent=shadow_percent)
    changed = replace(
        arms.anew(_fresh(view, arms)),
        exposed=True,
        telemetry_at_s=view.now_s,
        traffic_at_s=view.now_s,
    )
    return changed, (SetTraffic(weight_percent, shadow_percent),)


def _arrive(view: View, progress: Progress, call: Call) -> tuple[Progress, tuple[Action, ...]]:
    """The states that are not steps of the plan."""
    reason = progress.reason
    away = replace(progress, weight_percent=0, shadow_percent=0)
    match progress.state:
        case State.PREFETCHING:
            return replace(progress, stage_entered_at_s=view.now_s), (Prefetch(),)
        case State.HEALTHY:
            digests = canonical_json([str(proof) for proof in progress.proofs])
            progress = replace(progress, voices=progress.voices.settled(progress.seen))
            fresh = _fresh(view, replace(progress, watching=True))
            watch = replace(progress.anew(fresh), watching=True, telemetry_at_s=view.now_s)
            return watch, (Promote(), Attest(True, Digest.of(digests)))
        case State.ROLLING_BACK:
            attest = _attest_harm(progress, call)
            return away, (Hold(reason), *attest, SetTraffic(0, 0), RollBack(reason))
        case State.QUARANTINED:
            return away, (SetTraffic(0, 0), RollBack(reason))
        case State.SUPERSEDED:
            return away, (SetTraffic(0, 0),)
        case _:
            return progress, ()


def _attest_harm(progress: Progress, call: Call) -> tuple[Action, ...]:
    if call.stimulus is not Stimulus.HARM:
        return ()
    return (Attest(False, Digest.of(_evidence_bytes(progress))),)


def _fresh(view: View, progress: Progress) -> Evidence:
    setting = Setting(progress.share, view.facts.references)
    shown = progress.voices.shown(progress.seen) if progress.watching else ()
    return Evidence.fresh(kept(view.spec, view.stage, shown), setting)


def _evidence_bytes(progress: Progress) -> bytes:
    return canonical_json(progress.evidence.encode())


def _report(heard: Progress, after: Progress, call: Call) -> Report:
    """The evidence is that of the state being left: entering a step may have reset it."""
    verdict = call.verdict.kind.value if call.verdict else ""
    evidence = _evidence_bytes(heard)
    return Report(after.state, after.stage, after.step, verdict, after.reason, after.why, evidence)
