"""Witnesses out of reach: a region goes on alone with its own word, and with nobody else's."""

from __future__ import annotations

from hanse.core.catalog.view import RolloutView
from hanse.core.ids import Digest, Segment
from hanse.core.rollout.progress import Progress
from hanse.core.rollout.stimuli import Cause
from hanse.core.rollout.table import State
from hanse.sim import story
from hanse.sim.answers import Nature
from hanse.sim.faults import Cut, FaultPlan
from hanse.sim.run import build
from hanse.sim.world import NAMES, World

PILOT, SECOND, THIRD, FOURTH = NAMES[:4]
RELEASE = story.manifest("1.0.0")
DIGEST = Digest.of(RELEASE.encode())


def place(world: World, region: str) -> Progress:
    node = world.processes[Segment(region)].node
    assert node is not None
    (execution,) = node.region.executions.values()
    return execution.progress


def rollout(world: World, region: str) -> RolloutView:
    view = story.view(world.processes[Segment(region)])
    assert view is not None
    return view.rollouts[0]


def stop(world: World, *regions: str) -> None:
    for region in regions:
        process = world.processes[Segment(region)]
        process.crash(process.store.crash())


def published(world: World) -> story.Story:
    yield from story.publish(world, Segment(PILOT), RELEASE, 1)
    yield from story.roll_out(world, Segment(PILOT), RELEASE, 1, None)


def test_what_another_region_recorded_waits_for_its_witnesses_and_says_so() -> None:
    """F20: two of four witnesses are down. The pilot goes on with its own plan, the next waits."""
    world = build(31, 4, FaultPlan(), Nature())
    world.run_until(5)
    stop(world, THIRD, FOURTH)
    assert story.run_story(world, published, 60)
    world.run_until(200)
    assert place(world, PILOT).state is State.HEALTHY, "its own record, plan and proof"
    waits = place(world, SECOND)
    assert (waits.state, waits.reason) == (State.GATED, Cause.FINALITY)
    assert "the record of 1.0.0 is not final: waiting for 3 of 4 witness groups" in waits.why
    assert f"no word from region/{THIRD}, region/{FOURTH}" in waits.why
    world.processes[Segment(THIRD)].boot()
    world.run_until(400)
    assert place(world, SECOND).state is State.HEALTHY
    assert not rollout(world, SECOND).waiting


def test_two_regions_have_no_finality_apart_and_have_it_again_together() -> None:
    """F11: nothing crosses the cut, what was begun alone is kept, and healing makes it final."""
    world = build(32, 2, FaultPlan(), Nature())
    world.run_until(5)
    world.cut_now(Cut(world.now_s, 200, (Segment(SECOND),)))
    assert story.run_story(world, published, 60)
    world.run_until(199)
    pilot, second = (world.processes[Segment(name)] for name in (PILOT, SECOND))
    assert pilot.node is not None
    assert second.node is not None
    head = pilot.node.book.heads[pilot.origin]
    assert head.final_size < head.size
    assert place(world, PILOT).state is State.HEALTHY
    assert story.view(second) is None
    world.run_until(215)
    head = pilot.node.book.heads[pilot.origin]
    assert head.final_size == head.size, "soon after the cut has healed"
    world.run_until(500)
    assert place(world, SECOND).state is State.HEALTHY
    world.oracle.finish()


def test_the_word_that_all_is_well_counts_once_it_is_final() -> None:
    """The gate of the second stage opens on an attestation that no region can hear otherwise."""
    world = build(33, 4, FaultPlan(), Nature())
    assert story.run_story(world, published, 60)
    world.run_until(20)
    assert rollout(world, SECOND).final
    stop(world, THIRD, FOURTH)
    world.run_until(200)
    assert place(world, PILOT).state is State.HEALTHY
    assert rollout(world, SECOND).healthy == (PILOT,)
    waits = place(world, SECOND)
    assert (waits.state, waits.reason) == (State.GATED, Cause.GATE)
    assert f"the word of {PILOT} is not final: waiting for 3 of 4 witness groups" in waits.why
    world.processes[Segment(FOURTH)].boot()
    world.run_until(400)
    assert place(world, SECOND).state is State.HEALTHY
