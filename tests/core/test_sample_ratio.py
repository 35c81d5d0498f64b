"""Shares of traffic: an arm that loses requests is noticed, a fair one is left alone."""

from __future__ import annotations

from random import Random

import pytest

from hanse.core.errors import InvalidSpec, Rejected
from hanse.core.evidence.ratio import Arms
from hanse.core.evidence.sample_ratio import SampleRatio


def split(rng: Random, requests: int, share: float) -> Arms:
    trial = sum(rng.random() < share for _ in range(requests))
    return Arms(0, 0, trial, requests - trial)


def test_an_arm_that_loses_a_fifth_of_its_requests_is_found() -> None:
    found = []
    for seed in range(10):
        rng, test, seen = Random(seed), SampleRatio(0.10), 0
        while not test.rejects(0.001):
            test, seen = test.observe(split(rng, 200, 0.08)), seen + 200
        found.append(seen)
    assert sorted(found)[5] < 8000


def test_a_fair_split_is_left_alone_however_often_one_looks() -> None:
    alarms = 0
    for seed in range(60):
        rng, test = Random(f"fair {seed}"), SampleRatio(0.10)
        for _ in range(100):
            test = test.observe(split(rng, 100, 0.10))
            alarms += test.rejects(0.001)
    assert alarms == 0


def test_ticks_add_up_and_read_back() -> None:
    both = SampleRatio(0.2).observe(Arms(0, 0, 20, 80)).observe(Arms(0, 0, 7, 3))
    assert both == SampleRatio(0.2).observe(Arms(0, 0, 27, 83))
    assert SampleRatio(0.2).decoded(both.encode()) == both


@pytest.mark.parametrize("state", [{}, {"trial": 2, "total": 1}, {"trial": True, "total": 1}, [1]])
def test_a_malformed_state_is_refused(state: object) -> None:
    with pytest.raises(Rejected):
        SampleRatio(0.2).decoded(state)


def test_a_share_of_all_or_nothing_cannot_be_tested() -> None:
    with pytest.raises(InvalidSpec):
        SampleRatio(1.0)


def test_nothing_seen_is_no_evidence() -> None:
    assert SampleRatio(0.2).log_e() == 0.0
