"""A region is cut off in the middle of each state of its rollout: it goes no further than the
freshness of its plan allows, everybody can go back meanwhile, and the heal finds all agreed."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from test_rollout_story import BAD_RELEASE, FIRST_RELEASE, PILOT, SECOND, _weight, digest, serving

from hanse.core.events import RolloutControl, RolloutIntent
from hanse.core.ids import segment
from hanse.core.rollout.spec import canonical, parse_spec
from hanse.core.rollout.table import TERMINAL, State
from hanse.core.trust import statements
from hanse.sim import story
from hanse.sim.answers import Nature
from hanse.sim.faults import Cut, FaultPlan
from hanse.sim.run import build
from hanse.sim.world import NAMES, World

HEARD_WITHIN_S = 30.0  # `freshness.within` of the plan
CUT_S = 200.0
ALONE_S = 160.0  # long enough to be done with the rollout, if nobody waited for news
CUT_AT = (
    State.GATED,
    State.PREFETCHING,
    State.SHADOWING,
    State.ANALYZING,
    State.WEIGHTING,
    State.PAUSED,
    State.AWAITING,
    State.SOAKING,
)
OTHERS = tuple(name for name in NAMES[:3] if name != SECOND)
WAYS = {
    "cut off": {"inside": (SECOND,)},
    "mute": {"inside": (SECOND,), "one_way": True},
    "deaf": {"inside": OTHERS, "one_way": True},
}


@dataclass
class Scene:
    world: World

    @property
    def state(self) -> State | None:
        return story.state(self.world.processes[segment(SECOND)], BAD_RELEASE)

    @property
    def exposure(self) -> int:
        """The share of users that this region gives the release; everybody once it is active."""
        return 101 if self.state is State.HEALTHY else _weight(self.world, SECOND)

    def until(self, state: State, latest_s: float = 600.0) -> None:
        while self.state is not state:
            assert self.world.now_s < latest_s, f"{state} was never reached, but {self.state}"
            self.world.run_until(self.world.now_s + 0.05)

    def serves(self) -> set[str]:
        return set().union(*(serving(self.world, name) for name in self.world.processes))


def with_approval(world: World) -> story.Story:
    """The usual plan, and before half of the users a person's word."""
    spec = story.plan(list(world.processes), digest(BAD_RELEASE), 2, digest(FIRST_RELEASE))
    rest = spec["spec"]["stages"][1]
    rest["steps"].insert(-1, {"approve": {"role": "release-manager", "count": 1}})
    parsed = parse_spec(json.loads(json.dumps(spec)))
    raw = canonical(parsed)
    signed = statements.sign_control(
        statements.rollout_statement(parsed.model, raw), [world.operator]
    )
    body = RolloutIntent(
        parsed.model, parsed.name, 2, digest(BAD_RELEASE), digest(FIRST_RELEASE), raw
    )
    yield from story.say(world, segment(PILOT), body, signed)


def started(approve: bool) -> Scene:
    def tale(world: World) -> story.Story:
        names = list(world.processes)
        yield from story.publish(world, names[0], FIRST_RELEASE, 1)
        yield from story.roll_out(world, names[0], FIRST_RELEASE, 1, None)
        yield from story.until(lambda: story.everywhere(world, FIRST_RELEASE, State.HEALTHY))
        yield from story.publish(world, names[0], BAD_RELEASE, 2)
        if approve:
            yield from with_approval(world)
        else:
            yield from story.roll_out(world, names[0], BAD_RELEASE, 2, FIRST_RELEASE)

    scene = Scene(build(31, 3, FaultPlan(), Nature()))
    assert story.run_story(scene.world, tale, 600)
    return scene


def abort(world: World) -> story.Story:
    """What a person of the region that is cut off says there."""
    statement = statements.control_statement(
        "abort", story.MODEL, rollout="digits-2", generation=2, region=SECOND
    )
    signed = statements.sign_control(statement, [world.operator])
    body = RolloutControl(story.MODEL, segment("digits-2"), 2, "abort", SECOND, "we are alone")
    yield from story.say(world, segment(SECOND), body, signed)


def back(world: World) -> story.Story:
    """Both sides go back, each on the word of its own people."""
    yield from abort(world)
    yield from story.kill(world, segment(PILOT), BAD_RELEASE)


@pytest.mark.parametrize(
    ("state", "way"),
    [
        *[(state, "cut off") for state in CUT_AT],
        *[(state, way) for state in (State.WEIGHTING, State.ANALYZING) for way in ("mute", "deaf")],
    ],
)
def test_who_is_cut_off_goes_no_further_and_everybody_goes_back(state: State, way: str) -> None:
    scene = started(approve=state is State.AWAITING)
    world = scene.world
    scene.until(state)
    cut = Cut(world.now_s, world.now_s + CUT_S, **WAYS[way])  # type: ignore[arg-type]
    world.cut_now(cut)
    before, last_step_s = scene.exposure, world.now_s
    while world.now_s < cut.at_s + ALONE_S:
        world.run_until(world.now_s + 1)
        if scene.exposure > before:
            before, last_step_s = scene.exposure, world.now_s
    assert last_step_s <= cut.at_s + HEARD_WITHIN_S + 2, "a step without news from the others"
    if state in (State.GATED, State.AWAITING):
        assert scene.exposure == (0 if state is State.GATED else 20), "nothing opens by itself"
    assert story.run_story(world, back, cut.until_s - 10), "nobody needs the other side for that"
    world.run_until(world.now_s + 5)
    assert scene.serves() == {"1.0.0"}, "while the cut lasts"
    assert world.now_s < cut.until_s
    world.run_until(cut.until_s + 60)
    world.oracle.look()
    assert world.oracle.agreed()
    assert scene.serves() == {"1.0.0"}
    assert scene.state in TERMINAL
    for process in world.processes.values():
        view = story.view(process)
        assert view is not None
        assert view.versions("2.0.0")[0].killed
        assert view.conflicts() == ()
