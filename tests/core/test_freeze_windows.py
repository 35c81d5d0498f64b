"""In a freeze window nothing begins and nothing rises; holding and going back always work."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from hand_federation import MODEL, START_MS, Federation, serving
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_rollout_machine import facts_of, starts, walk_to

from hanse.core.errors import InvalidSpec
from hanse.core.ids import segment
from hanse.core.rollout.actions import Promote, SetTraffic
from hanse.core.rollout.freeze_windows import (
    DAY_MIN,
    DAYS,
    WEEK_MIN,
    FreezeWindow,
    freeze_mapping,
    parse_freeze,
)
from hanse.core.rollout.stimuli import Cause
from hanse.core.rollout.table import State

EU = segment("eu-north")
windows = st.builds(
    lambda days, times, zone: FreezeWindow(tuple(sorted(days)), min(times), max(times), zone),
    st.sets(st.integers(0, 6), min_size=1, max_size=6),
    st.lists(st.integers(0, DAY_MIN), min_size=2, max_size=2, unique=True),
    st.integers(-56, 56).map(lambda quarters: quarters * 15),
)


@given(windows, st.integers(0, 4_000_000_000_000))
@settings(max_examples=300)
def test_a_window_covers_what_a_calendar_says(window: FreezeWindow, wall_ms: int) -> None:
    zone = datetime.timezone(datetime.timedelta(minutes=window.zone_min))
    local = datetime.datetime.fromtimestamp(wall_ms / 1000, zone)
    inside = window.from_min <= local.hour * 60 + local.minute < window.to_min
    assert window.covers(wall_ms) == (local.weekday() in window.days and inside)
    assert window.covers(wall_ms) == window.covers(wall_ms + WEEK_MIN * 60_000)


@given(st.lists(windows, max_size=4))
def test_what_is_written_is_read_back(some: list[FreezeWindow]) -> None:
    week_ms = range(0, WEEK_MIN * 60_000, 900_000)
    assume(not all(any(w.covers(at_ms) for w in some) for at_ms in week_ms))
    assert parse_freeze(freeze_mapping(some), "spec.freeze") == tuple(some)


def test_a_whole_week_cannot_be_frozen_by_pieces_either() -> None:
    halves = [{"to": "12:00", "zone": "+02:00"}, {"from": "12:00", "zone": "+02:00"}]
    with pytest.raises(InvalidSpec, match="whole week"):
        parse_freeze(halves, "spec.freeze")
    assert parse_freeze([{"days": list(DAYS[:6])}], "spec.freeze")


@given(starts, st.lists(st.sampled_from(["good", "good", "stale", "silence"]), max_size=30))
@settings(max_examples=100)
def test_nothing_rises_in_a_window_and_harm_is_still_undone(
    start: State, sequence: list[str]
) -> None:
    walk = walk_to(start)
    shut = ((Cause.WINDOW, "a freeze window"),)
    for mood in sequence:
        before = walk.progress
        walk.tick(replace(facts_of(mood, before), barriers=shut))
        for action in walk.actions:
            assert not isinstance(action, Promote)
            if isinstance(action, SetTraffic):
                assert action.weight_percent <= before.weight_percent
    if walk.progress.state not in (State.HEALTHY, State.ROLLING_BACK, State.ROLLED_BACK):
        walk.tick(replace(facts_of("aborted", walk.progress), barriers=shut))
        assert walk.progress.state is State.ROLLING_BACK


def test_a_rollout_goes_on_by_itself_when_the_window_is_over() -> None:
    walk = walk_to(State.SOAKING)
    for _ in range(8):
        walk.tick(replace(facts_of("good", walk.progress), barriers=((Cause.WINDOW, "w"),)))
    assert (walk.progress.state, walk.progress.reason) == (State.HELD, Cause.WINDOW)
    assert walk.until(State.HEALTHY)


def test_a_region_waits_by_its_own_clock() -> None:
    town = Federation()
    old = serving(town)
    new = town.publish("4.0.0", parents=(old,))
    now_ms = START_MS + int(town.now_s * 1000)
    moment = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC)
    end = moment + datetime.timedelta(minutes=2)
    assert end.weekday() == moment.weekday()  # the federation begins in the middle of a day
    day = DAYS[moment.weekday()]
    freeze = [{"days": [day], "from": "00:00", "to": end.strftime("%H:%M")}]
    steps = [{"setWeight": 50}, {"analysis": {"templates": ["ok"]}}, {"setWeight": 100}]
    metric = {"name": "e", "test": "one-arm", "event": "error", "slo": 0.2, "provenBelow": 0.2}
    town.roll_out(
        "r-2",
        2,
        new,
        old,
        freeze=freeze,
        stages=[{"name": "all", "regions": [EU], "steps": steps}],
        templates={"ok": {"alpha": 0.05, "metrics": [metric]}},
    )
    town.run(30)
    (place,) = [
        e.progress for e in town.node(EU).region.executions.values() if e.plan.release == new
    ]
    assert (place.state, place.reason) == (State.GATED, Cause.WINDOW)
    assert place.why.startswith(f"nothing begins or rises in the freeze window {day} 00:00 to")
    town.run(120)
    head = town.node(EU).catalog.views[MODEL].active(EU)
    assert head is not None
    assert head.release == new
