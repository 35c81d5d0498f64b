"""Drift from a signed profile: found in histograms, not imagined from noise."""

from __future__ import annotations

from bisect import bisect_right
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.evidence.drift import DriftProcess, Reference

BINS = 16
_RNG = Random(1)
_SAMPLE = sorted(_RNG.gauss(0, 1) for _ in range(50_000))
EDGES = [_SAMPLE[i * len(_SAMPLE) // BINS] for i in range(1, BINS)]


def histogram(values: list[float]) -> list[int]:
    counts = [0] * BINS
    for value in values:
        counts[bisect_right(EDGES, value)] += 1
    return counts


PROFILE = Reference(tuple(histogram(_SAMPLE)), delta=0.03)


def ticks(rng: Random, shift: float, scale: float, count: int) -> int | None:
    """Values until drift is found; None if `count` ticks of 200 pass without."""
    test = DriftProcess(PROFILE)
    for n in range(1, count + 1):
        test = test.observe(histogram([rng.gauss(shift, scale) for _ in range(200)]))
        if test.rejects(0.01):
            return n * 200
    return None


def test_no_drift_raises_no_alarm() -> None:
    assert [ticks(Random(seed), 0, 1, 60) for seed in range(10)] == [None] * 10


def test_a_shift_and_a_wider_spread_are_found() -> None:
    assert all((n := ticks(Random(seed), 0.5, 1, 40)) and n <= 2000 for seed in range(5))
    assert all(ticks(Random(seed), 0, 1.5, 60) for seed in range(5))


@given(st.lists(st.lists(st.integers(0, 50), min_size=BINS, max_size=BINS), max_size=4))
def test_order_and_restarts_change_no_bit(seen: list[list[int]]) -> None:
    straight = restarted = DriftProcess(PROFILE)
    for counts in seen:
        straight = straight.observe(counts)
    for counts in reversed(seen):
        restarted = DriftProcess(PROFILE).decoded(restarted.encode()).observe(counts)
    assert restarted == straight


def test_a_small_reference_allows_for_its_own_error() -> None:
    small = Reference(tuple(c // 500 for c in PROFILE.counts), delta=0.03)
    assert small.nulls[7][0] > PROFILE.nulls[7][0]


def test_an_edge_that_cannot_drift_costs_power_and_wins_nothing() -> None:
    rare = Reference((1, 99_998, 1), delta=0.4)
    assert DriftProcess(rare).observe([0, 100, 0]).log_e() <= 0.0
    assert not DriftProcess(rare).observe([0, 0, 0]).rejects(0.5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(Rejected):
        DriftProcess(PROFILE).observe([1] * (BINS - 1))
    with pytest.raises(Rejected):
        DriftProcess(PROFILE).observe([-1] + [1] * (BINS - 1))
    with pytest.raises(Rejected):
        DriftProcess(PROFILE).decoded({"edges": []})
    with pytest.raises(InvalidSpec):
        Reference((0, 0))
