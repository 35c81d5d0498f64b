"""Why a rollout stands where it stands: what is missing, on what evidence, what comes next."""

from __future__ import annotations

import pytest
from hand_federation import CAREFUL, MODEL, Federation, serving
from test_queries import AP, EU, HARM, US, ask, first, start

from hanse.core.errors import NotFound
from hanse.core.telemetry import Pairs


@pytest.fixture
def town() -> Federation:
    federation = Federation()
    serving(federation)
    return federation


def test_a_region_says_what_it_waits_for_and_what_comes_next(town: Federation) -> None:
    start(town, Pairs())
    town.run(5)
    pilot, wave, _ = ask(town, "rollout.explain", rollout="r-2")["regions"]
    assert (pilot["region"], pilot["state"], pilot["step"]) == (
        EU,
        "analyzing",
        "2/3 analysis accuracy",
    )
    assert [each["reason"] for each in pilot["missing"]] == ["undecided"]
    proof = pilot["missing"][0]
    assert proof["text"] == "proof of accuracy-paired"
    assert proof["have"] < proof["needed"]
    assert pilot["next"] == {"state": "weighting", "step": "setWeight 100", "with_next_tick": False}
    assert pilot["since_s"] > 0
    assert pilot["rests_on"] == "its own counts"
    assert wave["rests_on"] == "what the region signed last"
    assert (wave["next"], wave["since_s"]) == (None, None)
    assert [(m["reason"], m["have"], m["needed"]) for m in wave["missing"]] == [("gate", 0, 1)]


def test_the_gate_of_a_later_stage_is_what_its_region_lacks(town: Federation) -> None:
    start(town, Pairs())
    town.run(5)
    (wave,) = ask(town, "rollout.explain", US, rollout="r-2", region=US)["regions"]
    assert wave["state"] == "gated"
    assert wave["missing"][0]["text"] == "0 of 1 regions of stage pilot are healthy"
    assert wave["next"] == {"state": "prefetching", "step": "", "with_next_tick": False}


def test_evidence_is_shown_with_e_values_and_intervals(town: Federation) -> None:
    start(town, Pairs(agree=5, both_right=18, only_old_right=1, only_new_right=1))
    town.run(4)
    (pilot,) = ask(town, "rollout.explain", rollout="r-2", region=EU)["regions"]
    (metric,) = pilot["metrics"]
    assert metric["metric"] == "accuracy-paired"
    low, high = metric["interval_trial"]
    assert 0 <= low < metric["bad_trial"] / metric["n_trial"] < high <= 1
    assert metric["interval_stable"] is not None
    assert metric["e_needed"] == pytest.approx(60, rel=0.7)
    assert metric["e_harm"] < metric["e_needed"]


def test_after_a_rollback_the_nodes_that_were_not_reached_are_named(town: Federation) -> None:
    new = start(town)
    town.run(3)
    town.edges[EU][1].silent = True  # with the release in its memory, and its last word an old one
    for edge in town.edges[EU]:
        edge.traffic.pairs = HARM
    town.run(20)
    (pilot,) = ask(town, "rollout.explain", rollout="r-2", region=EU)["regions"]
    assert pilot["state"] == "rolledBack"
    assert [(each["node"], each["online"]) for each in pilot["unreached"]] == [
        ("edge-eu-north-2", False)
    ]
    assert pilot["unreached"][0]["seen_s"] > 10
    assert town.node(EU).catalog.views[MODEL].release(new).held == (EU,)


def test_a_cancelled_rollout_says_by_which(town: Federation) -> None:
    start(town)
    town.run(2)
    newer = town.publish("5.0.0", parents=(first(town),))
    town.roll_out("r-3", 3, newer, first(town), supersedes=["r-2"], **CAREFUL)
    town.run(1)
    found = ask(town, "rollout.explain", rollout="r-2")
    assert found["superseded_by"] == "r-3"
    assert found["regions"][0]["state"] == "superseded"
    assert found["regions"][0]["missing"] == []


def test_unknown_rollouts_and_regions_are_answered_with_near_ones(town: Federation) -> None:
    with pytest.raises(NotFound) as caught:
        ask(town, "rollout.explain", rollout="r-11")
    assert "r-1" in caught.value.fix
    with pytest.raises(NotFound) as caught:
        ask(town, "rollout.explain", rollout="r-1", region="ap-sout")
    assert AP in caught.value.fix
