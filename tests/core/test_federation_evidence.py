"""Many regions and many streams: combined evidence, false discoveries."""

from __future__ import annotations

import math
from functools import reduce
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from hanse.core.evidence.federation import discoveries, told
from hanse.core.evidence.grid import add, log_mean
from hanse.core.evidence.ratio import Arms, RatioProcess

LOGS = st.dictionaries(st.integers(0, 200), st.floats(-5, 20), max_size=60)


def weights(rng: Random, rate: float, ticks: int) -> tuple[int, ...]:
    test = RatioProcess(1.0)
    for _ in range(ticks):
        bad_t = sum(rng.random() < rate for _ in range(10))
        test = test.observe(Arms(bad_t, sum(rng.random() < 0.01 for _ in range(90)), 10, 90))
    return test.logw


def test_what_is_bad_everywhere_shows_in_the_sum_before_it_shows_anywhere() -> None:
    regions = [weights(Random(seed), 0.03, 5) for seed in range(20)]
    together, mean = told(None, regions, 0), max(map(log_mean, regions)) - math.log(2)
    assert together > math.log(100) > mean


def test_what_is_bad_in_one_region_shows_in_the_mean() -> None:
    regions = [weights(Random(seed), 0.01, 80) for seed in range(19)]
    regions.append(weights(Random(99), 0.05, 80))
    total = log_mean(reduce(add, regions)) - math.log(2)
    assert told(None, regions, 0) > math.log(100) > total


def test_no_regions_are_no_evidence() -> None:
    assert told(None, [], 0) == 0.0


@given(LOGS, st.sampled_from([0.01, 0.05, 0.2]))
def test_the_rejected_streams_are_self_consistent(logs: dict[int, float], alpha: float) -> None:
    """Every rejected e-value is at least K / (alpha k*): what e-BH promises."""
    found = discoveries(logs, alpha)
    assert all(value >= math.log(len(logs) / (alpha * len(found))) for value in found.values())


@given(LOGS, LOGS)
def test_what_was_rejected_stays_rejected(
    before: dict[int, float], after: dict[int, float]
) -> None:
    logs = {key: after.get(key, value) for key, value in before.items()}
    frozen = discoveries(before, 0.05)
    later = discoveries(logs, 0.05, frozen.items())
    assert frozen.items() <= later.items()


def test_one_strong_stream_among_many_is_found_and_weak_ones_are_not() -> None:
    logs = {i: math.log(15) for i in range(999)} | {999: math.log(1000 / 0.05)}
    assert discoveries(logs, 0.05) == {999: logs[999]}
    assert set(discoveries({i: math.log(30) for i in range(10)}, 0.05)) == set(range(10))
