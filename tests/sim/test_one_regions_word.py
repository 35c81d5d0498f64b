"""A whole region that lies, with every key it has: others wait for it, and take nothing back."""

from __future__ import annotations

import pytest
from test_rollout_story import (
    BAD_REGION,
    BAD_RELEASE,
    FIRST_RELEASE,
    PILOT,
    SECOND,
    _until_canary,
    _weight,
    digest,
    serving,
    states,
)

from hanse.core import limits
from hanse.core.effects import Send
from hanse.core.events import (
    Body,
    FloorRaise,
    Hold,
    Kill,
    ReleaseRetire,
    Retrain,
    RetrainResult,
    Rollback,
    RolloutControl,
    RolloutIntent,
    RolloutReport,
)
from hanse.core.gossip.statuses import ATTEST, EVIDENCE
from hanse.core.ids import Digest, Segment, segment
from hanse.core.node import Node, Ticket
from hanse.core.rollout.spec import canonical, parse_spec, to_mapping
from hanse.core.rollout.stimuli import Cause
from hanse.core.rollout.table import State
from hanse.core.trust.mandate import Mandate, template_of
from hanse.sim import story
from hanse.sim.answers import Nature
from hanse.sim.faults import FaultPlan
from hanse.sim.oracle import Oracle
from hanse.sim.run import build
from hanse.sim.world import NAMES, World

LIAR = Segment(BAD_REGION)


def everything(world: World) -> list[Body]:
    """What an online key can sign against a release, in its own name and in that of others."""
    view = story.view(world.processes[segment(PILOT)])
    assert view is not None
    bad, first = digest(BAD_RELEASE), digest(FIRST_RELEASE)
    said: list[Body] = [
        Kill(view.model, bad, "we say so"),
        FloorRaise(view.model, 1000, "we say so"),
        RolloutControl(view.model, segment("digits-2"), 2, "abort"),
        ReleaseRetire(view.model, bad, "retired", "we say so"),
        mandated(world, first),
    ]
    for region in map(segment, (LIAR, SECOND, PILOT)):
        active = view.active(region)
        assert active is not None
        said += [
            Hold(view.model, region, bad, "we say so"),
            Rollback(view.model, region, active.id, active.release, first, "we say so"),
            RolloutControl(view.model, segment("digits-2"), 2, "abort", region),
            RolloutReport(view.model, segment("digits-2"), 2, bad, region, "rolledBack", 1, 3),
            Retrain(view.model, region, bad, active.id, "serving", "we say so"),
            RetrainResult(view.model, region, active.id, "passed", first),
        ]
    return said * 3


def mandated(world: World, release: Digest) -> Body:
    """A plan of its own choice, under a mandate that it wrote itself."""
    plan = story.plan(list(world.processes), release, 9, digest(BAD_RELEASE))
    spec = parse_spec(plan)
    mandate = Mandate(spec.model, Digest.of(template_of(to_mapping(spec))), 9).encode()
    named = (spec.model, spec.name, 9, release, digest(BAD_RELEASE))
    return RolloutIntent(*named, canonical(spec), mandate)


def say(node: Node, bodies: list[Body]) -> None:
    """Past its own judgement, as a changed program would."""
    node._pending += [Ticket(body, (), ()) for body in bodies]


def test_one_regions_word_can_hold_and_never_rolls_another_one_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T40, rollouts.md 2, invariant 16."""
    monkeypatch.setattr(Oracle, "alarmed", lambda *_: None)
    world = build(21, 3, FaultPlan(), Nature())
    world.oracle._honest = lambda process: process.name != LIAR
    assert story.run_story(world, _until_canary(SECOND), 600)
    weight = _weight(world, SECOND)
    world.processes[LIAR].do(lambda node, _: say(node, everything(world)))
    for _ in range(300):
        world.run_until(world.now_s + 1)
        assert states(world)[SECOND] is not State.ROLLING_BACK
    assert states(world)[PILOT] is State.HEALTHY
    assert states(world)[SECOND] is State.HELD, "it waits"
    assert _weight(world, SECOND) == weight > 0
    assert serving(world, SECOND) == {"1.0.0", "2.0.0"}
    assert serving(world, PILOT) == {"2.0.0"}
    view = story.view(world.processes[segment(PILOT)])
    assert view is not None
    (release,) = view.versions("2.0.0")
    assert (release.held, release.killed, release.quarantined) == ((LIAR,), False, False)
    assert release.retired == ""
    assert [r.rollout for r in view.rollouts] == ["digits-1", "digits-2"]


def test_one_regions_false_attestation_can_hold_and_never_rolls_another_one_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A state that is not what the logs give: the others wait until it says the right one."""
    monkeypatch.setattr(Oracle, "alarmed", lambda *_: None)
    monkeypatch.setattr(limits, "ATTEST_S", 100.0)
    world = build(22, 3, FaultPlan(), Nature())
    assert story.run_story(world, _until_canary(SECOND), 600)
    weight = _weight(world, SECOND)

    def lie(node: Node) -> None:
        body = {"heads": node.book.digest.hex(), "state": "00" * 32}
        status = node.bulletin.statuses.say(ATTEST, body, 0)
        node.sync.out += [Send(link.peer, status) for link in node.sync.proven()]

    world.processes[LIAR].do(lambda node, _: lie(node))
    world.run_until(world.now_s + 20)
    second = world.processes[segment(SECOND)].node
    assert second is not None
    assert [cause for cause, _ in second.region.barriers] == [Cause.DISAGREEMENT]
    world.run_until(world.now_s + 20)
    assert _weight(world, SECOND) == weight > 0
    assert serving(world, PILOT) == {"2.0.0"}
    assert story.run_story(
        world,
        lambda w: story.until(lambda: story.everywhere(w, BAD_RELEASE, State.HEALTHY)),
        6000,
    ), "its true word ends it"


def _tell_of_harm(world: World, *liars: str) -> None:
    """Evidence that no release ever gave, of every metric of the plan."""

    def lie(node: Node) -> None:
        weights = {m: [2**60] * 12 for m in ("error-rate", "accuracy", "disagreement")}
        (plan,) = (s.digest for s in node.region.shares())
        status = node.bulletin.statuses.say(EVIDENCE, {"rollouts": {str(plan): weights}}, 0)
        node.sync.out += [Send(link.peer, status) for link in node.sync.proven()]
        node.bulletin.measured = dict

    for liar in liars:
        world.processes[segment(liar)].do(lambda node, _: lie(node))


def test_one_regions_false_evidence_rolls_nobody_back_and_holds_nobody() -> None:
    world = build(23, 4, FaultPlan(), Nature())
    assert story.run_story(world, _until_canary(SECOND), 600)
    _tell_of_harm(world, LIAR)
    assert story.run_story(
        world,
        lambda w: story.until(lambda: story.everywhere(w, BAD_RELEASE, State.HEALTHY)),
        6000,
    )


def test_what_two_regions_measured_undoes_the_release_in_the_others() -> None:
    """As many as may quarantine it: each other region undoes it by its own word, and says why."""
    world = build(24, 4, FaultPlan(), Nature())
    assert story.run_story(world, _until_canary(SECOND), 600)
    _tell_of_harm(world, LIAR, NAMES[3])
    world.run_until(world.now_s + 60)
    assert states(world)[SECOND] in (State.ROLLED_BACK, State.QUARANTINED)
    assert serving(world, SECOND) == serving(world, PILOT) == {"1.0.0"}
    view = story.view(world.processes[segment(PILOT)])
    assert view is not None
    (release,) = view.versions("2.0.0")
    assert release.quarantined
    assert {h.region for h in view.holds if "all regions together" in h.reason} >= {SECOND}
