"""What a daemon answers to questions: the shapes, and what a person reads from them at night."""

from __future__ import annotations

import contextlib
import json
import types
import typing
from dataclasses import replace
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hand_federation import CAREFUL, MODEL, Federation, serving

from hanse.cli import heal_shapes, rollout_shapes, shapes
from hanse.core.catalog.manifest import DataSet
from hanse.core.errors import Conflict, HanseError, InvalidSpec, NotFound
from hanse.core.events import Hold, Kill, Promote, Rollback, RolloutControl, RolloutReport
from hanse.core.ids import Digest, Segment
from hanse.core.telemetry import Counts, Pairs
from hanse.daemon.queries import QUERIES
from hanse.daemon.queries.states import WORST_FIRST

EU, US, AP = Segment("eu-north"), Segment("us-east"), Segment("ap-south")
HARM = Pairs(agree=10, both_right=15, only_old_right=5, only_new_right=1)
SHAPES: dict[str, Any] = {
    "status": shapes.Status,
    "counters": shapes.Counters,
    "release.list": shapes.ReleaseList,
    "release.show": shapes.ReleaseShown,
    "release.prepare": shapes.Prepared,
    "release.uses": heal_shapes.Uses,
    "heal.status": heal_shapes.HealStatus,
    "rollout.prepare": shapes.RolloutPrepared,
    "rollout.plan": rollout_shapes.RolloutPlanned,
    "rollout.status": shapes.RolloutStatuses,
    "rollout.explain": rollout_shapes.RolloutExplained,
    "rollout.awaiting": shapes.Approvable,
    "holds": shapes.Holds,
    "lineage": shapes.Lineage,
    "why": shapes.Why,
}


NAMING = ("release.show", "release.uses", "rollout.prepare")


def fits(value: Any, shape: Any, path: str) -> None:
    """Exactly the keys and kinds of values that `shape` names, all the way down."""
    if typing.is_typeddict(shape):
        hints = get_type_hints(shape)
        assert isinstance(value, dict), path
        assert value.keys() == hints.keys(), path
        for key, inner in hints.items():
            fits(value[key], inner, f"{path}.{key}")
    elif get_origin(shape) is list:
        assert type(value) is list, path
        for i, item in enumerate(value):
            fits(item, get_args(shape)[0], f"{path}[{i}]")
    elif get_origin(shape) is dict:
        assert type(value) is dict, path
        for key, item in value.items():
            fits(key, str, path)
            fits(item, get_args(shape)[1], f"{path}[{key}]")
    elif get_origin(shape) in (types.UnionType, typing.Union):
        if value is not None:
            fits(value, get_args(shape)[0], path)
    else:
        kinds = (int, float) if shape is float else (shape,)
        assert type(value) in kinds, f"{path} is {type(value)}, not {shape}"


def ask(federation: Federation, verb: str, asker: str = EU, **args: Any) -> Any:
    """Every answer of every test must fit its shape and be JSON."""
    answer = QUERIES[verb](federation.node(asker), federation.clock, args)
    fits(answer, SHAPES[verb], verb)
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    return answer


def model(federation: Federation, region: str = EU) -> Any:
    (found,) = ask(federation, "status", region)["models"]
    return found


def row(federation: Federation, about: str, region: str = EU) -> Any:
    return next(r for r in model(federation, region)["regions"] if r["region"] == about)


@pytest.fixture
def town() -> Federation:
    federation = Federation()
    serving(federation)
    return federation


def first(federation: Federation) -> Digest:
    return federation.node(EU).catalog.views[MODEL].releases[0].digest


def start(federation: Federation, pairs: Pairs | None = None) -> Digest:
    """A rollout of 4.0.0, which the edge nodes of eu-north find as good as `pairs` says."""
    old = first(federation)
    new = federation.publish("4.0.0", parents=(old,))
    for edge in federation.edges[EU]:
        edge.traffic.pairs = pairs or edge.traffic.pairs
    federation.roll_out("r-2", 2, new, old, **CAREFUL)
    return new


# -- shapes and names ----------------------------------------------------------


def test_states_are_ranked_as_the_shapes_say() -> None:
    assert WORST_FIRST == shapes.REGION_STATES


def test_an_empty_daemon_answers_every_question_about_everything() -> None:
    federation = Federation()
    assert ask(federation, "status")["models"] == []
    assert ask(federation, "release.list") == {"releases": []}
    assert ask(federation, "rollout.status") == {"rollouts": []}
    assert ask(federation, "release.prepare", model="new-one") == {"counter": 1}


@pytest.mark.parametrize(
    ("verb", "args", "fix"),
    [
        ("status", {"model": "ocr-rek"}, "did you mean ocr-rec?"),
        ("release.show", {"model": MODEL, "version": "3.0.1"}, "did you mean 3.0.0?"),
        ("release.show", {"model": MODEL, "release": "sha256:00"}, "sha256:"),
        ("rollout.prepare", {"model": MODEL, "version": "zzz"}, "known: 3.0.0"),
        ("rollout.status", {"rollout": "r-11"}, "did you mean r-1?"),
        ("lineage", {"model": MODEL, "version": "30.0"}, "did you mean 3.0.0?"),
        ("holds", {"model": "x"}, "known: ocr-rec"),
        ("why", {"model": MODEL, "region": "eu-nort"}, "did you mean eu-north?"),
    ],
)
def test_an_unknown_name_is_answered_with_the_near_ones(
    town: Federation, verb: str, args: dict[str, str], fix: str
) -> None:
    with pytest.raises(NotFound) as caught:
        ask(town, verb, **args)
    assert fix in caught.value.fix


@pytest.mark.parametrize("verb", ["release.show", "release.prepare", "holds", "lineage", "why"])
def test_a_question_without_its_model_or_with_a_strange_field_is_refused(
    town: Federation, verb: str
) -> None:
    with pytest.raises(HanseError):
        ask(town, verb)
    with pytest.raises(InvalidSpec):
        ask(town, verb, model=MODEL, modle="x")


# -- releases and lineage ------------------------------------------------------


def test_a_release_tells_who_signed_it_and_the_bytes_that_were_signed(town: Federation) -> None:
    shown = ask(town, "release.show", US, model=MODEL, version="3.0.0")
    assert Digest.of(shown["manifest"].encode()) == Digest.parse(shown["release"])
    assert json.loads(shown["envelope"])["signatures"]
    assert (shown["by"], shown["recorded_by"], shown["local"]) == ("anna", EU, True)
    assert shown["active"] == sorted([EU, US, AP]) == shown["proven"]
    assert (shown["state"], shown["size"], shown["counter"]) == ("proven", 1000, 1)
    assert ask(town, "release.prepare", model=MODEL) == {"counter": 2}


def test_a_version_that_names_two_releases_is_a_conflict_that_lists_both(town: Federation) -> None:
    one = town.publish("4.0.0", region=EU)
    two = town.publish("4.0.0", region=US, notes="another")
    with pytest.raises(Conflict) as caught:
        ask(town, "release.show", model=MODEL, version="4.0.0")
    assert str(one) in caught.value.fix
    assert str(two) in caught.value.fix
    assert ask(town, "release.show", model=MODEL, release=str(two))["recorded_by"] == US


def test_a_rollout_is_prepared_against_what_most_regions_run(town: Federation) -> None:
    old = first(town)
    new = town.publish("4.0.0", parents=(old,))
    prepared = ask(town, "rollout.prepare", AP, model=MODEL, version="4.0.0")
    assert (prepared["release"], prepared["predecessor"]) == (str(new), str(old))
    assert prepared["generation"] == 2
    assert prepared["regions"] == [EU, US, AP]
    again = ask(town, "rollout.prepare", model=MODEL, release=str(old))
    assert again["predecessor"] is None


def test_lineage_shows_parents_first_unknown_ones_too_and_where_each_runs(
    town: Federation,
) -> None:
    old, lost = first(town), Digest.of(b"never recorded")
    data = (DataSet("scans", None), DataSet("receipts", Digest.of(b"data")))
    mid = town.publish("4.0.0", parents=(old, lost), data=data)
    town.publish("5.0.0", parents=(mid,))
    town.publish("9.0.0")
    found = ask(town, "lineage", model=MODEL, version="4.0.0")
    nodes = {n["release"]: n for n in found["nodes"]}
    order = [n["version"] for n in found["nodes"]]
    assert sorted(order) == ["", "3.0.0", "4.0.0", "5.0.0"]
    assert order.index("4.0.0") == 2
    assert nodes[str(mid)]["training_data"] == ["scans", f"receipts={Digest.of(b'data')}"]
    assert nodes[str(old)]["regions"] == dict.fromkeys([EU, US, AP], "active")
    assert nodes[str(lost)]["by"] == ""
    assert (nodes[str(mid)]["residency"], nodes[str(lost)]["residency"]) == (["*"], [])
    assert {(e["child"], e["parent"]) for e in found["edges"]} >= {(str(mid), str(lost))}
    assert len(ask(town, "lineage", model=MODEL)["nodes"]) == 5


def test_a_parent_comes_first_even_if_it_was_counted_later(town: Federation) -> None:
    town.cut = {US}
    town.publish("4.0.0", region=US)
    parent = town.publish("4.1.0", region=US)
    town.publish("5.0.0", parents=(parent,), region=EU)
    town.cut = set()
    town.run(30.0)
    order = [n["version"] for n in ask(town, "lineage", model=MODEL)["nodes"]]
    assert sorted(order) == ["3.0.0", "4.0.0", "4.1.0", "5.0.0"]
    assert order.index("4.1.0") < order.index("5.0.0")


# -- status --------------------------------------------------------------------


def test_a_healthy_model_shows_its_nodes_its_rate_and_how_fresh_that_is(town: Federation) -> None:
    found = row(town, EU)
    assert (found["state"], found["active"]["version"]) == ("healthy", "3.0.0")
    assert (found["nodes"]["on_target"], found["nodes"]["of"]) == (2, 2)
    assert found["quality"]["metric"] == "wrong-rate"
    assert found["quality"]["bad"] * 10 == found["quality"]["n"] > 0
    assert found["heard_s"] == 0.0
    elsewhere = row(town, US)
    assert elsewhere["nodes"] is None
    assert elsewhere["heard_s"] > 0
    status = ask(town, "status")
    assert (status["peers"]["connected"], status["peers"]["of"]) == (2, 2)
    assert status["daemon"]["state_digest"] == ask(town, "status", US)["daemon"]["state_digest"]
    said = {each["region"]: (each["nodes_online"], each["differs"]) for each in status["members"]}
    assert said == {EU: (2, False), US: (2, False), AP: (2, False)}
    assert status["daemon"]["waits"] == []
    assert model(town)["sentence"].startswith("ocr-rec 3.0.0 HEALTHY ap-south eu-north us-east |")


def test_a_rate_is_the_highest_of_those_that_were_counted(town: Federation) -> None:
    for edge in town.edges[EU]:
        edge.traffic.stable = Counts(requests=100, errors=30, slow=10)
    town.run(301.0)
    found = row(town, EU)["quality"]
    assert (found["metric"], found["bad"] / found["n"]) == ("error-rate", 0.3)
    for edge in town.edges[EU]:
        edge.silent = True
    town.run(20.0)
    assert row(town, EU)["quality"] == {**found, "age_s": 20.0}


def test_an_offline_node_is_named_and_counted_neither_way(town: Federation) -> None:
    town.edges[EU][1].silent = True
    town.run(1.0)
    nodes = row(town, EU)["nodes"]
    assert (nodes["on_target"], nodes["of"], nodes["offline"]) == (1, 1, 1)
    assert nodes["offline_names"] == ["edge-eu-north-2"]
    assert row(town, EU)["state"] == "healthy"


def test_a_node_that_runs_something_else_degrades_its_region(town: Federation) -> None:
    town.edges[EU][0].stuck = Digest.of(b"something else")
    town.run(1.0)
    found = row(town, EU)
    assert found["state"] == "degraded"
    assert found["reason"] == "1/2 nodes run 3.0.0; not yet: edge-eu-north-1"


def test_a_node_that_cannot_run_the_active_release_is_a_failure(town: Federation) -> None:
    town.edges[EU][0].failed = {first(town): "golden inputs differ\x1b[2J"}
    town.run(1.0)
    found = row(town, EU)
    assert found["state"] == "failing"
    assert found["reason"] == "edge-eu-north-1: golden inputs differ [2J"
    assert "3.0.0 FAILING eu-north" in model(town)["sentence"]


def test_a_silent_region_becomes_unknown_and_its_age_goes_on(town: Federation) -> None:
    town.cut = {AP}
    town.run(310.0)
    found = row(town, AP)
    assert found["state"] == "unknown"
    assert 300 < found["heard_s"] < 330
    assert found["active"]["version"] == "3.0.0"
    town.node(EU).link_down(town.node(AP).me.member)
    assert row(town, AP)["heard_s"] == found["heard_s"]
    assert ask(town, "status")["peers"]["oldest_s"] == found["heard_s"]


def test_a_frozen_region_says_so_and_lists_its_hold(town: Federation) -> None:
    ticket = town.propose(EU, Hold(MODEL, EU, None, "INC-341", expires_ms=1_800_000_000_000))
    (hold,) = ask(town, "holds", model=MODEL)["holds"]
    assert (hold["release"], hold["reason"]) == (None, "INC-341")
    assert hold["until_ms"] == 1_800_000_000_000
    assert ticket.event is not None
    assert hold["hold"] == ticket.event.raw.hex()
    assert row(town, EU)["state"] == row(town, EU, US)["state"] == "frozen"
    assert ask(town, "holds", US, model=MODEL) == {"holds": []}


def test_two_activations_in_one_region_are_shown_as_a_conflict(town: Federation) -> None:
    view = town.node(EU).catalog.views[MODEL]
    release, plan = view.releases[0], view.rollouts[0]
    size, counter = release.manifest_size, release.counter
    town.propose(
        EU, Promote(MODEL, EU, release.digest, size, counter, plan.rollout, plan.generation)
    )
    found = row(town, EU, US)
    assert found["state"] == "conflict"
    assert "two activations" in found["reason"]
    assert model(town, US)["state"] == "conflict"


# -- a rollout, from start to either end ---------------------------------------


def test_a_running_rollout_shows_each_region_with_its_step_and_counts(town: Federation) -> None:
    start(town)
    town.run(1.5)
    (found,) = ask(town, "rollout.status")["rollouts"]
    assert (found["state"], found["current"]) == ("running", True)
    assert (found["release"]["version"], found["predecessor"]["version"]) == ("4.0.0", "3.0.0")
    pilot, wave, _ = found["regions"]
    assert (pilot["state"], pilot["step"]) == ("shadowing", "1/3 shadow 50%")
    assert (pilot["verdict"], pilot["nodes"]["cached"]) == ("inconclusive", 2)
    assert pilot["metrics"][0]["n_trial"] == pilot["metrics"][0]["n_stable"] > 0
    assert (wave["state"], wave["weight"], wave["nodes"]) == ("gated", None, None)
    here = model(town)
    assert here["state"] == "rolling-out"
    assert here["sentence"].endswith("last good 3.0.0, cached on 2/2 nodes")
    lineage = ask(town, "lineage", model=MODEL, version="4.0.0")["nodes"][-1]
    assert lineage["regions"] == {EU: "canary"}


def test_a_rollout_that_went_well_is_healthy_everywhere(town: Federation) -> None:
    start(town)
    town.run(120.0)
    (found,) = ask(town, "rollout.status", US)["rollouts"]
    assert found["state"] == "healthy"
    assert {r["verdict"] for r in found["regions"]} == {"healthy"}
    here = model(town)
    assert (here["state"], here["last_good"]["version"]) == ("healthy", "3.0.0")
    assert row(town, EU)["active"]["version"] == "4.0.0"
    old = ask(town, "rollout.status", rollout="r-1")["rollouts"]
    assert [(r["rollout"], r["current"], r["state"]) for r in old] == [("r-1", False, "healthy")]


def test_why_begins_with_the_harm_its_counts_and_what_serves_now(town: Federation) -> None:
    new = start(town, HARM)
    town.run(8.0)
    answer = ask(town, "why", model=MODEL)
    metric = answer["metrics"][0]
    n, old_right, new_right = (metric[k] for k in ("n_trial", "bad_trial", "bad_stable"))
    assert answer["sentences"][0] == (
        "4.0.0 was rolled back in eu-north by the region itself: accuracy-paired shows harm after "
        f"{n} labelled pairs ({old_right} only the old one right, {new_right} only the new); "
        "3.0.0 serves again on 2/2 nodes"
    )
    assert metric["harm"] >= metric["needed"]
    assert any("signed by anna" in s for s in answer["sentences"])
    assert (answer["release"], answer["region"]) == (str(new), EU)
    said = [m["what"] for m in answer["timeline"]]
    assert said[:2] == [
        "4.0.0 recorded, signed by anna",
        "r-2 (generation 2) of 4.0.0 started, signed by anna",
    ]
    assert said[-1].startswith("r-2 is rolledBack: worse: accuracy-paired")
    times = [m["at_ms"] for m in answer["timeline"]]
    assert times == sorted(times)


def test_another_region_gives_the_same_reason_from_what_was_signed(town: Federation) -> None:
    start(town, HARM)
    town.run(8.0)
    here, there = (ask(town, "why", r, model=MODEL, version="4.0.0") for r in (EU, AP))
    assert there["region"] == EU
    assert there["metrics"] == here["metrics"]
    assert there["sentences"][0].endswith("; 3.0.0 is active there")
    assert any("its signed report" in s for s in there["sentences"])
    held = ask(town, "why", AP, model=MODEL, version="4.0.0", region=US)["sentences"][0]
    assert held == "4.0.0 is held in us-east under r-2: held by eu-north"


def test_harm_in_one_region_is_rolled_back_there_and_held_elsewhere(town: Federation) -> None:
    start(town, HARM)
    town.run(8.0)
    (found,) = ask(town, "rollout.status")["rollouts"]
    assert found["state"] == "rolled-back"
    assert [r["state"] for r in found["regions"]] == ["rolledBack", "held", "held"]
    assert found["regions"][0]["verdict"] == "harm"
    assert [r["state"] for r in model(town)["regions"]] == ["held", "held", "rolled-back"]
    assert row(town, US)["rollout"] == "r-2"
    assert row(town, EU)["rollout"] is None
    (hold,) = ask(town, "holds", model=MODEL)["holds"]
    assert hold["release"]["version"] == "4.0.0"
    assert model(town)["sentence"].endswith("| 3.0.0 serves in eu-north on 2/2 nodes")
    (release, _) = ask(town, "release.list", model=MODEL)["releases"]
    assert (release["state"], release["held"]) == ("held", [EU])


def test_a_person_who_rolled_back_is_quoted(town: Federation) -> None:
    new, old = start(town), first(town)
    town.run(120.0)
    active = town.node(EU).catalog.views[MODEL].active(EU)
    assert active is not None
    town.propose(EU, Hold(MODEL, EU, new, "INC-341 (by anna)"))
    town.propose(EU, Rollback(MODEL, EU, active.id, new, old, "INC-341 (by anna)"))
    found = row(town, EU)
    assert (found["state"], found["active"]["version"]) == ("rolling-back", "3.0.0")
    assert found["reason"].startswith("0/2 nodes run 3.0.0")
    town.run(1.0)
    assert row(town, EU)["state"] == "rolled-back"
    assert row(town, US)["state"] == "held"  # it serves what eu-north holds
    answer = ask(town, "why", model=MODEL)
    assert answer["sentences"][0] == (
        "4.0.0 was rolled back in eu-north by an operator: INC-341 (by anna); "
        "3.0.0 serves again on 2/2 nodes"
    )
    assert answer["timeline"][-1]["what"] == "rolled back from 4.0.0 to 3.0.0: INC-341 (by anna)"


def test_an_aborted_and_a_paused_rollout_are_told_apart(town: Federation) -> None:
    start(town)
    town.run(1.5)
    town.propose(EU, RolloutControl(MODEL, Segment("r-2"), 2, "pause", reason="lunch"))
    town.run(1.0)
    (found,) = ask(town, "rollout.status")["rollouts"]
    assert found["state"] == "paused"
    assert (row(town, EU)["state"], row(town, EU)["rollout"]) == ("held", "r-2")
    abort = town.control("abort", rollout="r-2", region="")
    body = RolloutControl(MODEL, Segment("r-2"), 2, "abort", reason="not today")
    town.propose(EU, body, attestations=[abort])
    town.run(2.0)
    (found,) = ask(town, "rollout.status")["rollouts"]
    assert found["state"] == "aborted"
    first_sentence = ask(town, "why", model=MODEL, version="4.0.0")["sentences"][0]
    assert "rolled back in eu-north by an operator: not today" in first_sentence


def test_a_timeline_holds_its_own_rollout_and_no_other_of_the_release(town: Federation) -> None:
    new = start(town)
    town.run(1.5)
    town.roll_out("r-3", 3, new, first(town), **CAREFUL)
    town.run(1.5)
    (newer,) = ask(town, "rollout.status")["rollouts"]
    (older,) = ask(town, "rollout.status", rollout="r-2")["rollouts"]
    assert (newer["rollout"], older["state"]) == ("r-3", "superseded")
    told = [[m["what"] for m in found["timeline"]] for found in (newer, older)]
    assert told[0][0] == told[1][0] == "4.0.0 recorded, signed by anna"
    assert not any("r-2" in text for text in told[0])
    assert not any("r-3" in text for text in told[1])
    every = [m["what"] for m in ask(town, "why", model=MODEL, version="4.0.0")["timeline"]]
    assert len(every) > max(map(len, told))


def test_a_killed_release_names_who_killed_it(town: Federation) -> None:
    new = start(town)
    town.run(120.0)
    town.propose(
        US, Kill(MODEL, new, "licence"), attestations=[town.control("kill", release=str(new))]
    )
    town.run(2.0)
    answer = ask(town, "why", model=MODEL)
    assert answer["sentences"][0].startswith("4.0.0 was killed by anna: licence; ")
    assert ask(town, "release.show", model=MODEL, version="4.0.0")["state"] == "killed"


def test_why_of_a_release_that_did_nothing_wrong_says_where_it_serves(town: Federation) -> None:
    answer = ask(town, "why", model=MODEL)
    assert answer["sentences"][0] == (
        "3.0.0 serves in eu-north since its promote; 3.0.0 serves on 2/2 nodes"
    )


def test_words_that_another_region_made_up_do_no_harm(town: Federation) -> None:
    new = start(town)
    town.run(1.0)
    view = town.node(US).catalog.views[MODEL]
    plan = view.rollouts[-1]
    strange = RolloutReport(
        MODEL, plan.rollout, 2, new, US, "dancing", 7, 99, "splendid", "a\x1b[31mb: c", b"{]"
    )
    town.propose(US, strange)
    (found,) = ask(town, "rollout.status", AP)["rollouts"]
    there = next(r for r in found["regions"] if r["region"] == US)
    assert (there["state"], there["step"], there["metrics"]) == ("dancing", "", [])
    why = ask(town, "why", AP, model=MODEL, region=US)
    assert "u001b" not in json.dumps([found, why, model(town, AP)])
    assert row(town, US, AP)["state"] == "rolling-out"


UNSPECIFIC = ("status", "counters", "release.list", "rollout.status")


def test_asking_changes_nothing(town: Federation) -> None:
    start(town, HARM)
    town.run(1.5)
    node = town.node(EU)
    before = (node.catalog.state_digest, node.book.digest, len(node.fleet.nodes))
    place = {k: replace(e.progress) for k, e in node.region.executions.items()}
    for verb in QUERIES:
        more = {} if verb in UNSPECIFIC else {"model": MODEL}
        version = {"version": "4.0.0"} if verb in NAMING else {}
        if verb == "rollout.explain":
            more = {"rollout": "r-2"}
        if verb == "rollout.plan":
            more = {"spec": node.catalog.views[MODEL].rollouts[-1].spec.decode()}
        with contextlib.suppress(NotFound):  # nothing may wait, but nobody may change
            ask(town, verb, **more, **version)
    assert before == (node.catalog.state_digest, node.book.digest, len(node.fleet.nodes))
    assert place == {k: e.progress for k, e in node.region.executions.items()}
