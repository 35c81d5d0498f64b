"""Numbers of reports: each boot of a node has its own, and no number of nodes fills the disk."""

from __future__ import annotations

from hanse.core import limits
from hanse.core.counted import Counted
from hanse.core.fleet import Fleet
from hanse.core.ids import Segment, segment
from hanse.core.step import PutLocal
from hanse.core.telemetry import Report

NODE = segment("node-1")


def stored(counted: Counted) -> dict[str, bytes | None]:
    return {w.key: w.value for w in counted.writes() if isinstance(w, PutLocal)}


def after(counted: Counted) -> Counted:
    again = Counted()
    again.restore({k: v for k, v in stored(counted).items() if v is not None})
    return again


def test_a_late_report_of_an_earlier_boot_does_not_open_the_door_for_older_ones() -> None:
    fleet = Fleet()
    for boot, seq in [(b"a", 7), (b"b", 1), (b"a", 7), (b"b", 1)]:
        fleet.report(boot, seq, Report(NODE, 1, 1), 0.0)
    assert (fleet.counted.last(NODE, b"a"), fleet.counted.last(NODE, b"b")) == (7, 1)
    assert fleet.report(b"a", 3, Report(NODE, 1, 1), 0.0) == 7, "acknowledged, not counted"


def test_the_last_boots_of_each_node_are_known_after_a_restart() -> None:
    counted = Counted()
    boots = [bytes([i]) * 16 for i in range(limits.BOOTS_COUNTED + 1)]
    for boot in boots:
        counted.count(NODE, boot, 5)
    again = after(counted)
    assert [again.last(NODE, boot) for boot in boots] == [None, *[5] * limits.BOOTS_COUNTED]
    assert stored(counted) == {}, "each change is stored once"


def test_ten_thousand_nodes_are_kept_and_what_is_beyond_the_bound_is_dropped_from_the_disk() -> (
    None
):
    counted, names = Counted(), [Segment(f"n{i}") for i in range(limits.NODES_MAX + 10)]
    for name in names:
        counted.count(name, b"boot", 1)
    kept = stored(counted)
    gone = [name for name, value in kept.items() if value is None]
    assert sorted(gone) == sorted(names[:10])
    assert counted.last(names[10], b"boot") == 1
    assert max(len(v) for v in kept.values() if v) < 64
