"""A release that is bad in one region is undone there and stopped everywhere else."""

from __future__ import annotations

from collections.abc import Callable

from hanse.core.ids import Digest
from hanse.core.rollout.table import State
from hanse.sim import story
from hanse.sim.answers import BAD, Nature, Quality
from hanse.sim.faults import Cut, FaultPlan
from hanse.sim.run import build, play
from hanse.sim.world import NAMES, World

PILOT, SECOND, BAD_REGION = NAMES[:3]
FIRST_RELEASE = story.manifest("1.0.0")
BAD_RELEASE = story.manifest("2.0.0", FIRST_RELEASE)
CUT_S = 260.0


def digest(release: object) -> Digest:
    return Digest.of(release.encode())  # type: ignore[attr-defined]  # a manifest


def serving(world: World, region: str) -> set[str]:
    """Versions that the nodes of a region answer users from."""
    out = set()
    for edge in world.edges:
        if edge.name.startswith(region):
            for route in edge.routes.values():
                for release in (route.stable, route.candidate if route.weight_bp else None):
                    manifest = edge.device.manifest(release) if release else None
                    out |= {manifest.version} if manifest else set()
    return out


def settled(world: World) -> bool:
    return story.settled(world, BAD_RELEASE)


def up_to_the_bad_release(world: World, end: Callable[[World], bool] = settled) -> story.Story:
    names = list(world.processes)
    yield from story.publish(world, names[0], FIRST_RELEASE, 1)
    yield from story.roll_out(world, names[0], FIRST_RELEASE, 1, None)
    yield from story.until(lambda: story.everywhere(world, FIRST_RELEASE, State.HEALTHY))
    yield from story.publish(world, names[0], BAD_RELEASE, 2)
    yield from story.roll_out(world, names[0], BAD_RELEASE, 2, FIRST_RELEASE)
    yield from story.until(lambda: end(world))


def states(world: World) -> dict[str, State | None]:
    return {name: story.state(p, BAD_RELEASE) for name, p in world.processes.items()}


def test_harm_rolls_back_where_it_is_and_holds_everywhere_else() -> None:
    world = build(11, 3, "none")
    play(world, up_to_the_bad_release)
    world.run_until(world.now_s + 30)
    assert states(world) == {
        PILOT: State.HEALTHY,
        SECOND: State.HELD,
        BAD_REGION: State.ROLLED_BACK,
    }
    assert serving(world, BAD_REGION) == {"1.0.0"}
    assert serving(world, PILOT) == {"2.0.0"}, "a hold stops, it does not undo what is healthy"


def test_the_good_release_reaches_everybody_and_the_killed_one_nobody() -> None:
    world = build(12, 3, "default")
    play(world)
    world.run_until(world.now_s + 10)
    assert [serving(world, name) for name in world.processes] == [{"3.0.0"}] * 3
    view = story.view(world.processes[PILOT])
    assert view is not None
    assert view.conflicts() == ()
    assert view.versions("2.0.0")[0].killed


def test_a_region_that_is_cut_off_rolls_back_alone() -> None:
    """Cut off while its canary runs: nobody can tell it to, and it does.

    The release is not so bad that its shadow shows it.
    """
    nature = Nature({("2.0.0", BAD_REGION): Quality(error=0.1, right=0.85)})
    world = build(18, 3, "none", nature)
    scene = story.run_story(world, _until_canary(BAD_REGION), 600)
    assert scene
    cut = Cut(world.now_s, world.now_s + 120, (BAD_REGION,))
    world.cut_now(cut)
    world.run_until(cut.until_s - 1)
    assert states(world)[BAD_REGION] is State.ROLLED_BACK
    assert serving(world, BAD_REGION) == {"1.0.0"}
    held = story.view(world.processes[PILOT])
    assert held is not None
    assert held.versions("2.0.0")[0].held == (), "the others cannot know yet"
    world.run_until(cut.until_s + 40)
    healed = story.view(world.processes[PILOT])
    assert healed is not None
    assert healed.versions("2.0.0")[0].held == (BAD_REGION,)


def test_a_region_that_is_cut_off_goes_no_further() -> None:
    """Nothing is wrong with the release here; yet without news no region raises a weight."""
    world = build(14, 3, FaultPlan(), Nature())
    assert story.run_story(world, _until_canary(SECOND), 600)
    cut = Cut(world.now_s, world.now_s + 200, (SECOND,))
    before = _weight(world, SECOND)
    world.cut_now(cut)
    world.run_until(cut.until_s - 1)
    assert _weight(world, SECOND) == before, "it goes on at the same weight, and no further"
    assert story.state(world.processes[SECOND], BAD_RELEASE) is State.HELD
    assert story.state(world.processes[BAD_REGION], BAD_RELEASE) is State.HEALTHY
    world.run_until(cut.until_s + 200)
    assert story.everywhere(world, BAD_RELEASE, State.HEALTHY), "and goes on when it hears again"


def test_the_pilot_alone_opens_the_gate() -> None:
    """The pilot is cut off before it is healthy: the others wait at the gate, whatever passes."""
    world = build(15, 3, FaultPlan(), Nature())
    assert story.run_story(world, _until_canary(PILOT), 600)
    cut = Cut(world.now_s, world.now_s + 200, (PILOT,))
    world.cut_now(cut)
    world.run_until(cut.until_s - 1)
    assert story.state(world.processes[PILOT], BAD_RELEASE) is State.HEALTHY
    for name in (SECOND, BAD_REGION):
        assert story.state(world.processes[name], BAD_RELEASE) is State.GATED
        assert serving(world, name) == {"1.0.0"}


def test_a_stage_that_is_bad_in_two_regions_quarantines_the_release() -> None:
    bad = {("2.0.0", SECOND): BAD, ("2.0.0", BAD_REGION): BAD}
    world = build(16, 3, FaultPlan(), Nature(bad))
    # The second region must find out by itself: it does not hear of the first one's hold.
    assert story.run_story(world, _until_canary(SECOND, BAD_REGION), 600)
    world.cut_now(Cut(world.now_s, world.now_s + 60, (SECOND,)))
    world.run_until(world.now_s + 150)
    view = story.view(world.processes[PILOT])
    assert view is not None
    assert view.versions("2.0.0")[0].quarantined
    assert [serving(world, name) for name in world.processes] == [{"1.0.0"}] * 3
    assert view.conflicts() == ()


def _until_canary(*regions: str):  # type: ignore[no-untyped-def]  # a story, named by its start
    def tale(world: World) -> story.Story:
        scene = up_to_the_bad_release(world)
        for wait_s in scene:
            if all(_weight(world, region) == 20 for region in regions):
                return
            yield wait_s

    return tale


def _weight(world: World, region: str) -> int:
    node = world.processes[region].node  # type: ignore[index]  # names are segments
    for execution in node.region.executions.values() if node else ():
        if execution.plan.release == digest(BAD_RELEASE):
            return execution.progress.weight_percent
    return 0


LATE_S = 500.0


def all_healthy(world: World) -> story.Story:
    yield from up_to_the_bad_release(
        world, lambda w: w.now_s >= LATE_S and story.everywhere(w, BAD_RELEASE, State.HEALTHY)
    )


def test_a_release_that_turns_bad_after_its_rollout_is_undone_where_it_did() -> None:
    """Nobody compares any more: the region knows what the release was like when it was proven."""
    nature = Nature({("2.0.0", BAD_REGION): Quality(error=0.1)}, from_s=LATE_S)
    world = build(21, 3, FaultPlan(), nature)
    assert story.run_story(world, all_healthy, LATE_S + 60)
    assert story.everywhere(world, BAD_RELEASE, State.HEALTHY), "as good as any until then"
    world.run_until(LATE_S + 120)
    assert states(world)[BAD_REGION] is State.ROLLED_BACK
    assert serving(world, BAD_REGION) == {"1.0.0"}
    assert serving(world, PILOT) == {"2.0.0"}, "one region's word holds, and undoes nothing here"
    shared = story.view(world.processes[PILOT])
    assert shared is not None
    assert shared.versions("2.0.0")[0].held == (BAD_REGION,)


def test_what_makes_every_release_bad_undoes_one_promotion_and_no_second() -> None:
    """The older release, once it is back, shows the same; going on would end with nothing."""
    third = story.manifest("3.0.0", BAD_RELEASE)

    def three(world: World) -> story.Story:
        names = list(world.processes)
        yield from up_to_the_bad_release(
            world, lambda w: story.everywhere(w, BAD_RELEASE, State.HEALTHY)
        )
        yield from story.publish(world, names[0], third, 3)
        yield from story.roll_out(world, names[0], third, 3, BAD_RELEASE)
        yield from story.until(lambda: story.everywhere(world, third, State.HEALTHY))

    bad = {(v, BAD_REGION): Quality(error=0.2) for v in ("1.0.0", "2.0.0", "3.0.0")}
    world = build(22, 3, FaultPlan(), Nature(bad, from_s=LATE_S + 300))
    assert story.run_story(world, three, LATE_S + 290)
    world.run_until(LATE_S + 700)
    assert story.state(world.processes[BAD_REGION], third) is State.ROLLED_BACK
    assert serving(world, BAD_REGION) == {"2.0.0"}
