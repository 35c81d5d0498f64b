"""Metrics that Prometheus counts: what a plan may ask, what a count is, and what an outage is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hand_federation import Federation, serving
from hypothesis import given
from hypothesis import strategies as st
from orders import BAD, ORDERS, TOTAL, body, spec, state

from hanse.core.declared import Answer, Ask, Counters, Pair, declared, fill
from hanse.core.errors import InvalidSpec
from hanse.core.evidence.ratio import Arms
from hanse.core.evidence.verdict import Reason
from hanse.core.ids import Digest
from hanse.core.rollout.progress import Progress, begin
from hanse.core.rollout.spec import canonical, parse_spec
from hanse.core.rollout.table import State

# -- the plan ---------------------------------------------------------------------------------


def test_the_queries_are_part_of_the_signed_plan() -> None:
    plan = spec()
    assert parse_spec(json.loads(canonical(plan))) == plan
    (metric,) = declared(plan)
    assert (metric.bad, metric.total) == (BAD, TOTAL)
    values = {"release": "sha256:12", "region": "eu"}
    assert fill(TOTAL, values) == 'sum(orders_total{release="sha256:12",region="eu"})'


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ({"prometheus": {"bad": BAD}}, "prometheus.total: missing"),
        ({"prometheus": {"bad": BAD, "total": TOTAL, "url": "http://x"}}, "unknown field"),
        ({"prometheus": {"bad": "sum(x)", "total": TOTAL}}, "the same of both arms"),
        ({"prometheus": {"bad": 'x{r="$realese"}', "total": TOTAL}}, "did you mean release"),
        ({"prometheus": {"bad": BAD, "total": "x" * 513}}, "is not a query"),
        ({"prometheus": {"bad": BAD, "total": TOTAL + "\n"}}, "is not a query"),
        ({"prometheus": "up"}, "is not a mapping"),
        ({"event": "error"}, "stands beside prometheus"),
        ({"test": "paired"}, "means nothing to a paired metric"),
    ],
)
def test_what_is_no_metric_is_refused_at_entry(metric: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        spec(**metric)
    assert said in str(caught.value)


def test_a_shadow_meets_no_users_so_its_orders_cannot_be_counted() -> None:
    plan = body()
    plan["stages"][0]["steps"] = [
        {"shadow": {"sample": "10%", "duration": "1m"}},
        *plan["stages"][0]["steps"][1:],
    ]
    document = json.loads(canonical(spec()))
    with pytest.raises(InvalidSpec, match="meet nobody"):
        parse_spec({**document, "spec": {**document["spec"], **plan}})


# -- counters ---------------------------------------------------------------------------------

PLAN = spec()
(METRIC,) = declared(PLAN)


def progress(weight: int = 20) -> Progress:
    return replace(begin(PLAN, "eu-north", 0.0), weight_percent=weight)


def counting(now_s: float = 0.0) -> Counters:
    counters = Counters()
    counters.follow(progress(), now_s)
    return counters


def hear(counters: Counters, now_s: float, *pairs: Pair, why: str = "") -> dict[str, Arms]:
    assert counters.epoch is not None
    ask = Ask("r", counters.epoch, "orders", ())
    counters.hear(Answer(ask, None if why else pairs, why), now_s)
    return counters.take()


def test_the_first_look_counts_nothing_and_each_later_one_what_came_since() -> None:
    counters = counting()
    assert hear(counters, 1, (5, 100), (7, 900)) == {}
    assert hear(counters, 2, (6, 110), (7, 990)) == {"orders": Arms(1, 0, 10, 90)}
    assert hear(counters, 3, (6, 110), (7, 990)) == {}
    assert hear(counters, 4, (6, 120), (9, 1080)) == {"orders": Arms(0, 2, 10, 90)}


def test_a_counter_that_began_again_loses_one_look() -> None:
    counters = counting()
    hear(counters, 1, (5, 100), (7, 900))
    assert hear(counters, 2, (0, 10), (7, 990)) == {}
    assert hear(counters, 3, (1, 20), (7, 1000)) == {"orders": Arms(1, 0, 10, 10)}


def test_more_bad_events_than_events_wait_for_the_next_look() -> None:
    counters = counting()
    hear(counters, 1, (5, 100), (7, 900))
    assert hear(counters, 2, (6, 100), (7, 900)) == {}
    assert hear(counters, 3, (6, 110), (7, 990)) == {"orders": Arms(1, 0, 10, 90)}


def test_counts_of_other_arms_are_not_pooled() -> None:
    counters = counting()
    hear(counters, 1, (5, 100), (7, 900))
    asked = Ask("r", counters.epoch or (0, 0, 0), "orders", ())
    counters.follow(progress(50), 2)
    counters.hear(Answer(asked, ((9, 200), (9, 1800))), 3)
    assert counters.take() == {}, "an answer about the arms of before"
    assert hear(counters, 4, (9, 200), (9, 1800)) == {}, "a first look again"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50)), min_size=1, max_size=20))
def test_what_is_handed_out_adds_up_to_what_was_counted(steps: list[Pair]) -> None:
    counters, bad, total, taken = counting(), 3, 100, Arms(0, 0, 0, 0)
    hear(counters, 0, (bad, total), (0, 0))
    for n, (more_bad, more) in enumerate(steps, start=1):
        bad, total = bad + min(more_bad, more), total + more
        taken = taken + hear(counters, n, (bad, total), (0, 0)).get("orders", Arms(0, 0, 0, 0))
    assert (taken.bad_t, taken.n_t) == (bad - 3, total - 100)


def test_an_outage_is_a_gap_and_silence_is_no_traffic() -> None:
    counters = counting(now_s=100)
    assert counters.gap(PLAN, 119) is None, "shorter than freshness.telemetry"
    assert counters.gap(PLAN, 121) == (
        Reason.TELEMETRY_GAP,
        "orders: nothing for 21 s: nobody asks Prometheus: is prometheus_url set here?",
    )
    hear(counters, 121, why="nothing is found")
    assert counters.gap(PLAN, 122) == (
        Reason.TELEMETRY_GAP,
        "orders: nothing for 22 s: nothing is found",
    )
    hear(counters, 122, (0, 0), (0, 0))
    assert (counters.gap(PLAN, 122) or ("",))[0] == Reason.NO_TRAFFIC
    hear(counters, 123, (0, 1), (0, 0))
    assert counters.gap(PLAN, 143) is None


def test_a_dry_run_stops_nothing() -> None:
    other = {**ORDERS, "name": "other"}
    plan = body()
    plan["templates"]["orders"] |= {"metrics": [ORDERS, other], "dryRun": ["orders"]}
    document = json.loads(canonical(spec()))
    plan = parse_spec({**document, "spec": {**document["spec"], **plan}})
    counters = counting()
    gap = counters.gap(plan, 30)
    assert gap is not None
    assert gap[1].startswith("other")


# -- a region ---------------------------------------------------------------------------------


class Shop:
    """What a Prometheus would say of each release: (failed, all) so far."""

    def __init__(self, federation: Federation) -> None:
        self.federation, self.counts = federation, dict[str, list[int]]()
        self.why = ""

    def sell(self, release: Digest, orders: int, failed: int) -> None:
        held = self.counts.setdefault(str(release), [0, 0])
        held[0] += failed
        held[1] += orders

    def look(self) -> list[Ask]:
        region = self.federation.node("eu-north").region
        asks = region.asks()
        answers = []
        for ask in asks:
            found = tuple(tuple(held) for r, held in self._named(ask) if r is not None)
            counts = None if self.why else found
            answers.append(Answer(ask, counts, self.why))  # type: ignore[arg-type]
        region.counted(answers, self.federation.now_s)
        return asks

    def _named(self, ask: Ask) -> list[tuple[str | None, list[int]]]:
        out: list[tuple[str | None, list[int]]] = []
        for bad, total in ask.queries:
            found = next((r for r in self.counts if r in bad and r in total), None)
            out.append((found, self.counts.get(found or "", [0, 0])))
        return out

    def day(self, new: Digest, old: Digest, failed: int, looks: int = 30) -> None:
        for _ in range(looks):
            self.sell(new, 20, failed)
            self.sell(old, 80, 4)
            self.look()
            self.federation.run(1.0)


def trial(federation: Federation) -> tuple[Shop, Digest, Digest]:
    old = serving(federation)
    new = federation.publish("4.0.0", parents=(old,))
    federation.roll_out("r-2", 2, new, old, **body())
    federation.run(5.0)
    shop = Shop(federation)
    shop.sell(new, 0, 0)
    shop.sell(old, 0, 0)
    return shop, new, old


def test_what_users_meet_undoes_a_release_whose_answers_look_fine() -> None:
    federation = Federation()
    shop, new, old = trial(federation)
    (ask,) = shop.look()
    assert [str(new) in q for pair in ask.queries for q in pair] == [True, True, False, False]
    assert [str(old) in q for pair in ask.queries for q in pair] == [False, False, True, True]
    assert 'region="eu-north"' in ask.queries[0][1]
    shop.day(new, old, failed=8)
    assert state(federation)[:2] == (State.ROLLED_BACK, Reason.WORSE)
    assert "orders: trial" in state(federation)[2]


def test_orders_that_are_proven_alike_promote() -> None:
    federation = Federation()
    shop, new, old = trial(federation)
    shop.day(new, old, failed=1, looks=200)
    assert state(federation)[0] is State.HEALTHY


def test_an_outage_holds_and_neither_promotes_nor_undoes_and_ends_by_itself() -> None:
    federation = Federation()
    shop, new, old = trial(federation)
    shop.why = "Prometheus at http://x cannot be asked: it did not answer within 5 s"
    for _ in range(60):
        shop.look()
        federation.run(1.0)
    assert state(federation)[:2] == (State.HELD, Reason.TELEMETRY_GAP)
    assert "did not answer" in state(federation)[2]
    federation.run(600.0)
    assert state(federation)[0] is State.HELD, "however long"
    shop.why = ""
    shop.day(new, old, failed=1, looks=3)
    assert state(federation)[0] is not State.HELD


def test_a_region_without_a_prometheus_holds_and_says_what_to_set() -> None:
    federation = Federation()
    trial(federation)
    federation.run(60.0)
    assert state(federation)[:2] == (State.HELD, Reason.TELEMETRY_GAP)
    assert "prometheus_url" in state(federation)[2]
