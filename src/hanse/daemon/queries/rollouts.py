"""rollout.prepare, rollout.status and holds: what moves, how far it is, and what stops it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hanse.core.catalog.under_way import under_way
from hanse.core.catalog.view import RolloutView
from hanse.core.errors import NotFound
from hanse.core.ids import Digest
from hanse.core.node import Clock, Node
from hanse.core.rollout.table import State
from hanse.daemon.queries import readings
from hanse.daemon.queries.matter import Answer, Args, Matter, asked, near, plain
from hanse.daemon.queries.moments import timeline
from hanse.daemon.queries.parts import BACK, Part, part


def rollout_prepare(node: Node, clock: Clock, args: Args) -> Answer:
    """rollout.prepare {model, version | release, regions?}"""
    keys = ("model", "version", "release", "regions")
    model, version, digest, regions = asked(args, "rollout.prepare", *keys)
    matter = Matter.of(node, clock, model)
    release = matter.release(version, digest)
    predecessor = _predecessor(matter, release.digest, regions.split(",") if regions else None)
    running = under_way(matter.view)
    return {
        "release": str(release.digest),
        "version": release.version,
        "predecessor": str(predecessor) if predecessor else None,
        "generation": matter.view.generation + 1,
        "regions": [r.name for r in node.book.chain.current.regions],
        "labels": {r: dict(p) for r, p in node.book.chain.current.labels_of_all.items()},
        "trust": node.book.chain.current.version,
        "under_way": running.rollout if running else None,
    }


def rollout_status(node: Node, clock: Clock, args: Args) -> Answer:
    """rollout.status {model?, rollout?}"""
    model, name = asked(args, "rollout.status", "model", "rollout")
    matters = Matter.all(node, clock, model)
    found = [
        (matter, rollout)
        for matter in matters
        for rollout in matter.view.rollouts
        if (rollout.rollout == name if name is not None else rollout.current)
    ]
    if name is not None and not found:
        known = [r.rollout for matter in matters for r in matter.view.rollouts]
        raise NotFound(f"there is no rollout {plain(name, 80)}", fix=near(name, known))
    found.sort(key=lambda pair: (pair[0].at_ms(pair[1].id) or 0, pair[1].generation), reverse=True)
    rows = [_rollout(matter, rollout) for matter, rollout in found]
    return {"rollouts": sorted(rows, key=lambda row: row["state"] != "running")}


def holds(node: Node, clock: Clock, args: Args) -> Answer:
    """holds {model}: those of our own region, oldest first."""
    (model,) = asked(args, "holds", "model")
    matter = Matter.of(node, clock, model)
    rows = [
        {
            "hold": hold.id.raw.hex(),
            "event": str(hold.id),
            "release": matter.ref(hold.release),
            "reason": plain(hold.reason),
            "until_ms": hold.expires_ms or None,
            "at_ms": matter.at_ms(hold.id) or 0,
        }
        for hold in matter.view.holds
        if hold.region == matter.own
    ]
    return {"holds": sorted(rows, key=lambda row: row["at_ms"])}


def _predecessor(matter: Matter, release: Digest, covered: Iterable[str] | None) -> Digest | None:
    """What most regions run now; of equals the newest. The release itself replaces nothing."""
    regions = {a.region for a in matter.view.heads} if covered is None else set(covered)
    active = [a.release for r in regions if (a := matter.view.active(r)) and a.release != release]
    counts = Counter(active)
    known = {r.digest: r.counter for r in matter.view.releases}
    return max(counts, key=lambda d: (counts[d], known.get(d, 0), d), default=None)


def _rollout(matter: Matter, rollout: RolloutView) -> Answer:
    parts = [
        found
        for stage in rollout.plan.stages
        for region in stage.regions
        if (found := part(matter, rollout, region)) is not None
    ]
    return {
        **matter.heading(rollout),
        "state": _state(rollout, parts),
        "current": rollout.current,
        "regions": [_part(matter, found) for found in parts],
        "timeline": timeline(matter, rollout.release, rollout),
    }


def _state(rollout: RolloutView, parts: list[Part]) -> str:
    """Of the whole; one region that went back outweighs all that went on."""
    states = [p.state for p in parts]
    if "*" in rollout.aborted:
        return "aborted"
    if any(state in BACK for state in states):
        return "rolled-back"
    if all(state == State.HEALTHY for state in states):
        return "healthy"
    if not rollout.current:
        return "superseded"
    if rollout.paused:
        return "paused"
    return "held" if State.HELD in states else "running"


def _part(matter: Matter, found: Part) -> Answer:
    here = found.region == matter.own
    last_good = readings.fall_back(matter, found.region, found)
    age_s = found.age_s
    if age_s is None and not here:
        age_s = readings.heard_s(matter.node, found.region, matter.clock)
    return {
        "region": found.region,
        "stage": found.stage.name,
        "state": found.state,
        "step": found.step_text,
        "weight": found.weight,
        "verdict": found.verdict,
        "reason": found.text,
        "nodes": readings.nodes(matter, last_good) if here else None,
        "metrics": [readings.metric(*pair) for pair in found.readings()],
        "age_s": age_s,
    }
