"""Regions' evidence together: it adds up in any order, and no single region can make it up."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
from federation import key, members, origin, plan
from hand_federation import MODEL, Counts, Federation, serving
from hand_federation import REGIONS as TOWN
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core import limits
from hanse.core.catalog.fold import read_plan
from hanse.core.counters import zeros
from hanse.core.errors import Rejected
from hanse.core.evidence.federation import told
from hanse.core.evidence.grid import POINTS, UNITS_PER_NAT, log_mean
from hanse.core.evidence.ratio import Arms, RatioProcess
from hanse.core.gossip.statuses import EVIDENCE, Statuses
from hanse.core.ids import Digest
from hanse.core.rollout.progress import Progress, begin
from hanse.core.rollout.table import State
from hanse.core.step import PutLocal
from hanse.core.testimony import ALPHA, Share, Weights, read, say, weigh
from hanse.daemon.queries.explaining import rollout_explain

RATIO = {
    "name": "errors",
    "test": "ratio",
    "event": "error",
    "margin": 1.0,
    "provenBelow": 2.0,
}
REGIONS = tuple(f"r{i:02d}" for i in range(20))
PLAN = read_plan(
    plan(
        Digest.of(b"new"),
        2,
        Digest.of(b"old"),
        REGIONS,
        templates={"safety": {"alpha": 0.01, "metrics": [RATIO]}},
    )
)
DIGEST = Digest.of(b"plan")
WEIGHTS = st.tuples(*[st.integers(-(2**40), 2**40)] * POINTS)


def share(weights: Weights | None, rejected: int | None = None) -> Share:
    place = begin(PLAN, REGIONS[0], 0.0)
    earlier = {} if weights is None else {"errors": weights}
    found = {} if rejected is None else {"errors": rejected}
    return Share(PLAN, DIGEST, replace(place, earlier=earlier, rejected=found))


def heard(*weights: Weights) -> dict[str, dict[str, dict[str, Weights]]]:
    return {
        region: {str(DIGEST): {"errors": each}}
        for region, each in zip(REGIONS[1:], weights, strict=False)
    }


# -- what nobody can make up --------------------------------------------------------------


@settings(max_examples=300)
@given(
    st.none() | WEIGHTS,
    st.lists(WEIGHTS, max_size=6),
    st.lists(WEIGHTS, min_size=1, max_size=3),
)
def test_whatever_some_say_the_rest_is_no_more_than_honest_regions_said(
    own: Weights | None, honest: list[Weights], lies: list[Weights]
) -> None:
    """The promise behind `told`: with as many liars as are spared, no evidence is gained."""
    true = told(own, honest, 0)
    assert told(own, honest + lies, len(lies)) <= max(true, -math.log(2)) + 1e-9


@given(st.none() | WEIGHTS, st.lists(WEIGHTS, max_size=8), st.randoms())
def test_the_order_of_regions_changes_no_bit(
    own: Weights | None, others: list[Weights], rng: Random
) -> None:
    shuffled = rng.sample(others, len(others))
    assert told(own, others, 1) == told(own, shuffled, 1)


@given(WEIGHTS, WEIGHTS, WEIGHTS)
def test_weights_of_equal_points_add_up_to_what_one_region_would_have(
    own: Weights, first: Weights, second: Weights
) -> None:
    """The sum of regions is the evidence of all their ticks in one, exactly."""
    joined = RatioProcess(1.0, logw=own).gained(first).gained(second)
    mean = math.fsum(math.exp(log_mean(each)) for each in (own, first, second)) / 3
    expected = max(math.log(mean), joined.log_e()) - math.log(2)
    assert told(own, [first, second], 0) == pytest.approx(expected, abs=1e-9)


def test_one_region_alone_convinces_nobody_else() -> None:
    lie = (2**60,) * POINTS
    quiet = (0,) * POINTS
    assert weigh([share(quiet)], heard(lie), 2) == {}
    assert weigh([share(None)], heard(lie), 2) == {}
    assert weigh([share(quiet)], heard(lie, *[quiet] * 18), 2) == {}
    assert weigh([share(quiet)], heard(lie, lie), 2)[DIGEST]["errors"] > 0, "a quorum may"
    assert weigh([share(quiet)], heard(lie, lie), 3) == {}, "not where three have to say it"


def test_a_region_outside_the_plan_is_not_counted() -> None:
    lie = {str(DIGEST): {"errors": (2**60,) * POINTS}}
    words = dict.fromkeys(("elsewhere", "nowhere", "somewhere"), lie)
    assert weigh([share((0,) * POINTS)], words, 2) == {}


def test_what_was_found_stays_found_with_the_evidence_of_then() -> None:
    then = 30 * UNITS_PER_NAT
    assert weigh([share((0,) * POINTS, then)], {}, 2) == {DIGEST: {"errors": then}}


def test_less_than_the_level_is_nothing() -> None:
    needed = -math.log(ALPHA) + math.log(2)
    near = (math.floor((needed - 0.01) * UNITS_PER_NAT),) * POINTS
    over = (math.floor((needed + 0.01) * UNITS_PER_NAT),) * POINTS
    assert weigh([share(near)], {}, 2) == {}
    assert set(weigh([share(over)], {}, 2)) == {DIGEST}


# -- twenty regions of little traffic -------------------------------------------------------


def _ticks_until(seed: int, rate: float, ticks: int, spare: int = 1) -> int | None:
    """When the last region would be convinced by what the others say: 10 + 90 a tick."""
    rng = Random(seed)
    tests = [RatioProcess(1.0) for _ in REGIONS]
    for n in range(1, ticks + 1):
        for i, test in enumerate(tests):
            bad_t = sum(rng.random() < rate for _ in range(10))
            bad_c = sum(rng.random() < 0.01 for _ in range(90))
            tests[i] = test.observe(Arms(bad_t, bad_c, 10, 90))
        words = heard(*(test.logw for test in tests[1:]))
        if weigh([share(tests[0].logw)], words, spare + 1):
            return n
    return None


def test_twenty_regions_find_together_what_each_would_need_long_for() -> None:
    """rollouts.md 4: a region alone needs some 1,500 canary requests, all together some 100."""
    found = sorted(_ticks_until(seed, 0.03, 60) or 60 for seed in range(20))
    assert found[10] * 10 <= 200, f"canary requests a region: {[n * 10 for n in found]}"
    assert found[-1] < 60


def test_twenty_regions_of_a_good_release_find_nothing() -> None:
    assert [_ticks_until(seed, 0.01, 100) for seed in range(30)] == [None] * 30


# -- words ----------------------------------------------------------------------------------


def test_a_word_is_read_back_bit_for_bit_also_after_a_restart() -> None:
    trust, eu = members(), Statuses(origin("eu"), key("eu"), zeros())
    weights = tuple(range(-6, 6))
    spoken = eu.say(EVIDENCE, say([share(weights)]), 0)
    us = Statuses(origin("us"), key("us"), zeros())
    taken = us.take(spoken, trust, 1.0, 0)
    assert taken is not None
    assert read(taken.said) == {str(DIGEST): {"errors": weights}}
    stored = {w.key: w.value for w in us.writes() if isinstance(w, PutLocal) and w.value}
    after = Statuses(origin("us"), key("us"), zeros())
    after.restore(stored)
    (again,) = after.of(EVIDENCE, trust)
    assert read(again.said) == {str(DIGEST): {"errors": weights}}


def test_a_word_that_would_be_too_long_leaves_plans_out_by_their_digest() -> None:
    loud = tuple([2**70] * POINTS)
    shares = [replace(share(loud), digest=Digest.of(bytes([i]))) for i in range(100)]
    said = read(say(reversed(shares)))
    assert 10 < len(said) < 100
    assert sorted(said) == sorted(str(s.digest) for s in shares)[: len(said)]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"rollouts": []},
        {"rollouts": {}, "more": 1},
        {"rollouts": {"plan": {}}},
        {"rollouts": {str(DIGEST): []}},
        {"rollouts": {str(DIGEST): {"errors": [1] * 11}}},
        {"rollouts": {str(DIGEST): {"errors": [1.5] * 12}}},
        {"rollouts": {str(DIGEST): {"errors": [2**81] * 12}}},
        {"rollouts": {str(DIGEST): {f"m{i}": [0] * 12 for i in range(17)}}},
        {"rollouts": {str(Digest.of(bytes([i, i]))): {} for i in range(256)} | {"sha256:0": {}}},
    ],
)
def test_words_that_are_none_are_refused(said: dict[str, object]) -> None:
    with pytest.raises(Rejected):
        read(said)


def test_progress_keeps_what_earlier_steps_gathered() -> None:
    place = share((7,) * POINTS, 5).progress
    again = Progress.decode(PLAN, REGIONS[0], place.encode(1.0), 2.0)
    assert (again.earlier, again.rejected) == (place.earlier, place.rejected)
    assert again.whole == place.whole
    assert limits.STATUS_BYTES_MAX <= limits.FRAME_BYTES_MAX


# -- whole regions ----------------------------------------------------------------------------


@pytest.mark.parametrize("alike", [True, False])
def test_what_is_bad_everywhere_is_undone_before_any_region_could_tell_alone(alike: bool) -> None:
    """Real words over real links: three regions, each with far too little for its own level."""
    town = Federation()
    old = serving(town)
    town.run(2.0)
    assert list(town.node(TOWN[0]).region.shares()) == [], "a rollout that is over says nothing"
    new = town.publish("4.0.0", parents=(old,))
    errors = {"name": "errors", "test": "ratio", "event": "error", "margin": 1.0}
    town.roll_out(
        "r-2",
        2,
        new,
        old,
        stages=[
            {
                "name": "all",
                "regions": list(TOWN),
                "steps": [
                    {"setWeight": 20},
                    {"pause": {"duration": "4h"}},
                    {"analysis": {"templates": ["safety"], "minSamples": 10}},
                    {"setWeight": 100},
                ],
            }
        ],
        templates={"safety": {"alpha": 1e-9, "metrics": [{**errors, "provenBelow": "none"}]}},
    )
    for region in TOWN:
        town.edges[region] = town.edges[region][:1]
        traffic = town.edges[region][0].traffic
        traffic.stable, traffic.canary = Counts(requests=80), Counts(requests=20)
    town.run(5.0)
    for n in range(40):  # one canary error in 20 answers, and one in 80 of the stable ones
        for region in TOWN:
            traffic = town.edges[region][0].traffic
            bad = n % 2 if alike else n % 5 == 0
            traffic.canary = Counts(requests=20, errors=int(bad))
            traffic.stable = Counts(requests=80, errors=int(n % 5 == 0) * (1 if alike else 4))
        town.run(0.5)
        for region in TOWN:
            traffic = town.edges[region][0].traffic
            traffic.canary, traffic.stable = Counts(requests=20), Counts(requests=80)
    town.run(2 * limits.EVIDENCE_S + 2)
    places = [
        next(e.progress for e in town.node(r).region.executions.values() if e.plan.name == "r-2")
        for r in TOWN
    ]
    own = [place.whole["errors"] for place in places]
    node = town.node(TOWN[0])
    asked = {"rollout": "r-2", "region": TOWN[0]}
    seen = rollout_explain(node, town.clock, asked)["regions"][0]["together"]
    shown = [(s["metric"], s["regions"], round(s["e_needed"]), s["e_harm"] < 1) for s in seen]
    assert shown == ([] if alike else [("errors", 3, 1000, True)]), "while it is not over"
    assert all(log_mean(weights) < -math.log(1e-9) for weights in own), "none alone"
    if alike:
        assert {p.state for p in places} <= {State.ROLLED_BACK, State.QUARANTINED}
        assert any("all regions together" in p.why for p in places)
        assert town.node(TOWN[0]).catalog.views[MODEL].release(new).quarantined  # type: ignore[union-attr]
    else:
        assert {p.state for p in places} == {State.PAUSED}


def test_among_many_streams_each_needs_more() -> None:
    """e-BH: of a thousand metrics looked at, one that alone would do is no discovery."""
    alone = math.floor((-math.log(ALPHA) + math.log(2) + 0.1) * UNITS_PER_NAT)
    quiet = [replace(share((0,) * POINTS), digest=Digest.of(b"%d" % i)) for i in range(1000)]
    loud = share((alone,) * POINTS)
    assert set(weigh([loud], {}, 2)) == {DIGEST}
    assert weigh([loud, *quiet], {}, 2) == {}
    louder = math.floor((math.log(1001 / 0.05) + math.log(2) + 0.1) * UNITS_PER_NAT)
    assert set(weigh([share((louder,) * POINTS), *quiet], {}, 2)) == {DIGEST}
