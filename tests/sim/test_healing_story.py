"""A bad release is retrained with nobody asked, whatever fails meanwhile: once, with one key."""

from __future__ import annotations

import pytest

from hanse.core.catalog.healed import answers
from hanse.core.ids import EventId
from hanse.sim import healing, story
from hanse.sim.answers import BAD, Nature
from hanse.sim.faults import Crash, FaultPlan
from hanse.sim.process import Process
from hanse.sim.run import build, play
from hanse.sim.world import NAMES, World

BAD_REGION = NAMES[2]
NATURE = Nature({("2.0.0", BAD_REGION): BAD})


def told(world: World) -> None:
    """Nothing that everybody agrees on may show more than one answer."""
    (seen, *others) = [story.view(p) for p in world.processes.values()]
    assert seen is not None
    assert all(other == seen for other in others)
    bad = next(r for r in seen.releases if r.version == "2.0.0")
    asked = [h for h in seen.healings if h.release == bad.digest]
    assert len(asked) == 1, "one hold, one retraining"
    (healed,) = asked
    assert (healed.region, healed.cause, healed.outcome) == (BAD_REGION, "trial", "passed")
    assert [r.digest for r in seen.releases if answers(healed, r.manifest)] == [healed.child]
    started = [r for r in seen.rollouts if r.release == healed.child]
    assert [r.mandated for r in started] == [True]
    for name in world.processes:
        active = seen.active(name)
        assert active is not None
        assert active.release == healed.child


@pytest.mark.parametrize("seed", range(30, 34))
def test_it_heals_through_cuts_crashes_and_bad_weather(seed: int) -> None:
    world = build(seed, 3, "default", NATURE)
    play(world, healing.healed)
    told(world)


def called(process: Process) -> list[EventId]:
    """The keys with which this region's hook was called so far."""
    assert isinstance(process.hook, healing.Trainer)
    return [key for name, key in process.hook.asked if name == process.name]


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_a_daemon_that_dies_right_at_the_retrain_event_asks_with_the_same_key(moment: str) -> None:
    """Before, in the middle of and after what follows the store of it; and once more later."""
    world = build(41, 3, FaultPlan("none"), NATURE)
    process = world.processes[BAD_REGION]
    calls: list[EventId] = []

    def tale(world: World) -> story.Story:
        scene = healing.healed(world)
        crashed = 0
        for wait_s in scene:
            seen = story.view(process)
            if crashed == 0 and seen is not None and any(h.release for h in seen.holds):
                process.crashes.append(Crash(0.0, BAD_REGION, moment, 3.0))
                crashed = 1
            elif crashed == 1 and called(process) and process.node is not None:
                process.crashes.append(Crash(0.0, BAD_REGION, "after", 3.0))
                crashed = 2
            yield min(wait_s, 0.2)
        calls.extend(called(process))

    play(world, tale)
    told(world)
    assert process.boots >= 3
    assert len(calls) >= 2, "a restart calls the hook again"
    assert len(set(calls)) == 1, "with the same key"


@pytest.mark.parametrize("seed", range(50, 53))
def test_two_regions_that_heal_the_same_release_do_not_undo_each_other(seed: int) -> None:
    """Both ask and both are answered; the rollout of one is not cut short by the other's."""
    nature = Nature({("2.0.0", name): BAD for name in NAMES[1:3]})
    world = build(seed, 3, "default", nature)
    play(world, healing.healed)
    world.run_until(world.now_s + 120)  # whatever the second one would do
    seen = story.view(world.processes[BAD_REGION])
    assert seen is not None
    bad = next(r for r in seen.releases if r.version == "2.0.0")
    asked = {h.region: h for h in seen.healings if h.release == bad.digest}
    assert {r: h.outcome for r, h in asked.items()} == dict.fromkeys(NAMES[1:3], "passed")
    (started,) = [r for r in seen.rollouts if r.mandated]
    active = {name: seen.active(name) for name in world.processes}
    assert {a.release for a in active.values() if a} == {started.release}
