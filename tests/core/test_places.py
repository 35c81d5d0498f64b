"""Stages that select regions by labels: who is reached, who begins when, who waits for whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hand_federation import CAREFUL, MODEL, STEPS, Federation, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rollout_machine import STEPS as LONG
from test_rollout_machine import Walk, document, facts_of

from hanse.core.errors import InvalidSpec
from hanse.core.events import Healthy, RolloutControl
from hanse.core.ids import Segment, segment
from hanse.core.rollout.places import resolve
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.spec import canonical, parse_spec, spec_digest
from hanse.core.rollout.stimuli import Cause
from hanse.core.rollout.table import State

EU, US, AP = segment("eu-north"), segment("us-east"), segment("ap-south")


def selecting(parallel: int | None = None, healthy: object = "all", **more: Any) -> RolloutSpec:
    regions: dict[str, Any] = {"matchLabels": {"tier": "standard"}}
    regions |= {} if parallel is None else {"maxParallel": parallel}
    made = document(
        stages=[
            {"name": "pilot", "regions": ["north"], "steps": LONG},
            {
                "name": "wave",
                "regions": regions,
                "requires": {"stage": "pilot", "healthy": healthy} | more,
                "steps": LONG,
            },
        ]
    )
    made["metadata"]["trustVersion"] = 7
    return parse_spec(made)


def labelled(**tiers: str) -> dict[Segment, dict[str, str]]:
    return {segment(region): {"tier": tier} for region, tier in tiers.items()}


def test_a_stage_reaches_the_regions_with_its_labels_in_one_order() -> None:
    spec = selecting()
    labels = labelled(west="standard", north="standard", east="standard", isle="small")
    resolved = resolve(spec, labels)
    assert resolved.stages[1].regions == ("east", "west")  # north stands in the stage before
    assert resolved.regions == ("north", "east", "west")
    assert resolve(spec, dict(reversed(labels.items()))) == resolved


def test_what_is_signed_is_the_selector_and_not_what_it_selected() -> None:
    spec = selecting(2)
    resolved = resolve(spec, labelled(west="standard", east="standard"))
    assert canonical(resolved) == canonical(spec)
    assert spec_digest(resolved) == spec_digest(spec)


def test_a_stage_that_reaches_nobody_or_waits_for_too_many_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="0 regions carry tier=standard"):
        resolve(selecting(), labelled(west="small"))
    made = document()
    made["metadata"]["trustVersion"] = 7
    made["spec"]["stages"][0]["regions"] = {"matchLabels": {"tier": "pilot"}}
    made["spec"]["stages"][1]["requires"]["healthy"] = 3
    with pytest.raises(InvalidSpec, match="3 of 2 regions can never be healthy"):
        resolve(parse_spec(made), labelled(a="pilot", b="pilot"))


regions = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)


@given(
    regions,
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 7), st.booleans(), st.randoms()), max_size=60),
)
@settings(max_examples=300)
def test_no_partition_exposes_more_regions_than_may_be_at_once(
    names: list[str], parallel: int, moves: list[tuple[int, bool, Any]]
) -> None:
    """Invariant 12: each region acts on the part of the attestations that has reached it."""
    spec = resolve(selecting(parallel), labelled(**dict.fromkeys(names, "standard")))
    stage = spec.stages[1]
    begun: set[str] = set()
    ended: set[str] = set()
    for pick, end, dice in moves:
        region = stage.regions[pick % len(stage.regions)]
        if end and region in begun:
            ended.add(region)
        heard = {r for r in ended if dice.random() < 0.7}
        before, quorum = stage.turn(region)
        if len(heard & set(before)) >= quorum:
            begun.add(region)
        assert len(begun - ended) <= parallel
    for region in stage.regions:  # and once all is heard, everybody gets a turn
        before, quorum = stage.turn(region)
        assert len(set(before)) >= quorum


def test_a_region_waits_for_its_turn_and_says_for_whom() -> None:
    spec = resolve(selecting(1), labelled(east="standard", west="standard"))
    walk = Walk("west", spec)
    for _ in range(4):
        progress = walk.tick(facts_of("good", walk.progress))
    assert (progress.state, progress.reason) == (State.GATED, Cause.TURN)
    assert progress.why == "0 of 1 regions before this one have ended: waits for east"
    good = facts_of("good", walk.progress)
    walk.tick(replace(good, reports={**good.reports, "east": State.HEALTHY}))
    assert walk.progress.state is State.PREFETCHING
    assert Walk("east", spec).until(State.PREFETCHING)


# -- how old a proof may be ----------------------------------------------------


@pytest.mark.parametrize(
    ("age_s", "state"),
    [
        (10.0, State.PREFETCHING),
        (3600 - 61.0, State.PREFETCHING),
        (3600 - 59.0, State.HELD),  # within it by our clock, and perhaps not by others
        (4000.0, State.HELD),
        (-59.0, State.PREFETCHING),
        (-61.0, State.HELD),  # from the future: somebody's clock is wrong
    ],
)
def test_an_old_proof_holds_and_never_proceeds(age_s: float, state: State) -> None:
    spec = resolve(selecting(maxAge="1h"), labelled(west="standard"))
    walk = Walk("west", spec)
    for _ in range(4):
        good = facts_of("good", walk.progress)
        walk.tick(replace(good, attested_age_s={"north": age_s}))
        if walk.progress.state in (State.PREFETCHING, State.HELD):
            break
    assert walk.progress.state is state
    if state is State.HELD:
        assert walk.progress.reason == Cause.MAX_AGE
        assert "start a new generation" in walk.progress.why
        for _ in range(5):  # an unknown age is too old as well
            walk.tick(replace(facts_of("good", walk.progress), attested_age_s={}))
        assert walk.progress.state is State.HELD
        walk.tick(replace(facts_of("good", walk.progress), attested_age_s={"north": 5.0}))
        assert walk.progress.state is State.GATED


# -- a federation --------------------------------------------------------------

LABELS = {EU: {"tier": "pilot"}, US: {"tier": "standard"}, AP: {"tier": "standard"}}


@pytest.fixture
def town() -> Federation:
    federation = Federation(labels=LABELS)
    serving(federation)
    return federation


def waves(parallel: int | None = None, **requires: Any) -> dict[str, Any]:
    wave: dict[str, Any] = {"matchLabels": {"tier": "standard"}}
    wave |= {} if parallel is None else {"maxParallel": parallel}
    gate = {"stage": "pilot", "healthy": "all"} | requires
    return CAREFUL | {
        "stages": [
            {"name": "pilot", "regions": {"matchLabels": {"tier": "pilot"}}, "steps": STEPS},
            {"name": "wave", "regions": wave, "requires": gate, "steps": STEPS},
        ]
    }


def states(town: Federation, release: object) -> dict[str, State]:
    return {
        node.me.region: e.progress.state
        for node in town.nodes.values()
        for e in node.region.executions.values()
        if e.plan.release == release
    }


def test_every_daemon_resolves_a_plan_from_the_trust_version_that_it_cites(
    town: Federation,
) -> None:
    old = next(iter(town.nodes.values())).catalog.views[MODEL].releases[0].digest
    new = town.publish("4.0.0", parents=(old,))
    town.roll_out("r-2", 2, new, old, 1, **waves())
    for node in town.nodes.values():
        assert node.catalog.views[MODEL].rollouts[-1].plan.regions == (EU, AP, US)
    digests = {node.catalog.state_digest for node in town.nodes.values()}
    town.relabel({EU: {"tier": "standard"}, US: {"tier": "pilot"}, AP: {}})
    for node in town.nodes.values():  # nobody moves in or out of what was signed
        assert node.catalog.views[MODEL].rollouts[-1].plan.regions == (EU, AP, US)
    assert len(digests) == 1
    town.run(40)
    assert states(town, new) == dict.fromkeys((EU, AP, US), State.HEALTHY)


def test_a_plan_that_cites_what_its_author_had_not_seen_starts_nothing(town: Federation) -> None:
    old = next(iter(town.nodes.values())).catalog.views[MODEL].releases[0].digest
    new = town.publish("4.0.0", parents=(old,))
    town.roll_out("r-2", 2, new, old, 2, **waves())
    assert [r.rollout for r in town.node(EU).catalog.views[MODEL].rollouts] == ["r-1"]
    town.relabel(LABELS)  # version 2 comes later: the plan stays void everywhere
    town.node(EU).catalog.stored_views()
    assert [r.rollout for r in town.node(EU).catalog.views[MODEL].rollouts] == ["r-1"]


def test_one_region_of_a_wave_after_another(town: Federation) -> None:
    old = next(iter(town.nodes.values())).catalog.views[MODEL].releases[0].digest
    new = town.publish("4.0.0", parents=(old,))
    town.roll_out("r-2", 2, new, old, 1, **waves(parallel=1))
    for _ in range(120):
        town.run(0.5)
        now = states(town, new)
        exposed = [r for r in (US, AP) if now.get(r) not in (None, State.PENDING, State.GATED)]
        assert not (US in exposed and now[AP] is not State.HEALTHY)
    assert states(town, new) == dict.fromkeys((EU, AP, US), State.HEALTHY)


def test_an_attestation_is_aged_by_the_clock_of_whoever_wrote_it(town: Federation) -> None:
    old = next(iter(town.nodes.values())).catalog.views[MODEL].releases[0].digest
    new = town.publish("4.0.0", parents=(old,))
    town.cut = {US}
    town.roll_out("r-2", 2, new, old, 1, **waves(maxAge="10m"))
    town.run(30)
    assert states(town, new)[EU] is State.HEALTHY
    town.now_s += 1200  # us-east was out of reach meanwhile
    town.cut = set()
    for node in town.nodes.values():
        for record in node.catalog.records(MODEL):
            assert not isinstance(record.event.body, Healthy) or record.event.header.hlc_ms
    town.node(EU).resync(town.node(US).me.member)
    town.node(US).resync(town.node(EU).me.member)
    town.run(30)
    place = next(
        e.progress for e in town.node(US).region.executions.values() if e.plan.release == new
    )
    assert (place.state, place.reason) == (State.HELD, Cause.MAX_AGE)


def test_a_region_that_is_taken_out_of_a_wave_gives_its_turn_away(town: Federation) -> None:
    old = next(iter(town.nodes.values())).catalog.views[MODEL].releases[0].digest
    new = town.publish("4.0.0", parents=(old,))
    town.roll_out("r-2", 2, new, old, 1, **waves(parallel=1))
    town.propose(AP, RolloutControl(MODEL, segment("r-2"), 2, "pause", AP))
    town.run(30)
    assert states(town, new)[US] is State.GATED
    town.propose(AP, RolloutControl(MODEL, segment("r-2"), 2, "abort", AP))
    town.run(30)
    assert states(town, new) == {
        EU: State.HEALTHY,
        AP: State.ROLLED_BACK,
        US: State.HEALTHY,
    }
