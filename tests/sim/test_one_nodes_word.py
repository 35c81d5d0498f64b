"""T38: one node that lies undoes nothing, several together undo their own region at most."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from test_rollout_story import PILOT, SECOND, serving, states, up_to_the_bad_release

from hanse.core.evidence.verdict import Reason
from hanse.core.rollout.progress import Progress
from hanse.core.rollout.table import State
from hanse.sim import story
from hanse.sim.answers import BAD, NOTHING_BUT_ERRORS, Nature
from hanse.sim.run import build
from hanse.sim.world import World

NODES = 5


def told(seed: int, nature: Nature, more_s: float = 60.0) -> tuple[World, set[State]]:
    """The story of 2.0.0 in two regions of five nodes, and every state that the pilot was in."""
    world, seen = build(seed, 2, "none", nature, NODES), set()

    def end(world: World) -> bool:
        seen.add(states(world)[PILOT])
        return states(world)[PILOT] in (State.HEALTHY, State.HELD, State.ROLLED_BACK)

    assert story.run_story(world, lambda w: up_to_the_bad_release(w, end), 900)
    for _ in range(int(more_s)):
        world.run_until(world.now_s + 1)
        seen.add(states(world)[PILOT])
    return world, {state for state in seen if state is not None}


def liars(numbers: Iterable[int]) -> Nature:
    return Nature(lies={("2.0.0", f"{PILOT}-node-{n}"): NOTHING_BUT_ERRORS for n in numbers})


def place(world: World, region: str) -> Progress:
    node = world.processes[region].node  # type: ignore[index]  # a name is a name
    assert node is not None
    return next(e.progress for e in node.region.executions.values() if e.plan.name.endswith("2"))


@pytest.mark.parametrize("seed", range(8))
def test_one_liar_of_five_holds_its_region_and_is_named(seed: int) -> None:
    liar = seed % NODES + 1
    world, seen = told(seed, liars([liar]))
    assert not seen & {State.ROLLING_BACK, State.ROLLED_BACK}
    here = place(world, PILOT)
    assert (here.state, here.reason) == (State.HELD, Reason.ONE_NODE)
    assert f"{PILOT}-node-{liar}" in here.why
    view = story.view(world.processes[SECOND])
    assert view is not None
    assert view.versions("2.0.0")[0].held == (), "nothing is said against it elsewhere"


@pytest.mark.parametrize("seed", range(2))
def test_three_liars_of_five_undo_their_own_region_and_no_other(seed: int) -> None:
    world, seen = told(seed, liars([1, 2, 3]), 90)
    assert State.ROLLED_BACK in seen
    assert states(world)[SECOND] in (State.GATED, State.HELD)
    view = story.view(world.processes[SECOND])
    assert view is not None
    assert not view.versions("2.0.0")[0].quarantined


@pytest.mark.parametrize("seed", range(2))
def test_what_is_bad_on_all_nodes_is_undone(seed: int) -> None:
    world, seen = told(seed, Nature({("2.0.0", PILOT): BAD}), 90)
    assert State.ROLLED_BACK in seen
    assert serving(world, PILOT) == {"1.0.0"}
