"""The rate-ratio and one-arm processes: figures of the design, exactness, false alarms."""

from __future__ import annotations

import json
import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.evidence.grid import GRID, POINTS, UNITS_PER_NAT, ZERO, to_units
from hanse.core.evidence.one_arm import OneArmProcess
from hanse.core.evidence.ratio import Arms, RatioProcess


def naive_log_e(margin: float, ticks: list[Arms]) -> float:
    """The formula of the design page, in plain floats."""
    logw = [0.0] * POINTS
    for tick in ticks:
        total = tick.bad_t + tick.bad_c
        for j, g in enumerate(GRID):
            r = margin * g
            spread = math.log(r * tick.n_t + tick.n_c) - math.log(margin * tick.n_t + tick.n_c)
            logw[j] += tick.bad_t * math.log(r / margin) - total * spread
    top = max(logw)
    return top + math.log(sum(math.exp(w - top) for w in logw) / POINTS)


def requests_until(
    process: RatioProcess, p_t: float, p_c: float, seed: int, *, alpha: float = 0.01
) -> int:
    """Canary requests until rejection at 100 + 900 a tick; the rates are per request."""
    rng = np.random.default_rng(seed)
    bad_t, bad_c = rng.binomial(100, p_t, 400), rng.binomial(900, p_c, 400)
    for i in range(400):
        process = process.observe(Arms(int(bad_t[i]), int(bad_c[i]), 100, 900))
        if process.rejects(alpha):
            return (i + 1) * 100
    return 10**9


@st.composite
def arms(draw: st.DrawFn) -> Arms:
    n_t, n_c = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
    return Arms(draw(st.integers(0, n_t)), draw(st.integers(0, n_c)), n_t, n_c)


margins = st.floats(0.2, 10)


@given(margins, st.lists(arms(), max_size=20))
def test_the_process_is_the_formula_of_the_design(margin: float, ticks: list[Arms]) -> None:
    process = RatioProcess(margin)
    for tick in ticks:
        process = process.observe(tick)
    assert process.log_e() == pytest.approx(naive_log_e(margin, ticks), abs=1e-6, rel=1e-9)


@given(margins, st.booleans(), st.lists(arms(), max_size=12), st.randoms(use_true_random=False))
def test_merging_shards_in_any_order_gives_the_same_bits(
    margin: float, proof: bool, ticks: list[Arms], random: object
) -> None:
    empty = RatioProcess(margin, proof=proof)
    whole = empty
    for tick in ticks:
        whole = whole.observe(tick)
    shards = [empty.observe(tick) for tick in ticks]
    random.shuffle(shards)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    merged = empty
    for shard in shards:
        merged = merged.gained(shard.logw)
    assert merged == whole


@given(margins, st.lists(arms(), min_size=1, max_size=8))
def test_a_restart_in_the_middle_changes_no_bit(margin: float, ticks: list[Arms]) -> None:
    straight = restarted = RatioProcess(margin)
    for tick in ticks:
        straight = straight.observe(tick)
        stored = json.dumps(restarted.encode())
        assert "." not in stored  # integers only
        restarted = RatioProcess(margin).decoded(json.loads(stored)).observe(tick)
    assert restarted == straight


@given(st.integers(0, 500), st.integers(0, 500))
def test_labelled_pairs_are_the_same_process_as_mcnemar(b: int, c: int) -> None:
    thetas = [g / (1 + g) for g in GRID]
    logw = [b * math.log(2 * t) + c * math.log(2 * (1 - t)) for t in thetas]
    top = max(logw)
    expected = top + math.log(sum(math.exp(w - top) for w in logw) / POINTS)
    process = RatioProcess(1.0).observe(Arms(b, c, 1, 1))
    assert process.log_e() == pytest.approx(expected, abs=1e-6)
    pairs = max(b + c, 1)
    assert RatioProcess(1.0).observe(Arms(b, c, pairs, pairs)) == process


@given(st.floats(-1e6, 1e6))
def test_rounding_never_adds_wealth_and_costs_less_than_one_unit(nats: float) -> None:
    (units,) = to_units([nats])
    assert units <= Fraction(nats) * UNITS_PER_NAT < units + 1


@given(st.integers(0, 2**30), st.integers(0, 2**30), st.integers(1, 1000))
def test_only_the_proportion_of_exposures_counts(b: int, c: int, factor: int) -> None:
    process = RatioProcess(1.25)
    assert process.observe(Arms(b, c, 3 * factor, factor)) == process.observe(Arms(b, c, 3, 1))


@given(margins, st.integers(0, 10**6), st.booleans())
def test_one_arm_alone_is_no_comparison(margin: float, bad: int, proof: bool) -> None:
    process = RatioProcess(margin, proof=proof)
    assert process.observe(Arms(bad, 0, 10**6, 0)) == process
    assert process.observe(Arms(0, bad, 0, 10**6)) == process


@pytest.mark.parametrize(
    "tick", [Arms(0, 0, 100, 900), Arms(5, 0, 100, 0), Arms(0, 5, 0, 900), Arms(0, 0, 0, 0)]
)
@pytest.mark.parametrize("proof", [False, True])
def test_a_tick_that_cannot_compare_leaves_no_trace(tick: Arms, proof: bool) -> None:
    process = RatioProcess(1.25, proof=proof)
    assert process.observe(tick) == process
    assert process.logw == ZERO


def test_no_underflow_when_the_new_model_is_3000_to_0_better() -> None:
    process = RatioProcess(1.0).observe(Arms(0, 3000, 10_000, 10_000))
    assert process.log_e() == pytest.approx(-219, abs=1)
    assert not process.rejects(0.01)


def test_detects_1_to_3_percent_as_fast_as_the_prototype() -> None:
    # Prototype: margin 1 median 500, margin 1.25 median 800; Monte Carlo of 60 runs, +-40 %.
    plain = [requests_until(RatioProcess(1.0), 0.03, 0.01, seed) for seed in range(60)]
    wide = [requests_until(RatioProcess(1.25), 0.03, 0.01, seed) for seed in range(60)]
    assert 300 <= statistics.median(plain) <= 700
    assert 500 <= statistics.median(wide) <= 1150
    assert sorted(wide)[54] <= 2500


def test_proves_equal_models_at_the_cost_of_the_prototype() -> None:
    # Prototype at 1 %: M=2 median 1 900, M=3 median 700; 60 runs, +-40 %.
    twice = [requests_until(RatioProcess(2.0, proof=True), 0.01, 0.01, s) for s in range(60)]
    thrice = [requests_until(RatioProcess(3.0, proof=True), 0.01, 0.01, s) for s in range(60)]
    assert 1200 <= statistics.median(twice) <= 2700
    assert 400 <= statistics.median(thrice) <= 1000


def false_alarms(process: RatioProcess, ratio: float, runs: int, ticks: int, alpha: float) -> float:
    """Ramp of weights while the base rate drifts fourfold: what breaks pooled tests."""
    rng = np.random.default_rng(20)
    alarms = 0
    for _ in range(runs):
        walk = process
        for i in range(ticks):
            base = 0.005 * 4 ** (i / ticks) * (5 if 40 <= i < 50 else 1)
            n_t = (10, 50, 100, 250, 500)[i * 5 // ticks]
            tick = Arms(
                int(rng.binomial(n_t, base * ratio)),
                int(rng.binomial(1000 - n_t, base)),
                n_t,
                1000 - n_t,
            )
            walk = walk.observe(tick)
            if walk.rejects(alpha):
                alarms += 1
                break
    return alarms / runs


@pytest.mark.parametrize(
    ("process", "ratio"),
    [
        (RatioProcess(1.0), 1.0),
        (RatioProcess(1.25), 1.25),
        (RatioProcess(2.0, proof=True), 2.0),
    ],
)
def test_false_alarms_stay_below_alpha_at_the_boundary(process: RatioProcess, ratio: float) -> None:
    alpha, runs = 0.05, 600
    tolerance = 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert false_alarms(process, ratio, runs, 100, alpha) <= alpha + tolerance


def test_a_worse_model_is_not_proven_good() -> None:
    runs = [requests_until(RatioProcess(2.0, proof=True), 0.03, 0.01, seed) for seed in range(30)]
    assert min(runs) == 10**9


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"logw": []},
        {"logw": [0] * 11},
        {"logw": [0.0] * 12},
        {"logw": [True] * 12},
        {"logw": [2**80] * 12},
        {"logw": [0] * 12, "margin": 1},
    ],
)
def test_malformed_state_is_refused(state: object) -> None:
    with pytest.raises(Rejected):
        RatioProcess(1.25).decoded(state)
    with pytest.raises(Rejected):
        OneArmProcess(0.05).decoded(state)


def test_impossible_counts_and_parameters_are_refused() -> None:
    for counts in ((-1, 0, 1, 1), (1, 0, 0, 1), (0, 1, 1, 0), (0, 0, 2**41, 1)):
        with pytest.raises(Rejected):
            Arms(*counts)
    for margin in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InvalidSpec):
            RatioProcess(margin)
    for rate in (0.0, 1.0, math.nan):
        with pytest.raises(InvalidSpec):
            OneArmProcess(rate)
    for alpha in (0.0, 1.0):
        with pytest.raises(InvalidSpec):
            RatioProcess(1.0).rejects(alpha)
    with pytest.raises(Rejected):
        OneArmProcess(0.5).observe(Arms(2, 0, 1, 0))


@given(st.floats(0.001, 0.5), st.integers(0, 300), st.integers(0, 300))
def test_one_arm_is_the_formula_of_the_design(q: float, bad: int, good: int) -> None:
    thetas = [q * g / (1 - q + q * g) for g in GRID]
    mirrored = [q / (g * (1 - q) + q) for g in GRID]
    for proof, alternatives in ((False, thetas), (True, mirrored)):
        logw = [bad * math.log(t / q) + good * math.log((1 - t) / (1 - q)) for t in alternatives]
        top = max(logw)
        expected = top + math.log(sum(math.exp(w - top) for w in logw) / POINTS)
        process = OneArmProcess(q, proof=proof).observe(Arms(bad, 0, bad + good, 0))
        assert process.log_e() == pytest.approx(expected, abs=1e-6)


def test_126_clean_requests_prove_a_rate_below_5_percent() -> None:
    process = OneArmProcess(0.05, proof=True)
    needed = next(n for n in range(1, 1000) if process.observe(Arms(0, 0, n, 0)).rejects(0.01))
    assert needed == 126
    assert not process.observe(Arms(2, 0, needed, 0)).rejects(0.01)


@pytest.mark.parametrize("proof", [False, True])
def test_one_arm_false_alarms_stay_below_alpha_at_the_boundary(proof: bool) -> None:
    rng = np.random.default_rng(7)
    alpha, runs, alarms = 0.05, 200, 0
    for _ in range(runs):
        process = OneArmProcess(0.05, proof=proof)
        for bad in rng.binomial(50, 0.05, 100):
            process = process.observe(Arms(int(bad), 0, 50, 0))
            if process.rejects(alpha):
                alarms += 1
                break
    assert alarms / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
