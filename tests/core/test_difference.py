"""Bounded differences: additive bets on "the trial's loss is larger"."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.evidence.difference import LEVELS, DifferenceProcess, level

TICKS = st.lists(
    st.dictionaries(st.integers(0, LEVELS - 1), st.integers(0, 1000), max_size=6), max_size=6
)


def pairs(rng: Random, count: int, trial: float, stable: float) -> Counter[int]:
    """Answers that are wrong with these probabilities, independently: D is -1, 0 or 1."""
    return Counter(
        level(float((rng.random() < trial) - (rng.random() < stable))) for _ in range(count)
    )


@given(TICKS, st.randoms(use_true_random=False))
def test_order_and_grouping_change_no_bit(ticks: list[dict[int, int]], rng: Random) -> None:
    straight = DifferenceProcess(0.01)
    for tick in ticks:
        straight = straight.observe(tick)
    shuffled = list(ticks)
    rng.shuffle(shuffled)
    shards = [DifferenceProcess(0.01), DifferenceProcess(0.01)]
    for i, tick in enumerate(shuffled):
        shards[i % 2] = shards[i % 2].observe(tick)
    assert shards[0].gained(shards[1].logw) == straight
    assert DifferenceProcess(0.01).decoded(straight.encode()) == straight


def test_a_drop_of_five_points_is_found_in_some_hundred_labels() -> None:
    needed = []
    for seed in range(12):
        rng, test, seen = Random(seed), DifferenceProcess(0.0), 0
        while not test.rejects(0.01):
            test, seen = test.observe(pairs(rng, 20, 0.10, 0.05)), seen + 20
        needed.append(seen)
    assert sorted(needed)[6] < 1500


def test_equal_models_are_hardly_ever_called_worse() -> None:
    alarms = 0
    for seed in range(150):
        rng, test = Random(f"equal {seed}"), DifferenceProcess(0.0)
        for _ in range(60):
            test = test.observe(pairs(rng, 20, 0.1, 0.1))
            if test.rejects(0.05):
                alarms += 1
                break
    assert alarms <= 15  # 7.5 expected at most; 3 sigma above


def test_proof_and_harm_look_in_opposite_directions() -> None:
    better = {level(-1.0): 400, level(0.0): 600}
    assert DifferenceProcess(0.05, proof=True).observe(better).rejects(0.01)
    assert not DifferenceProcess(0.05).observe(better).rejects(0.5)
    worse = {level(1.0): 400, level(0.0): 600}
    assert DifferenceProcess(0.05).observe(worse).rejects(0.01)
    assert not DifferenceProcess(0.05, proof=True).observe(worse).rejects(0.5)


def test_no_pairs_are_no_evidence() -> None:
    assert DifferenceProcess(0.0).observe({}).log_e() == 0.0


@pytest.mark.parametrize("value", [-1.01, 1.01, float("nan")])
def test_a_difference_out_of_bounds_is_refused(value: float) -> None:
    with pytest.raises(Rejected):
        level(value)


def test_cells_that_do_not_exist_and_wild_margins_are_refused() -> None:
    with pytest.raises(Rejected):
        DifferenceProcess(0.0).observe({LEVELS: 1})
    with pytest.raises(Rejected):
        DifferenceProcess(0.0).observe({0: -1})
    with pytest.raises(InvalidSpec):
        DifferenceProcess(1.0)


def test_the_ends_of_the_range_have_cells() -> None:
    assert level(-1.0) == 0
    assert level(1.0) == LEVELS - 1
