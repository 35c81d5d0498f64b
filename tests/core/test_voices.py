"""No node decides alone: neither that a release is undone, nor that it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_rollout_machine import ERROR_RATE, LATENCY, Walk, document, good, walk_to

from hanse.core.errors import Rejected
from hanse.core.evidence.drift import Reference
from hanse.core.evidence.grid import log_mean
from hanse.core.evidence.metrics import Metric
from hanse.core.evidence.tally import Evidence
from hanse.core.evidence.verdict import Kind, Reason, Verdict
from hanse.core.evidence.voices import NONE, OF_ONE_MAX, VOICES_MAX, Voices
from hanse.core.evidence.window import ArmCounts, Trial, Window
from hanse.core.rollout.actions import Hold
from hanse.core.rollout.facts import Facts
from hanse.core.rollout.progress import Progress
from hanse.core.rollout.spec import parse_spec
from hanse.core.rollout.table import State

ERRORS = Metric("errors", "ratio", "error", margin=1.25, proven_below=2.0)
DOCKS = [f"dock-{i}" for i in range(5)]
LIAR = DOCKS[3]
PER_TICK = 200
TICK_S = 10.0
Says = Callable[[str, Random], tuple[int, int, int]]
"""Of a node in one tick: errors of the trial, requests of the trial, errors of the stable arm."""


def rate(trial: float, stable: float = 0.01) -> Says:
    def says(_: str, rng: Random) -> tuple[int, int, int]:
        bad_t = sum(rng.random() < trial for _ in range(PER_TICK))
        return bad_t, PER_TICK, sum(rng.random() < stable for _ in range(PER_TICK))

    return says


def says_always(trial: int, stable: int) -> Says:
    return lambda *_: (trial, PER_TICK, stable)


HONEST, BAD = rate(0.01), rate(0.05)


def lie(_: str, rng: Random) -> tuple[int, int, int]:
    return PER_TICK, PER_TICK, 0


def whitewash(_: str, rng: Random) -> tuple[int, int, int]:
    return 0, 10**6, 10**5


def said(by: Mapping[str, Says], rng: Random, arm: Trial = Trial.CANARY) -> tuple[Window, ...]:
    windows = []
    for node, says in by.items():
        bad_t, n_t, bad_c = says(node, rng)
        stable = ArmCounts(max(PER_TICK, n_t), bad_c)
        windows.append(Window(arm, ArmCounts(n_t, bad_t), stable, node=node))
    return tuple(windows)


def everybody(says: Says, liar: Says | None = None) -> dict[str, Says]:
    return dict.fromkeys(DOCKS, says) | {LIAR: liar or says}


class Step:
    """The evidence of one step in which some nodes speak."""

    def __init__(self, asked: int = 5, seed: int = 0, metric: Metric = ERRORS) -> None:
        self.metric, self.rng = metric, Random(seed)
        self.evidence, self.seen = Evidence.fresh([metric]), ArmCounts()
        self.voices: Voices = replace(NONE, asked=asked)

    def hear(self, by: Mapping[str, Says], ticks: int = 1) -> None:
        for _ in range(ticks):
            windows = said(by, self.rng)
            self.take(windows)

    def take(self, windows: tuple[Window, ...]) -> None:
        self.voices, total = self.voices.hear(windows, self.evidence, self.seen, watching=False)
        if total is not None:
            with suppress(Rejected):  # as the rollout does
                self.evidence, self.seen = self.evidence.observe(total), self.seen + total.trial

    def verdict(self, alpha: float = 0.01, *, late: bool = False) -> Verdict:
        return self.voices.judge(self.evidence, [self.metric], alpha, late=late)


def test_harm_that_one_of_five_makes_up_stops_and_undoes_nothing_and_is_named() -> None:
    step = Step()
    step.hear(everybody(HONEST, liar=lie), 50)
    found = step.verdict(late=True)
    assert (found.kind, found.on_fail, found.reason) == (Kind.HARM, "hold", Reason.ONE_NODE)
    assert found.why.startswith(f"harm does not show without the word of {LIAR}: errors: trial ")


def test_it_lies_first_and_alone() -> None:
    step = Step()
    step.hear({LIAR: lie})
    assert step.verdict().on_fail == "hold", "the others have not had their time"


@pytest.mark.parametrize("liars", [2, 3])
def test_several_together_undo_their_own_region(liars: int) -> None:
    step = Step()
    step.hear(dict.fromkeys(DOCKS, HONEST) | dict.fromkeys(DOCKS[:liars], lie), 5)
    assert step.verdict().on_fail == "rollback"


@pytest.mark.parametrize("count", [3, 5, 40])
def test_what_all_see_is_undone(count: int) -> None:
    step = Step(count)
    step.hear(dict.fromkeys([f"dock-{i}" for i in range(count)], BAD), 10)
    assert (step.verdict().on_fail, step.verdict().reason) == ("rollback", Reason.WORSE)


@pytest.mark.parametrize("count", [1, 2])
def test_of_one_or_two_nodes_each_is_believed_as_ever(count: int) -> None:
    step = Step(count)
    step.hear(dict.fromkeys(DOCKS[:count], BAD) | {DOCKS[0]: lie}, 5)
    assert step.verdict().on_fail == "rollback"


def test_nodes_that_have_nothing_to_say_are_waited_for_and_then_not() -> None:
    step = Step(asked=5)
    step.hear({DOCKS[0]: BAD}, 50)
    assert step.verdict(late=False).on_fail == "hold"
    assert step.verdict(late=True).on_fail == "rollback"


def test_harm_that_one_of_five_drowns_is_found_and_the_node_named() -> None:
    step = Step()
    step.hear(everybody(BAD, liar=whitewash), 20)
    found = step.verdict()
    assert (found.kind, found.on_fail, found.reason) == (Kind.HARM, "hold", Reason.ONE_NODE)
    assert found.why.startswith(f"harm shows without the word of {LIAR}: errors: trial ")


def test_while_it_is_open_whether_one_covers_up_or_another_makes_it_up_both_are_named() -> None:
    step, usual = Step(), dict.fromkeys(DOCKS, says_always(2, 2))
    by = usual | {LIAR: says_always(12, 2), DOCKS[0]: says_always(1, 3)}
    while (found := step.verdict()).kind is not Kind.HARM:
        step.hear(by)
    assert found.on_fail == "hold"
    assert found.why.startswith(
        f"harm shows without the word of {DOCKS[0]}, least without that of {LIAR}: "
    )


def test_no_node_proves_a_release_before_the_others_have_spoken() -> None:
    def quick(_: str, rng: Random) -> tuple[int, int, int]:
        return 1000, 10**6, 5000  # an answer in five thousand, of an hour in one tick

    step = Step()
    step.hear({LIAR: quick})
    assert step.verdict().kind is Kind.INCONCLUSIVE
    assert step.verdict().why.startswith(f"without the word of {LIAR}: ")
    step.hear(dict.fromkeys([d for d in DOCKS if d != LIAR], HONEST), 30)
    assert step.verdict().kind is Kind.HEALTHY


def test_beyond_eight_nodes_each_still_has_one_voice_alone_and_the_state_is_bounded() -> None:
    nodes = [f"n{i}" for i in range(100)]
    step = Step(100)
    step.hear(dict.fromkeys(nodes, HONEST) | {"n77": lie}, 10)
    assert " (or a node of its voice): " in step.verdict().why
    assert len(step.voices.names) == VOICES_MAX
    assert min(e.requests for e in step.voices.without) > 0.7 * step.evidence.requests
    assert step.verdict().on_fail == "hold"


@given(st.lists(st.sampled_from(["honest", "bad", "lie", "none"]), min_size=5, max_size=5),
       st.permutations(DOCKS))  # fmt: skip
def test_the_order_of_nodes_does_not_matter(manners: list[str], order: list[str]) -> None:
    fixed = {"honest": (2, 200, 2), "bad": (10, 200, 2), "lie": (200, 200, 0)}
    by: dict[str, Says] = {
        n: lambda *_, m=m: fixed[m]  # type: ignore[misc]  # bound at once
        for n, m in zip(DOCKS, manners, strict=True)
        if m != "none"
    }
    straight, shuffled = Step(), Step()
    if by:
        straight.hear(by, 3)
        shuffled.hear({n: by[n] for n in order if n in by}, 3)
    assert straight.voices == shuffled.voices


@given(st.integers(0, 2**32), st.lists(st.tuples(*[st.integers(0, 300)] * 2), max_size=12))
def test_whatever_one_node_sends_what_is_told_to_other_regions_is_no_more_than_the_others_say(
    seed: int, lies: list[tuple[int, int]]
) -> None:
    rng, honest, lied = Random(seed), Step(seed=seed), Step(seed=seed)
    for bad, more in lies:
        windows = said(dict.fromkeys([d for d in DOCKS if d != LIAR], HONEST), rng)
        lying = Window(Trial.CANARY, ArmCounts(bad + more, bad), ArmCounts(300), node=LIAR)
        honest.take(windows)
        lied.take((*windows, lying))
    whole = honest.evidence.row("errors").harm.logw  # type: ignore[attr-defined]
    told = lied.voices.least(
        lied.evidence, "errors", lied.evidence.row("errors").harm.logw  # type: ignore[attr-defined]
    )  # fmt: skip
    assert all(a <= b for a, b in zip(told, whole, strict=True))
    assert log_mean(told) <= log_mean(whole)


def test_with_a_liar_healthy_releases_are_undone_no_more_often_than_alpha() -> None:
    """At the margin, where false alarms are most likely; one of five says whatever it likes."""
    alpha, undone, at_margin = 0.1, 0, rate(0.0625, 0.05)
    for seed in range(150):
        step = Step(seed=seed)
        for _ in range(40):
            step.hear(everybody(at_margin, liar=lie))
            if step.verdict(alpha).on_fail == "rollback":
                undone += 1
                break
    assert undone <= 150 * alpha + 3 * (150 * alpha * (1 - alpha)) ** 0.5


# -- in a rollout ------------------------------------------------------------------------------


def facts(walk: Walk, by: Mapping[str, Says], rng: Random, **more: object) -> Facts:
    arm = Trial.CANARY if walk.progress.weight_percent else Trial.SHADOW
    windows = said(by, rng, arm) if walk.progress.has_traffic else (Window(arm),)
    return replace(good(walk.progress), windows=windows, **more)  # type: ignore[arg-type]


def test_a_rollout_is_held_by_one_liar_and_nothing_is_said_against_the_release() -> None:
    walk, rng = walk_to(State.PAUSED), Random(1)
    walk.done.clear()
    for _ in range(100):
        walk.tick(facts(walk, everybody(HONEST, liar=lie), rng), TICK_S)
    assert (walk.progress.state, walk.progress.reason) == (State.HELD, Reason.ONE_NODE)
    assert LIAR in walk.progress.why
    assert not any(isinstance(action, Hold) for action in walk.done), "a matter of this region"


def test_it_is_undone_as_soon_as_the_others_see_it_too() -> None:
    walk, rng = walk_to(State.PAUSED), Random(1)
    walk.tick(facts(walk, everybody(HONEST, liar=lie), rng), TICK_S)
    assert walk.progress.state is State.HELD
    for _ in range(100):
        walk.tick(facts(walk, everybody(BAD, liar=lie), rng), TICK_S)
        if walk.progress.state is State.ROLLING_BACK:
            break
    assert walk.progress.reason == Reason.WORSE
    assert Hold(str(Reason.WORSE)) in walk.done


def test_who_keeps_the_others_from_speaking_is_not_believed_for_it() -> None:
    walk, rng = walk_to(State.WEIGHTING), Random(1)
    walk.tick("silence", TICK_S)
    alone = replace(good(walk.progress).nodes, online=1, confirmed=1, ready=1)
    for _ in range(5):
        walk.tick(facts(walk, {LIAR: lie}, rng, nodes=alone), TICK_S)
    assert (walk.progress.state, walk.progress.reason) == (State.HELD, Reason.ONE_NODE)
    for _ in range(15):
        walk.tick(facts(walk, {LIAR: lie}, rng, nodes=alone), TICK_S)
    assert walk.progress.reason == Reason.WORSE, "whoever is away for good does not count"


@pytest.mark.parametrize("requests", [OF_ONE_MAX, OF_ONE_MAX + 1])
def test_counts_that_nobody_can_have_counted_silence_nobody(requests: int) -> None:
    walk, rng = walk_to(State.PAUSED), Random(1)
    lying = Window(Trial.CANARY, ArmCounts(requests), ArmCounts(PER_TICK), node=LIAR)
    for _ in range(20):
        now = facts(walk, dict.fromkeys([d for d in DOCKS if d != LIAR], BAD), rng)
        walk.tick(replace(now, windows=(*now.windows, lying)), TICK_S)
    if requests > OF_ONE_MAX:
        assert walk.progress.reason == Reason.WORSE
    else:
        assert (walk.progress.state, walk.progress.reason) == (State.HELD, Reason.ONE_NODE)


def test_evidence_that_one_node_has_filled_is_judged_without_it_for_ever() -> None:
    step = Step()
    lying = Window(Trial.CANARY, ArmCounts(2**38), ArmCounts(PER_TICK), node=LIAR)
    for _ in range(20):
        step.take((*said(dict.fromkeys([d for d in DOCKS if d != LIAR], BAD), step.rng), lying))
    assert step.evidence.windows < 20
    found = step.verdict(late=True)
    assert (found.on_fail, found.reason) == ("hold", Reason.ONE_NODE)
    assert f"without the word of {LIAR}" in found.why


def test_series_in_other_bins_than_were_signed_silence_nobody() -> None:
    plan = parse_spec(
        document(
            templates={
                "safety": {
                    "alpha": 0.01,
                    "metrics": [
                        ERROR_RATE | {"provenBelow": 2.0},
                        {"name": "d", "test": "drift", "series": "output:y"},
                    ],
                }
            }
        )
    )
    walk, rng = Walk(spec=plan), Random(1)
    profile = {"output:y": Reference((500, 500, 500))}
    while walk.progress.state is not State.SHADOWING:
        walk.tick(replace(good(walk.progress), references=profile))
    for _ in range(10):
        said_by = facts(walk, everybody(BAD), rng, references=profile)
        windows = [
            replace(w, series={"output:y": (1, 1, 1, 1) if w.node == LIAR else (70, 70, 60)})
            for w in said_by.windows
        ]
        walk.tick(replace(said_by, windows=tuple(windows)), TICK_S)
    assert walk.progress.reason == Reason.WORSE
    assert walk.progress.state in (State.ROLLING_BACK, State.ROLLED_BACK)


def test_without_the_node_and_after_a_person_has_judged_it_goes_on() -> None:
    walk, rng = walk_to(State.PAUSED), Random(1)
    walk.tick(facts(walk, everybody(HONEST, liar=lie), rng), TICK_S)
    honest = dict.fromkeys([d for d in DOCKS if d != LIAR], HONEST)
    walk.tick(facts(walk, everybody(HONEST, whitewash), rng), TICK_S)
    assert walk.progress.state is State.HELD, "what was found stays found"
    walk.tick(facts(walk, honest, rng, resumed=True), TICK_S)
    for _ in range(200):
        walk.tick(facts(walk, honest, rng), 30.0)
    assert walk.progress.state is State.HEALTHY


def test_what_one_node_says_is_not_told_to_other_regions_as_harm() -> None:
    walk, rng = walk_to(State.PAUSED), Random(1)
    for _ in range(30):
        walk.tick(facts(walk, everybody(HONEST, liar=lie), rng), TICK_S)
    assert walk.progress.evidence.row("error-rate").harm.log_e() > 100
    assert log_mean(walk.progress.whole["error-rate"]) < 1


@given(st.lists(st.tuples(st.sampled_from([HONEST, BAD, lie]), st.booleans()), max_size=8))
def test_a_restart_changes_nothing(ticks: list[tuple[Says, bool]]) -> None:
    straight, restarted = walk_to(State.PAUSED), walk_to(State.PAUSED)
    for n, (says, restart) in enumerate(ticks):
        if restart:
            raw = json.loads(json.dumps(restarted.progress.encode(restarted.now_s)))
            restarted.progress = Progress.decode(
                restarted.spec, restarted.region, raw, restarted.now_s
            )
        for walk in (straight, restarted):
            walk.tick(facts(walk, everybody(HONEST, liar=says), Random(n)), TICK_S)
    assert straight.progress.voices == restarted.progress.voices
    assert straight.progress.whole == restarted.progress.whole
    assert straight.done == restarted.done


def test_a_metric_that_asks_for_a_hold_is_held_by_one_node_in_its_own_region_alone() -> None:
    walk, rng = walk_to(State.PAUSED), Random(1)
    walk.done.clear()
    slow = [replace(w, trial=replace(w.trial, slow=w.trial.requests * (w.node == LIAR)))
            for w in said(dict.fromkeys(DOCKS, HONEST), rng)]  # fmt: skip
    walk.tick(replace(facts(walk, {}, rng), windows=tuple(slow)), TICK_S)
    assert (walk.progress.state, walk.progress.reason) == (State.HELD, Reason.ONE_NODE)
    assert LATENCY["name"] in walk.progress.why
    assert not any(isinstance(action, Hold) for action in walk.done)
    for _ in range(5):
        slow = [replace(w, trial=replace(w.trial, slow=w.trial.requests)) for w in slow]
        walk.tick(replace(facts(walk, {}, rng), windows=tuple(slow)), TICK_S)
    assert (walk.progress.state, walk.progress.reason) == (State.HELD, Reason.WORSE)
    assert Hold(str(Reason.WORSE)) in walk.done, "what all see is said to the others"


# -- after a promotion ---------------------------------------------------------------------------


def promoted(liar: Says | None = None) -> Walk:
    template = {"alpha": 0.01, "metrics": [{"name": "e", "test": "ratio", "event": "error",
                "margin": 1.25, "provenBelow": 2.0}]}  # fmt: skip
    walk, rng = Walk("north", parse_spec(document(templates={"safety": template}))), Random(3)
    while walk.progress.state is not State.HEALTHY:
        walk.tick(facts(walk, everybody(HONEST, liar), rng), 30.0)
        assert walk.progress.state is not State.HELD, walk.progress.why
    walk.done.clear()
    return walk


def after(walk: Walk, by: Mapping[str, Says], ticks: int) -> None:
    rng = Random(5)
    for _ in range(ticks):
        now = replace(Facts(way_back=True, windows=said(by, rng)), nodes=good(walk.progress).nodes)
        walk.tick(now, TICK_S)


def test_one_node_undoes_no_promotion_and_is_named() -> None:
    walk = promoted()
    after(walk, everybody(HONEST, liar=lie), 60)
    assert (walk.progress.state, walk.progress.reason) == (State.HEALTHY, Reason.ONE_NODE)
    assert LIAR in walk.progress.why
    assert not walk.done


def test_what_all_see_after_a_promotion_is_undone() -> None:
    walk = promoted()
    after(walk, everybody(BAD), 60)
    assert walk.progress.state is State.ROLLED_BACK


def test_no_node_sets_a_limit_in_the_rollout_that_all_the_others_exceed_afterwards() -> None:
    def shy(_: str, rng: Random) -> tuple[int, int, int]:
        return 0, 10**6, 0

    walk = promoted(liar=shy)
    assert walk.progress.seen.errors / walk.progress.seen.requests < 1e-4
    after(walk, everybody(HONEST), 300)
    assert walk.progress.state is State.HEALTHY
    assert walk.progress.reason != Reason.ONE_NODE
    after(walk, everybody(BAD), 100)
    assert walk.progress.state is State.ROLLED_BACK
