"""Deprecating and retiring: who still needs a release is said before, and refuses it."""

from __future__ import annotations

from typing import Any

import pytest
from hand_federation import CAREFUL, FIRST, MODEL, Federation, serving

from hanse.core.errors import Conflict, InvalidSpec, NotPermitted
from hanse.core.events import Kill
from hanse.core.ids import Digest, Segment
from hanse.core.rollout.spec import parse_spec
from hanse.daemon import lifecycle, starting
from hanse.daemon.queries import QUERIES


def uses(federation: Federation, release: Digest, region: str = "eu-north") -> dict[str, Any]:
    asked = {"model": MODEL, "release": str(release)}
    return QUERIES["release.uses"](federation.node(region), federation.clock, asked)


def retire(federation: Federation, release: Digest, phase: str = "retired") -> None:
    signed = federation.control("retire", release=str(release), phase=phase)
    asked = {"model": MODEL, "release": str(release), "phase": phase, "reason": "old"}
    lifecycle.retire(federation.node("eu-north"), {**asked, "envelope": signed.decode()})
    federation.settle()


def chain(federation: Federation, count: int) -> list[Digest]:
    """So many releases, each the child of the one before, each promoted everywhere."""
    releases = [serving(federation)]
    for i in range(2, count + 1):
        releases.append(federation.publish(f"{i + 2}.0.0", parents=(releases[-1],)))
        federation.roll_out(f"r-{i}", i, releases[-1], releases[-2], **FIRST)
        federation.run(30.0)
    return releases


def test_who_runs_it_is_said_with_when_it_was_seen_last() -> None:
    federation = Federation()
    (release,) = chain(federation, 1)
    found = uses(federation, release)
    assert [r["region"] for r in found["regions"]] == ["ap-south", "eu-north", "us-east"]
    assert all(r["heard_s"] < 15 for r in found["regions"])
    assert [(n["node"], n["runs"]) for n in found["nodes"]] == [
        ("edge-eu-north-1", True),
        ("edge-eu-north-2", True),
    ]
    for edge in federation.edges[Segment("eu-north")]:
        edge.silent = True
    federation.run(20.0)
    found = uses(federation, release)
    assert all(not n["online"] and n["seen_s"] >= 20 for n in found["nodes"])


def test_what_serves_and_what_is_the_way_back_cannot_be_retired() -> None:
    federation = Federation()
    oldest, older, newest = chain(federation, 3)
    assert uses(federation, newest)["blocks"] == [
        "ap-south runs it",
        "eu-north runs it",
        "us-east runs it",
    ]
    assert uses(federation, older)["blocks"][0] == "ap-south would fall back to it from 5.0.0"
    for release in (older, newest):
        with pytest.raises(Conflict, match="cannot be retired"):
            retire(federation, release)
    retire(federation, newest, "deprecated")
    assert uses(federation, oldest)["blocks"] == []
    retire(federation, oldest)
    views = [node.catalog.views[MODEL] for node in federation.nodes.values()]
    assert [[r.retired for r in view.releases] for view in views] == [
        ["retired", "", "deprecated"]
    ] * 3
    with pytest.raises(Conflict, match="retired already"):
        retire(federation, oldest, "deprecated")


def test_a_rollout_under_way_is_in_the_way() -> None:
    federation = Federation()
    (first,) = chain(federation, 1)
    second = federation.publish("4.0.0", parents=(first,))
    federation.roll_out("r-2", 2, second, first, **CAREFUL)
    assert uses(federation, second)["blocks"] == ["rollout r-2 is under way with it"]
    with pytest.raises(Conflict, match="under way"):
        retire(federation, second)


def test_a_killed_release_has_to_stay_known() -> None:
    federation = Federation()
    serving(federation)
    bad = federation.publish("4.0.0")
    signed = federation.control("kill", release=str(bad))
    federation.propose("us-east", Kill(MODEL, bad, "wrong"), attestations=[signed])
    for phase in ("deprecated", "retired"):
        with pytest.raises(Conflict, match="is killed"):
            retire(federation, bad, phase)


def test_nobody_starts_what_is_retired() -> None:
    federation = Federation()
    (first,) = chain(federation, 1)
    second = federation.publish("4.0.0", parents=(first,))
    retire(federation, second)
    node = federation.node("us-east")
    (objection, *_) = starting.objections(node, plan_of(federation, second, first))
    assert "4.0.0 is retired" in objection.message
    assert "publish a new release" in objection.fix
    assert "hold" not in objection.fix, "no hold stands in its way"


def test_two_regions_that_pass_each_other_by_leave_the_rollout_where_it_stands() -> None:
    """us-east signs the plan while eu-north, cut off from it, retires the release."""
    federation = Federation()
    (first,) = chain(federation, 1)
    second = federation.publish("4.0.0", parents=(first,))
    federation.cut = {Segment("us-east")}
    signed = federation.control("retire", release=str(second), phase="retired")
    asked = {"model": MODEL, "release": str(second), "phase": "retired", "reason": "old"}
    lifecycle.retire(federation.node("us-east"), {**asked, "envelope": signed.decode()})
    federation.roll_out("r-2", 2, second, first, **CAREFUL)
    federation.run(1.0)  # not long enough for eu-north to prove it: what is promoted goes on
    federation.cut = set()
    heal_links(federation)
    federation.run(60.0)
    for region in ("eu-north", "us-east", "ap-south"):
        view = federation.node(region).catalog.views[MODEL]
        active = view.active(region)
        assert active is not None
        assert active.release == first
    eu = federation.node("eu-north")
    rollout = eu.catalog.views[MODEL].rollouts[-1]
    execution = eu.region.execution(eu.catalog.views[MODEL], rollout)
    assert execution is not None
    assert (execution.progress.state, execution.progress.reason) == ("held", "retired")


def test_retiring_needs_a_release_manager() -> None:
    federation = Federation()
    (first,) = chain(federation, 1)
    spare = federation.publish("4.0.0", parents=(first,))
    asked = {"model": MODEL, "release": str(spare), "reason": "old", "envelope": "{}"}
    with pytest.raises(NotPermitted, match="no release-manager signed it"):
        lifecycle.retire(federation.node("eu-north"), {**asked, "phase": "retired"})
    with pytest.raises(InvalidSpec, match="is no phase"):
        lifecycle.retire(federation.node("eu-north"), {**asked, "phase": "buried"})


def test_status_says_that_what_serves_is_deprecated() -> None:
    federation = Federation()
    (first,) = chain(federation, 1)
    retire(federation, first, "deprecated")
    (model,) = QUERIES["status"](federation.node("eu-north"), federation.clock, {})["models"]
    row = next(r for r in model["regions"] if r["region"] == "eu-north")
    assert (row["state"], row["reason"]) == ("healthy", "3.0.0 is deprecated: old")


def heal_links(federation: Federation) -> None:
    for i, a in enumerate(federation.ids):
        for j, b in enumerate(federation.ids):
            if i != j:
                federation.nodes[a].link_down(b)
                federation.nodes[a].link_up(b, b"spki%d" % j, federation.clock)


def plan_of(federation: Federation, release: Digest, before: Digest) -> Any:
    head = {"apiVersion": "hanse.dev/v1alpha1", "kind": "Rollout"}
    metadata = {"name": "r-2", "model": MODEL, "generation": 2}
    spec = {"release": str(release), "predecessor": str(before), **CAREFUL}
    return parse_spec({**head, "metadata": metadata, "spec": spec})
