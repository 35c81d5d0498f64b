"""The watch after a promotion: late regressions are found as fast as early ones."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.evidence.cusum import Cusum
from hanse.core.evidence.one_arm import OneArmProcess
from hanse.core.evidence.ratio import Arms, RatioProcess

ALPHA = 1e-5


def tick(rng: Random, rate_t: float, rate_c: float) -> Arms:
    bad_t = sum(rng.random() < rate_t for _ in range(100))
    return Arms(bad_t, sum(rng.random() < rate_c for _ in range(900)), 100, 900)


def ticks_to_alarm(watch: Cusum, rng: Random, healthy: int) -> int:
    for _ in range(healthy):
        watch = watch.observe(tick(rng, 0.01, 0.01))
        assert not watch.rejects(ALPHA)
    for n in range(1, 200):
        watch = watch.observe(tick(rng, 0.03, 0.01))
        if watch.rejects(ALPHA):
            return n
    raise AssertionError("never found")


def test_a_late_regression_is_found_as_fast_as_an_early_one() -> None:
    early = [ticks_to_alarm(Cusum(RatioProcess(1.0)), Random(seed), 0) for seed in range(8)]
    late = [ticks_to_alarm(Cusum(RatioProcess(1.0)), Random(seed), 300) for seed in range(8)]
    assert sum(late) <= 1.5 * sum(early)


def test_one_long_test_grows_deaf_where_the_watch_does_not() -> None:
    rng, long, watch = Random(3), RatioProcess(1.0), Cusum(RatioProcess(1.0))
    for _ in range(400):
        arms = tick(rng, 0.01, 0.01)
        long, watch = long.observe(arms), watch.observe(arms)
    while not watch.rejects(ALPHA):
        arms = tick(rng, 0.03, 0.01)
        long, watch = long.observe(arms), watch.observe(arms)
    assert not long.rejects(0.01)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=20))
def test_a_restart_changes_no_bit(ticks: list[tuple[int, int]]) -> None:
    straight = stored = Cusum(RatioProcess(1.25))
    for bad_t, bad_c in ticks:
        arms = Arms(bad_t, bad_c, 100, 900)
        straight = straight.observe(arms)
        stored = Cusum(RatioProcess(1.25)).decoded(stored.encode()).observe(arms)
    assert stored == straight


def test_good_ticks_are_forgotten_and_bad_ones_are_not() -> None:
    good = Cusum(OneArmProcess(0.05)).observe(Arms(0, 0, 100_000, 0))
    bad = Arms(40, 0, 100, 0)
    assert good.observe(bad).logw == Cusum(OneArmProcess(0.05)).observe(bad).logw
    assert good.observe(bad).observe(bad).log_e() > good.observe(bad).log_e()


def test_a_level_that_would_always_alarm_and_a_broken_state_are_refused() -> None:
    with pytest.raises(InvalidSpec):
        Cusum(RatioProcess(1.0)).rejects(1.0)
    with pytest.raises(Rejected):
        Cusum(RatioProcess(1.0)).decoded({"logw": [0]})
