"""What a plan would do, before anything happens; and which plans nobody may start."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hand_federation import CAREFUL, MODEL, Federation, serving
from memory_blobs import MemoryBlobs
from test_queries import AP, EU, US, ask, first, start

from hanse.core.errors import Conflict, InvalidSpec, NotFound
from hanse.core.events import Hold
from hanse.core.ids import Digest
from hanse.core.reading import canonical_json
from hanse.core.rollout.spec import canonical, parse_spec, salt_of
from hanse.core.routing import takes_all
from hanse.core.trust import statements
from hanse.daemon.queries import planning
from hanse.daemon.starting import start_rollout
from hanse.parts.recipe import Part, Recipe


@pytest.fixture
def town() -> Federation:
    federation = Federation()
    serving(federation)
    return federation


def written(release: Digest, old: Digest | None, generation: int = 2, **body: Any) -> str:
    document = {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": f"r-{generation}", "model": MODEL, "generation": generation},
        "spec": {"release": str(release), "predecessor": str(old) if old else None}
        | CAREFUL
        | body,
    }
    return canonical(parse_spec(document)).decode()


def begin(federation: Federation, spec: str) -> None:
    statement = statements.rollout_statement(MODEL, spec.encode())
    envelope = statements.sign_control(statement, [federation.person]).decode()
    start_rollout(federation.node(EU), {"spec": spec, "envelope": envelope})
    federation.settle()


def test_a_plan_says_what_would_run_where_and_when(town: Federation) -> None:
    new = town.publish("4.0.0", parents=(first(town),))
    found = ask(town, "rollout.plan", spec=written(new, first(town)))
    assert found["objections"] == []
    assert [stage["starts"] for stage in found["stages"]] == [
        "at once",
        "once 1 of 1 regions of pilot are healthy and heard",
    ]
    steps = ["shadow 50% for 2s", "analysis accuracy", "setWeight 100"]
    assert found["stages"][0]["steps"] == steps
    assert [(r["region"], r["active"]["version"]) for r in found["regions"]] == [
        (EU, "3.0.0"),
        (US, "3.0.0"),
        (AP, "3.0.0"),
    ]
    assert [each["version"] for each in found["keeps"]] == ["3.0.0"]
    assert found["regions"][0]["download_bytes"] == 0  # it was published here
    assert found["regions"][1]["download_bytes"] is None


def test_a_plan_counts_the_bytes_that_each_node_must_fetch(town: Federation) -> None:
    new = town.publish("4.0.0", parents=(first(town),))
    (group,) = ask(town, "rollout.plan", spec=written(new, first(town)))["nodes"]
    assert group["variant"] == "onnx"
    assert group["download_bytes"] == 1000  # the target is on their disks
    assert (group["count"], group["online"]) == (2, 2)
    again = town.publish("3.0", notes=".0", parents=(first(town),))  # of the same file
    (group,) = ask(town, "rollout.plan", spec=written(again, first(town)))["nodes"]
    assert group["download_bytes"] == 0


def test_a_plan_says_what_travels_at_most_where_recipes_are_known(
    town: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = town.publish("4.0.0", parents=(first(town),))

    def planned() -> Any:
        (group,) = ask(town, "rollout.plan", spec=written(new, first(town)))["nodes"]
        return group

    (small,) = planned()["files"]
    assert small["like"] is None  # it comes whole
    monkeypatch.setattr(planning, "STREAMED_BYTES_MAX", 10)
    group = planned()
    (file,) = group["files"]
    digests = [Digest.parse(file[key]) for key in ("digest", "like")]
    same, other = (Part(Digest.of(raw), 500) for raw in (b"same", b"other"))
    recipes = {
        digests[0]: Recipe(digests[0], 1000, (same, other)),
        digests[1]: Recipe(digests[1], 500, (same,)),
    }
    planning.weigh([group], recipes.get)
    assert (group["travels_bytes"], group["download_bytes"]) == (500, 1000)
    for known in digests:
        group = planned()
        planning.weigh([group], {known: recipes[known]}.get)
        assert group["travels_bytes"] == 1000
    group = planned()
    planning.weigh([group], MemoryBlobs().recipe)  # NotFound
    assert group["travels_bytes"] == 1000


def test_a_plan_names_the_nodes_that_cannot_run_it_and_why(town: Federation) -> None:
    town.edges[EU][0].facts = {"ort": "1.32.0"}
    town.edges[EU][1].facts = {"ort": "1.10.0"}
    town.run(1)
    new = town.publish("4.0.0", parents=(first(town),), requires={"ort": ">=1.17,<2"})
    able, unable = ask(town, "rollout.plan", spec=written(new, first(town)))["nodes"]
    assert (able["variant"], able["names"]) == ("onnx", ["edge-eu-north-1"])
    assert (unable["variant"], unable["names"]) == (None, ["edge-eu-north-2"])
    assert unable["why"] == "onnx needs ort >=1.17,<2, has 1.10.0"
    assert unable["download_bytes"] == 0


def test_a_node_that_cannot_run_it_is_in_no_gate_and_no_denominator(town: Federation) -> None:
    """Half of the nodes cannot: with `failing: 10%` their refusals would roll it back."""
    old, keeps = first(town), town.edges[EU][1]
    keeps.facts = {"ort": "1.10.0"}
    town.edges[EU][0].facts = {"ort": "1.32.0"}
    for region in (US, AP):
        for edge in town.edges[region]:
            edge.facts = {"ort": "1.32.0"}
    town.run(1)
    new = town.publish("4.0.0", parents=(old,), requires={"ort": ">=1.17"})
    keeps.failed, keeps.stuck = {new: "cannot run it"}, old
    town.roll_out("r-2", 2, new, old, **CAREFUL)
    town.run(60)
    status = ask(town, "rollout.status")["rollouts"][0]
    assert status["state"] == "healthy"
    nodes = ask(town, "status")["models"][0]["regions"]
    mine = next(r for r in nodes if r["region"] == EU)
    assert (mine["state"], mine["nodes"]["on_target"]) == ("healthy", 1)
    assert (mine["nodes"]["of"], mine["nodes"]["unable"]) == (1, 1)


def test_a_plan_for_another_predecessor_than_what_serves_is_a_fork(town: Federation) -> None:
    old = first(town)
    new, other = town.publish("4.0.0", parents=(old,)), town.publish("5.0.0", parents=(old,))
    for wrong in (other, None):
        body = {"templates": {"accuracy": CAREFUL["templates"]["accuracy"]}}
        if wrong is None:
            one_arm = {"name": "e", "test": "one-arm", "event": "error", "slo": 0.05}
            metrics = [one_arm | {"provenBelow": 0.05}]
            stage = {"name": "all", "regions": ["eu-north"], "steps": FIRST_STEPS}
            body = {
                "templates": {"accuracy": {"alpha": 0.01, "metrics": metrics}},
                "stages": [stage],
            }
        with pytest.raises(Conflict, match="does not serve in") as caught:
            begin(town, written(new, wrong, **body))
        assert "run 3.0.0" in caught.value.message
    begin(town, written(new, old))


FIRST_STEPS = [{"setWeight": 50}, {"analysis": {"templates": ["accuracy"]}}, {"setWeight": 100}]


def test_cancelling_a_rollout_has_to_be_said_in_the_plan(town: Federation) -> None:
    """Invariant 20: what is cancelled in its canary leaves stable and target as they were."""
    old, trial = first(town), start(town)
    town.run(2)
    before = ask(town, "status")["models"][0]["last_good"]
    newer = town.publish("5.0.0", parents=(old,))
    prepared = ask(town, "rollout.prepare", model=MODEL, version="5.0.0")
    assert (prepared["under_way"], prepared["predecessor"]) == ("r-2", str(old))
    with pytest.raises(Conflict, match="r-2 is under way") as caught:
        begin(town, written(newer, old, 3))
    assert "supersedes: [r-2]" in caught.value.fix
    assert any(
        "r-2" in o for o in ask(town, "rollout.plan", spec=written(newer, old, 3))["objections"]
    )
    with pytest.raises(NotFound, match="no rollout r-22"):
        begin(town, written(newer, old, 3, supersedes=["r-22", "r-2"]))
    begin(town, written(newer, old, 3, supersedes=["r-2"]))
    town.run(1)
    assert ask(town, "rollout.status", rollout="r-2")["rollouts"][0]["state"] == "superseded"
    assert town.node(EU).catalog.views[MODEL].active(EU).release == old
    assert ask(town, "status")["models"][0]["last_good"] == before
    assert trial not in {a.release for a in town.node(EU).catalog.views[MODEL].heads}


def test_a_rollout_that_is_over_or_stuck_need_not_be_named(town: Federation) -> None:
    old, bad = first(town), start(town)
    town.propose(EU, Hold(MODEL, EU, bad, "bad"))
    town.run(1)
    newer = town.publish("5.0.0", parents=(old,))
    begin(town, written(newer, old, 3))


def test_planning_changes_nothing_and_reads_only_what_is_canonical(town: Federation) -> None:
    new = town.publish("4.0.0", parents=(first(town),))
    before = town.node(EU).catalog.state_digest
    ask(town, "rollout.plan", spec=written(new, first(town)))
    assert town.node(EU).catalog.state_digest == before
    with pytest.raises(InvalidSpec):
        ask(town, "rollout.plan", spec=canonical_json({"kind": "Rollout"}).decode())


def test_labels_that_have_changed_since_the_plan_was_made_stop_its_start() -> None:
    labels = {EU: {"tier": "pilot"}, US: {"tier": "standard"}, AP: {"tier": "standard"}}
    town = Federation(labels=labels)
    serving(town)
    new = town.publish("4.0.0", parents=(first(town),))
    stages = [dict(stage) for stage in CAREFUL["stages"]]
    stages[1]["regions"] = {"matchLabels": {"tier": "standard"}, "maxParallel": 1}

    def made(version: int) -> str:
        document = json.loads(written(new, first(town)))
        document["metadata"]["trustVersion"] = version
        document["spec"]["stages"] = stages
        return canonical(parse_spec(document)).decode()

    found = ask(town, "rollout.plan", spec=made(1))
    assert [stage["regions"] for stage in found["stages"]] == [[EU], [AP, US]]
    assert found["stages"][1]["starts"].endswith("heard, at most 1 at a time in this order")
    prepared = ask(town, "rollout.prepare", model=MODEL, version="4.0.0")
    assert (prepared["labels"][US], prepared["trust"]) == ({"tier": "standard"}, 1)
    with pytest.raises(NotFound, match="version 9 has not reached"):
        begin(town, made(9))
    town.relabel({**labels, AP: {"tier": "small"}})
    with pytest.raises(Conflict, match="labels of regions have changed since trust version 1"):
        begin(town, made(1))
    town.relabel({**labels, AP: {"tier": "standard", "zone": "b"}})
    begin(town, made(1))  # they select what they selected then


def test_a_plan_must_not_promise_another_quorum_than_the_trust_file(town: Federation) -> None:
    new = town.publish("4.0.0", parents=(first(town),))
    with pytest.raises(Conflict, match="the trust file says 2"):
        begin(town, written(new, first(town), propagation={"quarantineQuorum": 3}))
    begin(town, written(new, first(town), propagation={"quarantineQuorum": 2}))


def test_a_region_tells_its_nodes_and_a_plan_says_which_share_they_fall_into() -> None:
    town = Federation(edges=12)
    old = serving(town)
    new = town.publish("4.0.0", parents=(old,))
    errors = {"name": "e", "test": "ratio", "event": "error", "margin": 1.5, "provenBelow": "none"}
    budget = {"name": "b", "test": "one-arm", "event": "error", "slo": 0.2, "provenBelow": 0.2}
    steps = [{"setWeight": 30}, {"analysis": {"templates": ["ok"]}}, {"setWeight": 100}]
    body = {
        "nodes": {"assign": "node", "minOnline": 10},
        "stages": [{"name": "all", "regions": [EU], "steps": steps}],
        "templates": {"ok": {"alpha": 0.05, "metrics": [errors, budget]}},
    }
    spec = written(new, old, **body)
    found = ask(town, "rollout.plan", spec=spec)["canaries"]
    node = town.node(EU)
    town.roll_out("r-2", 2, new, old, **body)
    salt = salt_of(node.catalog.views[MODEL].rollouts[-1].plan)
    expected = sum(takes_all(salt, edge.name, 3000) for edge in town.edges[EU])
    assert found == [
        {"weight": 30, "count": expected, "of": 12},
        {"weight": 100, "count": 12, "of": 12},
    ]
    for edge in town.edges[EU][:4]:
        edge.silent = True
    town.run(20)
    assert node.region.duty.told(MODEL).candidate is None
    for edge in town.edges[EU]:
        edge.silent = False
    seen = []
    for _ in range(6):
        town.run(0.5)
        seen.append(node.region.duty.told(MODEL))
    assert 3000 in [told.weight_bp for told in seen if told]
    assert {(told.whole_nodes, told.salt) for told in seen if told and told.weight_bp} == {
        (True, salt)
    }
