"""No decision compares clocks: years of difference change nothing that is agreed."""

from __future__ import annotations

import re
from math import inf

import pytest

from hanse.core import limits
from hanse.sim.faults import YEAR_MS, FaultPlan, Skew
from hanse.sim.run import build, play
from hanse.sim.world import NAMES


def told(plan: FaultPlan) -> tuple[list[str], list[str], str]:
    """The lines of a run, who serves what, and the agreed state without event ids."""
    world = build(9, 3, plan)
    play(world)
    views = [
        view for p in world.processes.values() if p.node for view in p.node.catalog.views.values()
    ]
    heads = [f"{a.region} {a.release} {a.cause}" for view in views for a in view.heads]
    states = re.sub(r"'event': '\w+'", "", str([view.to_mapping() for view in views]))
    return world.history.lines, heads, states


def test_clocks_ten_years_apart_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event ids cover the claimed time, so they differ; all that they lead to does not.

    But for one thing, taken away here: whose clock is far ahead makes no forward move.
    """
    monkeypatch.setattr(limits, "CLOCK_AHEAD_S", inf)
    offsets = (10 * YEAR_MS, 0, -10 * YEAR_MS)
    skews = {name: Skew(offset) for name, offset in zip(NAMES, offsets, strict=False)}
    assert told(FaultPlan(skews=skews)) == told(FaultPlan())
