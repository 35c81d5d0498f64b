"""The signed events about one release as sentences, oldest first."""

from __future__ import annotations

from collections.abc import Iterator

from hanse.core.catalog.facts import Record
from hanse.core.catalog.view import RolloutView
from hanse.core.events import (
    Healthy,
    Hold,
    HoldLift,
    Kill,
    Promote,
    ReleaseRecord,
    ReleaseRetire,
    Retrain,
    RetrainResult,
    Rollback,
    RolloutControl,
    RolloutIntent,
    RolloutReport,
)
from hanse.core.ids import Digest, EventId
from hanse.daemon.queries.matter import Answer, Matter, in_time, plain

MOMENTS_MAX = 200
_CAUSES = {
    "trial": "it was worse in its rollout",
    "undone": "it became worse and was undone",
    "serving": "it became worse and still serves",
}


def timeline(matter: Matter, release: Digest, rollout: RolloutView | None = None) -> list[Answer]:
    """Everything signed about `release`; with `rollout` nothing of its other rollouts."""
    ours = (rollout.rollout, rollout.generation) if rollout else None
    found = [
        {
            "at_ms": record.event.header.hlc_ms,
            "region": record.origin.region,
            "event": str(record.id),
            "what": what(matter, record),
        }
        for record in in_time(_about(matter, release))
        if ours is None or _rollout_of(record) in (None, ours)
    ]
    return found[-MOMENTS_MAX:]


def what(matter: Matter, record: Record) -> str:
    """One event in one sentence."""
    name, by = matter.version, matter.by(record)
    match record.event.body:
        case ReleaseRecord() as body:
            text = f"{body.version} recorded, signed by {by}"
        case RolloutIntent() as body:
            text = f"{body.rollout} (generation {body.generation}) of {name(body.release)} "
            signed = f"by {record.origin.region} under a mandate of {by}"
            text += f"started {signed}" if body.mandate else f"started, signed by {by}"
        case RolloutControl() as body:
            scope = f"in {body.region}" if body.region else "everywhere"
            signed = f", signed by {by}" if by else ""
            done = {"pause": "paused", "resume": "resumed", "abort": "aborted"}.get(body.action)
            text = f"{body.rollout} {done or 'told'} {scope}{signed}{_because(body.reason)}"
        case RolloutReport() as body:
            text = f"{body.rollout} is {body.state}{_because(body.reason)}"
        case Healthy() as body:
            text = f"{name(body.release)} attested healthy under {body.rollout}"
        case Promote() as body:
            text = f"{name(body.release)} promoted under {body.rollout}"
        case Rollback() as body:
            text = f"rolled back from {name(body.from_release)} to {name(body.to_release)}"
            text += _because(body.reason)
        case Hold() as body:
            held = f"{name(body.release)} held" if body.release else "the model frozen"
            text = f"{held}{_because(body.reason)}"
        case HoldLift() as body:
            text = f"hold {body.hold} lifted, signed by {by}{_because(body.reason)}"
        case Kill() as body:
            text = f"{name(body.release)} killed, signed by {by}{_because(body.reason)}"
        case ReleaseRetire() as body:
            text = f"{name(body.release)} {body.phase}, signed by {by}{_because(body.reason)}"
        case Retrain() as body:
            text = f"retraining of {name(body.release)} asked for"
            text += _because(_CAUSES.get(body.cause, ""))
        case RetrainResult() as body:
            answer = f"{name(body.release)} " if body.release else ""
            text = f"retraining {body.retrain}: {answer}{body.outcome}{_because(body.reason)}"
        case _:
            text = "an event that this program has no words for"
    return plain(text)


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _about(matter: Matter, release: Digest) -> Iterator[Record]:
    plans, holds, asked = set[tuple[str, int]](), set[EventId](), set[EventId]()
    for record in matter.records:
        match record.event.body:
            case RolloutIntent(release=named) as intent if named == release:
                plans.add((intent.rollout, intent.generation))
            case Hold(release=named) if named == release:
                holds.add(record.id)
            case Retrain(release=named) if named == release:
                asked.add(record.id)
    for record in matter.records:
        match record.event.body:
            case (
                ReleaseRecord(release=named)
                | Healthy(release=named)
                | Promote(release=named)
                | Hold(release=named)
                | Kill(release=named)
                | Retrain(release=named)
                | ReleaseRetire(release=named)
            ):
                found = named == release
            case RetrainResult() as body:
                found = body.retrain in asked or body.release == release
            case Rollback() as body:
                found = release in (body.from_release, body.to_release)
            case HoldLift(hold=hold):
                found = hold in holds
            case _:
                found = _rollout_of(record) in plans
        if found:
            yield record


def _rollout_of(record: Record) -> tuple[str, int] | None:
    """The rollout that an event is part of; None if it is part of none."""
    body = record.event.body
    named = RolloutIntent | RolloutControl | RolloutReport | Healthy | Promote | Hold
    if isinstance(body, named) and body.rollout:
        return (body.rollout, body.generation)
    return None
