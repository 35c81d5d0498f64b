"""A hold is everywhere within nine rounds of two seconds, though three frames of ten are lost."""

from __future__ import annotations

from random import Random

from hanse.core.events import Hold
from hanse.sim.answers import Nature
from hanse.sim.faults import FaultPlan
from hanse.sim.network import Weather
from hanse.sim.run import build
from hanse.sim.story import MODEL, manifest, publish, run_story

REGIONS, HOLDS = 20, 10
WITHIN_S = 18.0  # p99 of twenty regions by rumour alone


def test_a_hold_reaches_twenty_regions_in_time_on_a_network_that_loses_a_third() -> None:
    world = build(1, REGIONS, FaultPlan("lossy", Weather(loss=0.3), calm_s=10_000.0), Nature())
    first, names = manifest("1.0.0"), list(world.processes)
    assert run_story(world, lambda w: publish(w, names[0], first, 1), 60)
    world.run_until(world.now_s + 40)
    for number, name in enumerate(Random(1).choices(names, k=HOLDS)):
        process = world.processes[name]
        ticket = process.propose(Hold(MODEL, name, None, f"hold {number}"))
        world.run_until(world.now_s + 0.01)
        assert ticket is not None
        assert ticket.event is not None, "stored"
        world.run_until(world.now_s + WITHIN_S)
        for other in world.processes.values():
            assert other.node is not None
            held = {hold.id for hold in other.node.catalog.views[MODEL].holds}
            assert ticket.event in held, other.name
