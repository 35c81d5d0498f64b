"""A short story for runs with liars: every kind of decision that others must agree on.

There are no edge nodes in it: a region promotes, holds and takes back on its people's word, so
that half a minute holds what a rollout takes ten for. People ask only daemons that are honest
and whose keys are their own; what the others write, they write by themselves.

    1.0.0 is published, planned and active everywhere; 2.0.0 follows and is active in some
    regions; one holds it, one takes it back; 2.0.0 is killed, between two new trust versions
"""

from __future__ import annotations

import json

from hanse.core.catalog.lineage import rollback_target
from hanse.core.catalog.manifest import Manifest
from hanse.core.catalog.view import RolloutView
from hanse.core.events import Healthy, Hold, Promote, Rollback
from hanse.core.ids import Digest
from hanse.core.rollout.spec import parse_spec, spec_digest
from hanse.sim.process import Process
from hanse.sim.story import Story, kill, manifest, publish, roll_out, say, trust, until, view
from hanse.sim.vices import doubtful
from hanse.sim.world import World


def decisions(world: World) -> Story:
    suspects = doubtful(world.plan.vices)
    asked = [
        p for p in world.processes.values() if world.misdeeds.honest(p) and p.name not in suspects
    ]
    world.rng.shuffle(asked)
    first = manifest("1.0.0")
    second = manifest("2.0.0", first)
    yield from publish(world, asked[0].name, first, 1)
    yield from roll_out(world, asked[0].name, first, 1, None)
    for process in asked:
        yield from promote(world, process, first)
    yield from publish(world, asked[1].name, second, 2)
    yield from roll_out(world, asked[-1].name, second, 2, first)
    for process in asked[:2]:
        yield from promote(world, process, second)
    yield from hold(world, asked[-1], second)
    yield from take_back(world, asked[0], second)
    yield from trust(world, asked[1].name, 2)
    yield from kill(world, asked[-1].name, second)
    yield from trust(world, asked[-1].name, 3)


def promote(world: World, process: Process, release: Manifest) -> Story:
    """The region runs it from here on, and says that all is well; not if it is barred."""
    digest = Digest.of(release.encode())
    yield from until(lambda: _may_act(process, digest))
    plan, seen = _planned(process, digest), view(process)
    record = seen.release(digest) if seen else None
    if plan is None or seen is None or record is None or record.barred:
        return
    named = (seen.model, process.name, digest, record.manifest_size, record.counter)
    body = Promote(*named, plan.rollout, plan.generation)
    replaced = [a.id for a in seen.heads if a.region == process.name]
    yield from say(world, process.name, body, supersedes=replaced)
    proof = spec_digest(parse_spec(json.loads(plan.spec))).raw
    healthy = Healthy(
        seen.model, digest, plan.rollout, plan.generation, process.name, proof, bytes(32)
    )
    yield from say(world, process.name, healthy)


def hold(world: World, process: Process, release: Manifest) -> Story:
    body = Hold(release.model, process.name, Digest.of(release.encode()), "wrong answers")
    yield from say(world, process.name, body)


def take_back(world: World, process: Process, release: Manifest) -> Story:
    """Back to where lineage says, if there is a target and it is still active here."""
    bad, seen = Digest.of(release.encode()), view(process)
    active = seen.active(process.name) if seen else None
    target = rollback_target(seen, bad, process.name) if seen else None
    if seen is not None and active is not None and active.release == bad and target is not None:
        body = Rollback(seen.model, process.name, active.id, bad, target.digest, "wrong answers")
        yield from say(world, process.name, body)


def _may_act(process: Process, release: Digest) -> bool:
    """Whether plan and record, whoever wrote them, bind this region."""
    plan, seen = _planned(process, release), view(process)
    record = seen.release(release) if seen else None
    return bool(plan and record and plan.usable(process.name) and record.usable(process.name))


def _planned(process: Process, release: Digest) -> RolloutView | None:
    """The signed plan of this release, as far as this region knows."""
    seen = view(process)
    return next((r for r in seen.rollouts if r.release == release), None) if seen else None
