"""Counts for people: of the release that answers, of the last minutes, and of nothing else."""

from __future__ import annotations

from hanse.core.fleet import Fleet
from hanse.core.ids import Digest, Segment
from hanse.core.recent import BUCKET_S, BUCKETS, RELEASES_MAX, Recent
from hanse.core.telemetry import Counts, ModelReport, Report, Window

MODEL, NODE = Segment("ocr"), Segment("edge-1")
OLD, NEW = Digest.of(b"old"), Digest.of(b"new")


def window(requests: int, errors: int = 0, rollout: str = "", generation: int = 0) -> Window:
    stable = Counts(requests, errors, latency={3: requests})
    return Window(MODEL, rollout, generation, stable=stable)


def report(running: Digest, *windows: Window) -> Report:
    return Report(NODE, models=(ModelReport(MODEL, running, windows=windows),))


def test_counts_add_up_until_they_are_five_minutes_old() -> None:
    recent = Recent()
    recent.add(OLD, Counts(100, 1, latency={1: 100}), 0.0)
    recent.add(OLD, Counts(50, 2), BUCKET_S)
    assert recent.total(OLD, BUCKET_S) == Counts(150, 3)
    assert recent.total(OLD, BUCKETS * BUCKET_S) == Counts(50, 2)
    assert recent.total(OLD, (BUCKETS + 1) * BUCKET_S) == Counts()


def test_claims_of_ever_new_releases_do_not_grow_the_memory() -> None:
    recent = Recent()
    for i in range(1000):
        recent.add(Digest.of(b"%d" % i), Counts(1), 0.0)
    assert len(recent.heard_s) == RELEASES_MAX
    assert recent.total(Digest.of(b"999"), 0.0) == Counts(1)
    assert recent.total(Digest.of(b"0"), 0.0) == Counts()


def test_a_report_across_a_change_of_release_counts_for_neither() -> None:
    fleet = Fleet()
    fleet.report(b"boot", 1, report(OLD, window(10)), 0.0)
    fleet.report(b"boot", 2, report(OLD, window(20, 1)), 1.0)
    fleet.report(b"boot", 3, report(NEW, window(40)), 2.0)
    fleet.report(b"boot", 4, report(NEW, window(80, 3)), 3.0)
    recent = fleet.recent[MODEL]
    assert recent.total(OLD, 3.0) == Counts(20, 1)
    assert recent.total(NEW, 3.0) == Counts(80, 3)
    assert recent.heard_s == {OLD: 1.0, NEW: 3.0}


def test_a_rollout_is_handed_its_own_windows_and_the_rest_is_dropped() -> None:
    fleet = Fleet()
    fleet.report(b"boot", 1, report(OLD, window(10), window(20, rollout="r-1", generation=1)), 0.0)
    assert fleet.take(MODEL, "r-2", 2) == ()
    assert [(node, w.stable.requests) for node, w in fleet.take(MODEL, "r-1", 1)] == [(NODE, 20)]
    assert fleet.take(MODEL, "r-1", 1) == ()
    fleet.drop_untaken()
    assert fleet.take(MODEL, "", 0) == ()
