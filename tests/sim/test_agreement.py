"""Whatever goes wrong: everybody agrees in the end, and nothing that was acknowledged is lost."""

from __future__ import annotations

import pytest

from hanse.sim.faults import KINDS, draw
from hanse.sim.oracle import CONVERGENCE_S
from hanse.sim.run import run
from hanse.sim.world import NAMES

SEEDS = range(50)


@pytest.mark.parametrize("seed", SEEDS)
def test_crashes_right_after_a_publish_lose_nothing_and_leave_agreement(seed: int) -> None:
    outcome = run(seed, faults="crashes")
    assert outcome.acknowledged == 30
    assert outcome.converged_after_s <= CONVERGENCE_S


def test_the_crash_seeds_do_crash_after_publishes() -> None:
    """A set of seeds without the fault would prove nothing about it."""
    drawn = [c for seed in SEEDS for c in draw("crashes", seed, NAMES[:3]).crashes]
    assert sum(c.at_publish and c.moment == "after" for c in drawn) >= 30
    assert {c.moment for c in drawn} == {"before", "after", "between"}


@pytest.mark.parametrize("seed", range(4))
def test_a_storm_only_costs_time(seed: int) -> None:
    """A fifth of all frames lost, many doubled and out of order, and a trust file on its way."""
    assert run(seed, faults="storm").acknowledged == 30


@pytest.mark.parametrize("seed", range(3))
def test_seven_regions_agree_under_every_fault(seed: int) -> None:
    assert run(seed, regions=7, faults="crashes").acknowledged == 30


def test_every_kind_of_faults_can_be_drawn() -> None:
    for kind in KINDS:
        assert draw(kind, 1, NAMES[:3]).name == kind
        assert draw(kind, 1, NAMES[:3]) == draw(kind, 1, NAMES[:3])
