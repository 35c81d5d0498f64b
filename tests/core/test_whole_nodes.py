"""Whole nodes as arms: which ones, how they are counted, and what such a plan must allow for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_device import V1, V2, Node, wish
from test_rollout_machine import Walk, document, facts_of, walk_to

from hanse.core.device import Device
from hanse.core.device_step import Route
from hanse.core.errors import InvalidSpec
from hanse.core.ids import segment
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.spec import parse_spec
from hanse.core.rollout.stimuli import Cause
from hanse.core.rollout.table import State
from hanse.core.routing import takes_all

names = st.text("abcdefgh0123456789-", min_size=1, max_size=20)


@given(st.text(max_size=20), names, st.integers(0, 10_000), st.integers(0, 10_000))
def test_raising_the_weight_only_adds_nodes(salt: str, node: str, one: int, other: int) -> None:
    """Invariant 13, of nodes."""
    low, high = sorted((one, other))
    assert takes_all(salt, node, low) <= takes_all(salt, node, high)
    assert not takes_all(salt, node, 0)
    assert takes_all(salt, node, 10_000)


def test_nodes_fall_into_a_share_as_often_as_it_says_and_anew_in_every_plan() -> None:
    nodes = [f"dock-{i}" for i in range(5000)]
    first = [takes_all("r-1/1/x", node, 1000) for node in nodes]
    second = [takes_all("r-2/2/y", node, 1000) for node in nodes]
    assert 400 < sum(first) < 600
    assert sum(a and b for a, b in zip(first, second, strict=True)) < 100


def test_a_node_in_the_share_answers_with_the_candidate_alone_and_the_others_without_it() -> None:
    salt, found = "r-1/1/x", {}
    for name in ("n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"):
        node = Node()
        node.device = Device(segment("acme"), segment("eu-north"), None, name)
        node.assign(wish(1, active=V1))
        node.assign(wish(2, active=V1, candidate=V2, weight_bp=3000, salt=salt, whole_nodes=True))
        route = node.device.route(segment("ocr-rec"))
        assert (route.stable, route.candidate) == (V1, V2)
        assert route.weight_bp == 3000  # by this the region knows its counts
        found[name] = route.canary_bp
    assert set(found.values()) == {0, 10_000}
    assert found == {n: 10_000 * takes_all(salt, n, 3000) for n in found}


def test_a_share_of_the_requests_is_what_is_said_without_whole_nodes() -> None:
    assert Route(segment("m"), V1, V2, 3000).canary_bp == 3000
    assert Route(segment("m"), V1, V2, 3000, whole=False).canary_bp == 0


# -- the plan ------------------------------------------------------------------


def plan(margin: float, nodes: dict[str, Any], **more: Any) -> RolloutSpec:
    made = document(nodes=nodes, **more)
    errors = {"name": "e", "test": "ratio", "event": "error", "margin": margin, "provenBelow": 4}
    made["spec"]["templates"]["safety"]["metrics"] = [errors]
    return parse_spec(made)


@pytest.mark.parametrize(
    ("margin", "online", "fine"),
    [(1.5, 0, True), (1.49, 0, False), (1.25, 49, False), (1.25, 50, True), (1.2, 500, False)],
)
def test_a_margin_that_differences_between_nodes_would_pass_is_refused(
    margin: float, online: int, fine: bool
) -> None:
    if fine:
        assert plan(margin, {"assign": "node", "minOnline": online}).nodes.assign == "node"
    else:
        with pytest.raises(InvalidSpec, match="takes nodes that differ for harm"):
            plan(margin, {"assign": "node", "minOnline": online})
    assert plan(1.0, {"assign": "request"}).nodes.assign == "request"


def test_what_means_nothing_of_whole_nodes_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="has no say where whole nodes are assigned"):
        plan(1.5, {"assign": "node"}, audience={"unit": "customer"})
    made = document(nodes={"assign": "node"})
    made["spec"]["templates"]["safety"]["metrics"] = [
        {"name": "e", "test": "one-arm", "event": "error", "slo": 0.1, "provenBelow": 0.1},
        {"name": "shares", "test": "sample-ratio"},
    ]
    with pytest.raises(InvalidSpec, match="the share of requests is not the share of nodes"):
        parse_spec(made)


def test_a_weight_into_which_no_node_falls_waits_and_says_so() -> None:
    walk = walk_to(State.WEIGHTING)
    good = facts_of("good", walk.progress)
    walk.tick(replace(good, nodes=replace(good.nodes, whole=0)))
    assert (walk.progress.state, walk.progress.reason) == (State.WEIGHTING, Cause.NODES)
    assert walk.progress.why == "none of 5 nodes falls into 10 % of them: write a larger weight"
    walk.tick(replace(facts_of("good", walk.progress), nodes=replace(good.nodes, whole=1)))
    assert walk.progress.state is State.PAUSED


def test_with_too_few_nodes_online_nothing_begins_or_rises_and_harm_is_undone() -> None:
    """Invariant 15: nodes that are away advance nothing, however many there are."""
    spec = parse_spec(document(nodes={"minOnline": 6}))
    walk = Walk("north", spec)
    for _ in range(6):
        walk.tick()  # five are online
    assert (walk.progress.state, walk.progress.reason) == (State.GATED, Cause.ONLINE)
    assert walk.progress.why == "5 of 6 nodes that can run the release are online"
    good = facts_of("good", walk.progress)
    for _ in range(3):
        walk.tick(replace(good, nodes=replace(good.nodes, online=6, confirmed=6, ready=6)))
    assert walk.progress.state is State.SHADOWING
    for _ in range(20):
        walk.tick("good")  # one has gone again
    assert (walk.progress.state, walk.progress.weight_percent) == (State.HELD, 0)
    walk.tick("aborted")
    assert walk.progress.state is State.ROLLING_BACK
