"""A wave that is selected by labels, two regions at a time, while the network does what it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from hanse.core.ids import Digest, Segment
from hanse.core.rollout.table import State
from hanse.core.trust.members import Members
from hanse.sim import run, story, world
from hanse.sim.answers import Nature
from hanse.sim.world import World

PARALLEL = 2
FIRST = story.manifest("1.0.0")
SECOND = story.manifest("2.0.0", FIRST)
NOT_BEGUN = (None, State.PENDING, State.GATED, State.HEALTHY)


@pytest.fixture(autouse=True)
def labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    members, plan = world._members, story.plan

    def with_labels(seed: int, names: Sequence[Segment]) -> Members:
        tiers = {name: {"tier": "rest" if i else "pilot"} for i, name in enumerate(names)}
        return replace(members(seed, names), labels=tiers)

    def by_labels(regions: Sequence[str], *which: Any) -> dict[str, Any]:
        made = plan(regions, *which)
        pilot, rest = made["spec"]["stages"]
        pilot["regions"] = {"matchLabels": {"tier": "pilot"}}
        rest["regions"] = {"matchLabels": {"tier": "rest"}, "maxParallel": PARALLEL}
        rest["requires"]["maxAge"] = "2h"
        made["metadata"]["trustVersion"] = 1
        made["spec"]["rollback"] = {"window": {"revisions": 2}, "prefetch": 2}
        return made

    monkeypatch.setattr(world, "_members", with_labels)
    monkeypatch.setattr(story, "plan", by_labels)


def tale(told: World) -> story.Story:
    names = list(told.processes)
    yield from story.publish(told, names[0], FIRST, 1)
    yield from story.roll_out(told, names[0], FIRST, 1, None)
    yield from story.until(lambda: story.everywhere(told, FIRST, State.HEALTHY))
    yield from story.publish(told, names[1], SECOND, 2)
    yield from story.roll_out(told, names[1], SECOND, 2, FIRST)
    yield from story.until(lambda: story.everywhere(told, SECOND, State.HEALTHY))


def watch(told: World, seen: list[int]) -> None:
    """Invariant 12, of regions: counted every second over all that are up."""

    def look() -> None:
        told.after(1.0, look)
        for release in (FIRST, SECOND):
            states = [
                story.state(told.processes[name], release) for name in list(told.processes)[1:]
            ]
            seen.append(sum(state not in NOT_BEGUN for state in states))
            assert seen[-1] <= PARALLEL

    told.after(1.0, look)


@pytest.mark.parametrize(("seed", "faults"), [(21, "none"), (22, "default"), (23, "default")])
def test_never_more_regions_at_once_than_the_plan_says_and_all_in_the_end(
    seed: int, faults: str
) -> None:
    told = run.build(seed, 5, faults, Nature())
    seen: list[int] = []
    watch(told, seen)
    run.play(told, tale)  # ends with agreement, and with what the naive reference says
    assert max(seen) == PARALLEL
    view = story.view(told.processes[next(iter(told.processes))])
    assert view is not None
    (first, _) = (rollout.plan for rollout in view.rollouts)
    assert first.stages[1].regions == tuple(sorted(list(told.processes)[1:]))
    assert {a.release for a in view.heads} == {Digest.of(SECOND.encode())}
