"""What a region says in its own log: the machine's actions, as events.

Traffic and fetches are not events: they follow from the stored progress, so that a restart
repeats them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hanse.core.catalog.lineage import rollback_target
from hanse.core.catalog.view import ModelView, RolloutView
from hanse.core.events import Body, Healthy, Hold, Promote, Rollback, RolloutReport
from hanse.core.ids import Digest, EventId, Segment
from hanse.core.reading import canonical_json
from hanse.core.rollout import actions
from hanse.core.rollout.spec import spec_digest
from hanse.core.rollout.stimuli import Cause
from hanse.core.situation import Execution

EVIDENCE_BYTES_MAX = 2048
REASON_CHARS_MAX = 480


@dataclass(frozen=True, slots=True)
class Proposal:
    """An event that our own log shall hold, once it is stored."""

    body: Body
    supersedes: tuple[EventId, ...] = ()
    attestations: tuple[bytes, ...] = ()


def say(
    view: ModelView,
    rollout: RolloutView,
    execution: Execution,
    action: actions.Action,
    region: Segment,
) -> Iterator[Proposal]:
    """The events that carry out one action of the machine."""
    match action:
        case actions.Promote():
            yield from _promote(view, rollout, region)
        case actions.Attest(healthy=True, evidence=evidence):
            yield Proposal(_healthy(execution, region, evidence))
        case actions.Hold(reason=reason) if reason != Cause.ABORTED:
            # An abort ends this generation; it says nothing against the release itself.
            yield Proposal(_hold(execution, region, reason))
        case actions.RollBack(reason=reason) if reason != Cause.QUARANTINED:
            yield from _roll_back(view, rollout.release, region, reason)
        case actions.Report():
            yield Proposal(_report(execution, region, action))
        case _:
            pass  # fetches follow the state; traffic and harm stand in progress and hold


def leave_barred(view: ModelView, region: Segment) -> Iterator[Proposal]:
    """An active release that was quarantined gives way to its target, rollout or not.

    A killed one is no head any more: the fold itself has revived what stood before it.
    """
    active = view.active(region)
    release = view.release(active.release) if active else None
    if release is not None and release.quarantined:
        yield from _roll_back(view, release.digest, region, Cause.QUARANTINED)


def _promote(view: ModelView, rollout: RolloutView, region: Segment) -> Iterator[Proposal]:
    release = view.release(rollout.release)
    if release is None:
        return
    replaced = tuple(a.id for a in view.heads if a.region == region)
    body = Promote(
        view.model,
        region,
        release.digest,
        release.manifest_size,
        release.counter,
        rollout.rollout,
        rollout.generation,
    )
    yield Proposal(body, replaced)


def _roll_back(view: ModelView, bad: Digest, region: Segment, reason: str) -> Iterator[Proposal]:
    """Undo our activation of `bad`, if we have one; a canary has none to undo."""
    active = view.active(region)
    target = rollback_target(view, bad, region)
    if active is not None and active.release == bad and target is not None:
        why = reason[:REASON_CHARS_MAX]
        yield Proposal(Rollback(view.model, region, active.id, bad, target.digest, why))


def _healthy(execution: Execution, region: Segment, evidence: Digest) -> Healthy:
    plan = execution.plan
    return Healthy(
        plan.model,
        plan.release,
        plan.name,
        plan.generation,
        region,
        spec_digest(plan).raw,
        evidence.raw,
    )


def _hold(execution: Execution, region: Segment, reason: str) -> Hold:
    plan = execution.plan
    why = f"{reason}: {execution.progress.why}"[:REASON_CHARS_MAX]
    return Hold(
        plan.model, region, plan.release, why, rollout=plan.name, generation=plan.generation
    )


def _report(execution: Execution, region: Segment, action: actions.Report) -> RolloutReport:
    plan = execution.plan
    evidence = canonical_json(execution.progress.evidence.encode())
    why = f"{action.reason}: {action.why}" if action.why else action.reason
    return RolloutReport(
        plan.model,
        plan.name,
        plan.generation,
        plan.release,
        region,
        action.state.value,
        action.stage,
        max(0, action.step),
        action.verdict,
        why[:REASON_CHARS_MAX],
        evidence if len(evidence) <= EVIDENCE_BYTES_MAX else b"",
    )
