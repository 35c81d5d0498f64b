"""Members who lie, as many as the policy bears: the honest ones agree, and lose nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from math import inf

import pytest

from hanse.core import limits
from hanse.sim.decisions import decisions
from hanse.sim.faults import FaultPlan, Skew, draw
from hanse.sim.run import build, play, run
from hanse.sim.vices import ACCIDENTS, LIES
from hanse.sim.world import NAMES

SEEDS = range(200)
BROKEN_ONCE = (
    724676785,
    724676808,
    724676901,
    724676966,
    900004,
    900037,
    900208,
    910065,
    910073,
    920652,
    920761,
    920941,
    920991,
    2000247,
    3000517,
    5000552,
    20261588,
)
"""Seeds of campaigns that found a fault, in what is tested or in the test."""
REGIONS = 4  # the fewest of whom one may lie


@pytest.mark.parametrize("seed", [*SEEDS, *BROKEN_ONCE])
def test_whatever_liars_do_the_honest_agree(seed: int) -> None:
    outcome = run(seed, REGIONS, "byzantine")
    assert outcome.acknowledged >= 8, "people were heard"


@pytest.mark.parametrize("seed", range(5))
def test_two_liars_of_seven_stand_by_each_other_in_vain(seed: int) -> None:
    assert run(seed, 7, "byzantine").acknowledged >= 8


def test_the_seeds_have_every_vice_in_them() -> None:
    """A set of seeds without a lie would prove nothing about it."""
    plans = [draw("byzantine", seed, NAMES[:REGIONS]) for seed in SEEDS]
    kinds = Counter(vice.kind for plan in plans for vice in plan.vices)
    assert all(kinds[lie] >= 30 for lie in LIES), kinds
    assert all(kinds[accident] >= 30 for accident in ACCIDENTS), kinds
    at_once = [v for plan in plans for v in plan.vices if v.at_s == 0.0]
    assert len(at_once) >= 50, "a log may be forged from its first event on"


def test_a_seed_with_liars_leaves_the_same_trace_in_another_process() -> None:
    seeds = list(SEEDS)[::20]
    program = (
        f"from hanse.sim.run import run\n"
        f"for seed in {seeds}: print(run(seed, {REGIONS}, 'byzantine').trace_hash)"
    )
    other = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.split() == [run(s, REGIONS, "byzantine").trace_hash for s in seeds]


def lines(seed: int, plan: FaultPlan) -> list[str]:
    world = build(seed, REGIONS, plan)
    play(world, decisions)
    return world.history.lines


@pytest.mark.parametrize("seed", range(5))
def test_clocks_that_jump_by_years_change_nothing_that_is_told(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I8: wall clocks are shown to people; who is far ahead waits, and nothing else reads them."""
    monkeypatch.setattr(limits, "CLOCK_AHEAD_S", inf)
    plan = draw("byzantine", seed, NAMES[:REGIONS])
    mad = {name: Skew(10**12 * (-1) ** i, 0.0, 3.0 + i) for i, name in enumerate(NAMES[:REGIONS])}
    assert lines(seed, replace(plan, skews=mad)) == lines(seed, replace(plan, skews={}))
