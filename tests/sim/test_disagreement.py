"""A fold that goes wrong in one region: the others find it, wait, and go on once it is right."""

from __future__ import annotations

import pytest

from hanse.core import limits
from hanse.core.effects import Log
from hanse.core.rollout.stimuli import Cause
from hanse.core.rollout.table import State
from hanse.daemon.queries.status import status
from hanse.sim import story
from hanse.sim.faults import YEAR_MS, FaultPlan, Skew
from hanse.sim.oracle import Oracle
from hanse.sim.process import CODEC, EPOCH_MS, Process, done
from hanse.sim.run import build
from hanse.sim.world import World

WRONG, OTHERS = "us-east", ("eu-north", "ap-south")


def barriers(process: Process) -> list[str]:
    return [cause for cause, _ in process.node.region.barriers] if process.node else []


def shown(process: Process) -> str:
    """What `hanse status` gives as reasons to wait."""
    assert process.node is not None
    return "; ".join(status(process.node, process.clock(), {})["daemon"]["waits"])


def stamps(process: Process) -> list[int]:
    raws = done(process.store.events(process.origin, 0, 1000, 2**24))
    return [CODEC.decode(raw).header.hlc_ms for raw in raws]


def tell(world: World, scene: story.Story, end_s: float = 3000.0) -> None:
    assert story.run_story(world, lambda _: scene, end_s), f"not over at {world.now_s:.0f} s"


def test_a_fold_that_goes_wrong_in_one_region_is_found_by_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T50: alarm within one period; starts and promotions wait, what makes safer goes on."""
    alarms: list[tuple[str, str]] = []

    def noted(self: Oracle, process: Process, alarm: Log) -> None:
        alarms.append((process.name, alarm.event))

    monkeypatch.setattr(Oracle, "alarmed", noted)
    monkeypatch.setattr(Oracle, "_same_heads_same_state", lambda self, process: None)
    monkeypatch.setattr(limits, "ATTEST_S", 100.0)
    world = build(3, 3, FaultPlan())
    names = list(world.processes)
    first, second, third = (story.manifest(f"{i}.0.0") for i in (1, 2, 3))

    def before() -> story.Story:
        yield from story.publish(world, names[0], first, 1)
        yield from story.roll_out(world, names[0], first, 1, None)
        yield from story.until(lambda: story.everywhere(world, first, State.HEALTHY))
        node = world.processes[WRONG].node
        assert node is not None
        node.catalog.rejudge(1, node.catalog.finals)  # one hold is a quarantine to it
        yield from story.publish(world, names[0], second, 2)
        yield from story.roll_out(world, names[0], second, 2, first)
        yield from story.until(lambda: story.settled(world, second))

    tell(world, before())
    world.run_until(world.now_s + limits.ATTEST_S + 70)
    assert {name for name, event in alarms if event == "state_differs"} == {*OTHERS, WRONG}
    assert all(barriers(p) == [Cause.DISAGREEMENT] for p in world.processes.values())
    assert "us-east computed another state from the same logs" in shown(world.processes["ap-south"])

    def meanwhile() -> story.Story:
        yield from story.publish(world, names[0], third, 3)
        yield from story.roll_out(world, names[0], third, 3, first)
        yield 200.0

    tell(world, meanwhile())
    assert story.state(world.processes["eu-north"], third) in (State.GATED, State.HELD)
    tell(world, story.kill(world, names[0], second))
    world.run_until(world.now_s + 5)
    assert all(
        release.killed
        for p in world.processes.values()
        if (view := story.view(p)) is not None
        for release in view.releases
        if release.version == "2.0.0"
    ), "what makes safer waits for nobody"

    wrong = world.processes[WRONG]
    wrong.crash(wrong.store)
    wrong.boot()  # the program that is right
    tell(world, story.until(lambda: story.everywhere(world, third, State.HEALTHY)))
    assert all(barriers(p) == [] for p in world.processes.values())


@pytest.mark.parametrize("offset_ms", [10 * YEAR_MS, 61_000])
def test_a_region_whose_clock_is_ahead_waits_and_stops_nobody_else(offset_ms: int) -> None:
    """T10, L19: of four clocks one is wrong. What it wrote before counts as ever."""
    world = build(5, 4, FaultPlan(skews={"us-east": Skew(offset_ms)}))
    mad, others = world.processes["us-east"], ("eu-north", "ap-south")
    first = story.manifest("1.0.0")

    def scene() -> story.Story:
        yield from story.publish(world, "us-east", first, 1)
        yield from story.roll_out(world, "eu-north", first, 1, None)
        right = [p for p in world.processes.values() if p is not mad]
        yield from story.until(lambda: all(story.state(p, first) is State.HEALTHY for p in right))

    tell(world, scene())
    assert barriers(mad) == [Cause.CLOCK]
    assert all(barriers(world.processes[name]) == [] for name in others)
    assert story.state(mad, first) in (State.GATED, State.HELD)
    assert "ahead of the median of our peers" in shown(mad)
    assert max(stamps(mad)) >= EPOCH_MS + offset_ms, "it says what its clock says"
    for process in world.processes.values():
        if process is not mad:
            assert max(stamps(process)) <= EPOCH_MS + world.now_s * 1000, "and pulls nobody along"
    mad.skew = Skew()
    tell(world, story.until(lambda: story.everywhere(world, first, State.HEALTHY)))


@pytest.mark.parametrize("offset_ms", [-YEAR_MS, 30_000])
def test_a_clock_that_is_behind_or_little_ahead_changes_nothing_that_is_told(
    offset_ms: int,
) -> None:
    def lines(plan: FaultPlan) -> list[str]:
        world = build(6, 4, plan)
        first = story.manifest("1.0.0")

        def scene() -> story.Story:
            yield from story.publish(world, "us-east", first, 1)
            yield from story.roll_out(world, "eu-north", first, 1, None)
            yield from story.until(lambda: story.everywhere(world, first, State.HEALTHY))

        tell(world, scene())
        return world.history.lines

    assert lines(FaultPlan(skews={"us-east": Skew(offset_ms)})) == lines(FaultPlan())
