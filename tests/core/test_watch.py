"""After a promotion a release goes on being watched: what turns bad later is undone, once."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_rollout_machine import ERROR_RATE, Walk, document, good

from hanse.core.evidence.metrics import Metric
from hanse.core.evidence.verdict import Reason
from hanse.core.evidence.watch import rate_at_most, watched
from hanse.core.evidence.window import ArmCounts, Trial, Window
from hanse.core.rollout.actions import Hold, RollBack
from hanse.core.rollout.facts import Facts
from hanse.core.rollout.progress import Progress
from hanse.core.rollout.spec import parse_spec
from hanse.core.rollout.table import State

TICK_S = 10.0
HOLDS = ERROR_RATE | {"provenBelow": 2.0, "onFail": "hold"}


def lately(errors: int, requests: int = 1000, **facts: object) -> Facts:
    window = Window(Trial.CANARY, ArmCounts(requests, errors, errors))
    return replace(Facts(way_back=True, windows=(window,)), **facts)  # type: ignore[arg-type]


def promoted(on_fail: str = "rollback") -> Walk:
    metrics = [HOLDS if on_fail == "hold" else ERROR_RATE | {"provenBelow": 2.0}]
    template = {"safety": {"alpha": 0.01, "metrics": metrics}}
    walk = Walk("north", parse_spec(document(templates=template)))
    walk.until(State.HEALTHY)
    walk.done.clear()
    return walk


def stored(walk: Walk) -> Progress:
    raw = json.loads(json.dumps(walk.progress.encode(walk.now_s)))
    return Progress.decode(walk.spec, walk.region, raw, walk.now_s)


def test_a_release_that_stays_as_it_was_is_left_alone_for_weeks() -> None:
    walk, rng = promoted(), Random(7)
    for _ in range(3000):
        walk.tick(lately(sum(rng.random() < 0.01 for _ in range(100)), 100), TICK_S)
    assert walk.progress.state is State.HEALTHY
    assert not walk.done


def test_what_turns_bad_after_weeks_is_undone_within_minutes_and_said_to_the_others() -> None:
    walk = promoted()
    for _ in range(3000):
        walk.tick(lately(1, 100), TICK_S)
    bad = 0
    while walk.progress.state is State.HEALTHY and bad < 60:
        walk.tick(lately(5, 100), TICK_S)
        bad += 1
    assert walk.progress.state is State.ROLLING_BACK
    assert walk.progress.reason == Reason.WORSE
    assert {type(action) for action in walk.done} > {Hold, RollBack}
    assert bad <= 24, "four minutes at a hundred requests a tick"
    walk.until(State.ROLLED_BACK)


def test_without_a_way_back_it_goes_on_serving_and_the_others_are_told_once() -> None:
    walk = promoted()
    for _ in range(50):
        walk.tick(lately(300, way_back=False), TICK_S)
    assert walk.progress.state is State.HEALTHY
    assert walk.done == [Hold(str(Reason.WORSE))]
    walk.tick(lately(300), TICK_S)
    assert walk.progress.state is State.ROLLING_BACK, "as soon as there is one"


def test_a_metric_that_asks_for_a_hold_holds_until_a_person_has_judged() -> None:
    walk = promoted("hold")
    walk.tick(lately(300), TICK_S)
    assert walk.done == [Hold(str(Reason.WORSE))]
    walk.tick(lately(10, resumed=True), TICK_S)
    assert walk.progress.reason != Reason.WORSE
    walk.tick(lately(300), TICK_S)
    assert len(walk.done) == 2, "a second decline is said again"


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=30))
def test_a_restart_while_watching_changes_nothing(ticks: list[tuple[int, bool]]) -> None:
    straight, restarted = promoted(), promoted()
    for errors, restart in ticks:
        if restart:
            restarted.progress = stored(restarted)
        for walk in (straight, restarted):
            walk.tick(lately(errors), TICK_S)
    assert straight.progress.evidence == restarted.progress.evidence
    assert straight.done == restarted.done


def test_the_rollout_itself_sets_the_limit_and_counts_each_answer_once() -> None:
    walk = Walk("north")
    told = 0
    while walk.progress.state is not State.HEALTHY:
        facts = good(walk.progress)
        told += sum(w.trial.requests for w in facts.windows) if walk.progress.has_traffic else 0
        walk.tick(facts)
    assert walk.progress.seen.requests == told > 1000
    metric = next(iter(walk.progress.evidence.rows)).metric
    assert metric.slo == pytest.approx(1.5 * rate_at_most(walk.progress.seen.errors, told))


@given(st.integers(1, 5000), st.floats(0, 1), st.integers(0, 2**32))
def test_the_limit_lies_above_what_was_seen_and_closes_in(n: int, share: float, seed: int) -> None:
    bad = int(n * share)
    bound = rate_at_most(bad, n)
    assert bad / n <= bound <= 1
    assert rate_at_most(10 * bad, 10 * n) <= bound


def test_the_true_rate_is_above_the_limit_in_fewer_than_one_of_a_thousand() -> None:
    rng, above = Random(1), 0
    for _ in range(3000):
        bad = sum(rng.random() < 0.05 for _ in range(200))
        above += rate_at_most(bad, 200) < 0.05
    assert above <= 6


def test_metrics_that_need_the_other_arm_are_watched_by_what_remains() -> None:
    seen = ArmCounts(10_000, 100, 200, labelled=1000, wrong=20)
    pair = watched(Metric("accuracy", "paired", "wrong-pair", proven_below=2.0), [seen], 1.5)
    assert pair is not None
    assert (pair.test, pair.event) == ("watch", "wrong")
    assert watched(Metric("agreement", "one-arm", "disagree", slo=0.05), [seen], 1.5) is None
    assert watched(Metric("shares", "sample-ratio", "share"), [seen], 1.5) is None
    limit = watched(Metric("errors", "one-arm", "error", slo=0.05), [seen], 1.5)
    assert limit is not None
    assert limit.slo == 0.05
    drift = watched(Metric("drift", "drift", "output:y", delta=0.1), [seen], 1.5)
    assert drift is not None
    assert drift.test == "drift-watch"


def test_nothing_is_watched_against_a_rate_that_nobody_has_seen() -> None:
    assert watched(Metric("accuracy", "ratio", "wrong", margin=1.25), [ArmCounts(500)], 1.5) is None


def test_a_plan_may_ask_for_no_watch() -> None:
    walk = Walk("north", parse_spec(document(watch="none")))
    walk.until(State.HEALTHY)
    for _ in range(30):
        walk.tick(lately(300), TICK_S)
    assert walk.progress.state is State.HEALTHY


def test_a_plan_cannot_ask_for_the_tests_of_the_watch() -> None:
    for test in ("watch", "drift-watch"):
        metrics = [{"name": "error-rate", "test": test}]
        with pytest.raises(Exception, match="test"):
            parse_spec(document(templates={"safety": {"metrics": metrics}}))
