"""heal.status: what this region asked for, what came of it, and what waits for whom."""

from __future__ import annotations

from collections.abc import Iterator

from hanse.core.catalog.view import HealingView
from hanse.core.healing import ours, settled
from hanse.core.node import Clock, Node
from hanse.daemon.queries.matter import Answer, Args, Matter, asked, plain


def heal_status(node: Node, clock: Clock, args: Args) -> Answer:
    """heal.status {model?}"""
    (model,) = asked(args, "heal.status", "model")
    return {"models": [_model(matter) for matter in Matter.all(node, clock, model)]}


def _model(matter: Matter) -> Answer:
    healing, view = matter.node.region.healing, matter.view
    given = healing.mandates.get(view.model)
    left = max(0, view.signed_generation + given.uses - view.generation) if given else 0
    return {
        "model": view.model,
        "declared": view.model in healing.policies,
        "mandate": given is not None,
        "uses_left": left,
        "healings": [_healing(matter, each) for each in view.healings],
        "waits": [*_waits(matter), *(() if left else _unstarted(matter))],
    }


def _healing(matter: Matter, healing: HealingView) -> Answer:
    rollout = next((r for r in matter.view.rollouts if r.release == healing.child), None)
    return {
        "retrain": healing.id.raw.hex(),
        "at_ms": matter.at_ms(healing.id) or 0,
        "region": healing.region,
        "release": matter.ref(healing.release),
        "cause": healing.cause,
        "reason": plain(healing.reason),
        "outcome": healing.outcome,
        "child": matter.ref(healing.child),
        "why": plain(healing.why),
        "rollout": rollout.rollout if rollout else None,
        "settled": settled(matter.view, healing),
    }


def _waits(matter: Matter) -> Iterator[Answer]:
    for each in matter.node.region.healing.waiting(matter.view, matter.clock.now_s):
        release = matter.ref(each.hold.release)
        yield {"release": release, "why": plain(each.why), "person": each.person}


def _unstarted(matter: Matter) -> Iterator[Answer]:
    """Answers of our own that passed, and that nothing but a person will roll out now."""
    started = {r.release for r in matter.view.rollouts}
    for each in ours(matter.view, matter.node.region.healing.place):
        passed = each.outcome == "passed" and each.child not in started
        if passed and not settled(matter.view, each):
            why = f"{matter.version(each.release)} has its answer: start its rollout"
            yield {"release": matter.ref(each.child), "why": why, "person": True}
