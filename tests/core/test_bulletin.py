"""What daemons say of themselves: who disagrees holds, whose clock runs ahead holds; no more."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from witnessed import Daemon, Net, origin

from hanse.core import limits
from hanse.core.agreement import Agreement, Attest
from hanse.core.clocks import Clocks
from hanse.core.events import Hold, Note, StateAttest
from hanse.core.gossip.statuses import ATTEST, HEALTH
from hanse.core.ids import Digest, MemberId, segment
from hanse.core.rollout.stimuli import Cause
from hanse.sim.process import CODEC, done

THREE = ("ap", "eu", "us")
A, B = Attest(b"h" * 32, b"a" * 32), Attest(b"h" * 32, b"b" * 32)
PEER = MemberId("f" * 32)
HOUR_S = limits.ATTEST_S + 120


# -- agreement ------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_equal_logs_and_unequal_states_are_an_alarm_whoever_gets_there_first(first: str) -> None:
    agreement = Agreement()
    deeds = [lambda: agreement.reached(A), lambda: agreement.heard(PEER, B)]
    for deed in deeds if first == "ours" else deeds[::-1]:
        deed()
    assert agreement.alarms() == [PEER]
    assert agreement.alarms() == [], "once"
    assert list(agreement.differing) == [PEER]


def test_other_logs_say_nothing() -> None:
    agreement = Agreement()
    agreement.reached(A)
    agreement.heard(PEER, Attest(b"x" * 32, b"b" * 32))
    assert (agreement.alarms(), agreement.differing) == ([], {})


def test_it_is_over_when_they_agree_again() -> None:
    agreement = Agreement()
    agreement.reached(A)
    agreement.heard(PEER, B)
    agreement.heard(PEER, A)
    assert agreement.differing == {}
    agreement.heard(PEER, B)
    assert agreement.alarms() == [PEER, PEER], "a new disagreement is a new alarm"


def test_only_so_many_states_are_remembered() -> None:
    agreement = Agreement()
    agreement.reached(A)
    for i in range(limits.STATES_REMEMBERED):
        agreement.reached(Attest(i.to_bytes(32), b"s" * 32))
    agreement.heard(PEER, B)
    assert agreement.differing == {}


# -- clocks -----------------------------------------------------------------------------


def ahead(*peers_ms: int, ours_ms: int = 1_000_000) -> float | None:
    clocks = Clocks()
    for i, wall_ms in enumerate(peers_ms):
        clocks.heard(MemberId(f"{i:032x}"), wall_ms, 50.0)
    return clocks.ahead_s(ours_ms, 50.0)


def test_a_clock_is_judged_by_the_median_of_its_peers() -> None:
    assert ahead() is None
    assert ahead(900_000) == 100
    assert ahead(1_000_000, 1_000_000, 10**15) == 0, "one that is wrong by ages moves nothing"
    assert ahead(900_000, 900_000, 10**15) == 100
    assert ahead(1_000_000, 0) == 0, "one of two that is behind stops nobody"
    assert ahead(0, 900_000) == 100


def test_peers_clocks_go_on_while_they_are_silent_and_are_forgotten_in_the_end() -> None:
    clocks = Clocks()
    clocks.heard(PEER, 1_000_000, 50.0)
    assert clocks.ahead_s(1_600_000, 650.0) == 0
    assert clocks.ahead_s(1_600_000, 51.0 + limits.CLOCK_HEARD_S) is None


# -- whole daemons ------------------------------------------------------------------------


def barriers(daemon: Daemon) -> list[str]:
    return [cause for cause, _ in daemon.node.region.barriers if cause != Cause.TRUST]


def attests(daemon: Daemon) -> list[StateAttest]:
    mine = origin(daemon.region)
    raws = done(daemon.store.events(mine, 0, 1000, 2**24))
    return [body for raw in raws if isinstance(body := CODEC.decode(raw).body, StateAttest)]


def make_wrong(daemon: Daemon) -> None:
    """As if it had folded what it holds into something else."""
    daemon.node.catalog._digests[segment("ocr")] = b"x" * 32
    daemon.node.catalog._state_digest = None


def logged(daemons: Iterable[Daemon], event: str) -> list[str]:
    return [d.region for d in daemons if event in {log.event for log in d.said}]


def test_everybody_knows_the_last_word_of_everybody() -> None:
    net = Net(THREE)
    net.run(seconds=HOUR_S, tick_s=5)
    for daemon in net.daemons.values():
        latest = daemon.node.bulletin.statuses.latest
        assert set(latest) == {(d.id, k) for d in net.daemons.values() for k in (ATTEST, HEALTH)}
        assert barriers(daemon) == []
        assert {log.event for log in daemon.said} <= {"trust_stale"}
        assert len(attests(daemon)) == 1


def test_a_word_counts_on_the_link_of_its_author_alone() -> None:
    """Nobody passes another's words on, at once or later: they cost what a daemon has links."""
    net = Net(("a", "b", "c"))
    net.cut("a", "c")
    net.run(seconds=200, tick_s=5)
    a, b, c = (net.daemons[r] for r in "abc")
    assert (a.id, HEALTH) not in c.node.bulletin.statuses.latest
    said = b.node.bulletin.statuses.latest[a.id, HEALTH].status
    c.node.frame(b.id, said, net.clock("c"))
    net.step("c")
    assert (a.id, HEALTH) not in c.node.bulletin.statuses.latest
    assert logged([c], "frame_rejected") == ["c"]


def test_a_quiet_day_costs_a_few_words() -> None:
    net = Net(THREE)
    net.run(seconds=120, tick_s=5)
    frames = net.frames
    net.run(seconds=3600, tick_s=5)
    words, links = 3 * (3600 / limits.HEALTH_S + 1), 2
    pings = 3600 / limits.ANTI_ENTROPY_S * 3 * limits.PINGS_PER_ROUND * 2
    assert net.frames - frames < words * links + pings


def test_a_fold_that_goes_wrong_in_one_daemon_is_an_alarm_within_one_period() -> None:
    """T50: equal logs, another state. All that notice it hold, and nobody goes back."""
    net = Net(THREE)
    hold = Hold(segment("ocr"), segment("eu"), Digest.of(b"a release"), "wrong")
    net.write("eu", hold)
    net.run(seconds=30)
    make_wrong(net.daemons["us"])
    net.run(seconds=HOUR_S, tick_s=5)
    assert logged(net.daemons.values(), "state_differs") == list(THREE)
    assert all(barriers(d) == [Cause.DISAGREEMENT] for d in net.daemons.values())
    (alarm,) = [log for log in net.daemons["eu"].said if log.event == "state_differs"]
    assert ("member", "daemon of us") in alarm.fields
    assert net.daemons["eu"].node.counters["states_differed"] == 1


def test_a_disagreement_is_found_again_after_a_restart_and_ends_with_its_cause() -> None:
    net = Net(("eu", "us"))
    net.write("eu", Hold(segment("ocr"), segment("eu"), Digest.of(b"a release"), "wrong"))
    net.run(seconds=30)
    us = net.daemons["us"]
    make_wrong(us)
    net.run(seconds=HOUR_S, tick_s=5)
    assert barriers(us) == [Cause.DISAGREEMENT]
    us.boot()  # with the right program
    net.connect(["eu", "us"])
    net.run(seconds=HOUR_S, tick_s=5)
    assert barriers(us) == barriers(net.daemons["eu"]) == []


def test_who_differs_says_so_more_often_and_so_the_end_of_it_is_seen_soon() -> None:
    net = Net(THREE)
    net.write("eu", Hold(segment("ocr"), segment("eu"), Digest.of(b"a release"), "wrong"))
    net.run(seconds=30)
    us = net.daemons["us"]
    right = us.node.catalog._digests.get(segment("ocr"))
    assert right is not None
    make_wrong(us)
    net.run(seconds=HOUR_S, tick_s=5)
    assert all(barriers(d) == [Cause.DISAGREEMENT] for d in net.daemons.values())
    us.node.catalog._digests[segment("ocr")] = right
    us.node.catalog._state_digest = None
    net.run(seconds=2 * limits.DIFFERS_S, tick_s=5)
    assert all(barriers(d) == [] for d in net.daemons.values())


def test_a_daemon_whose_clock_runs_ahead_makes_no_forward_move_until_it_is_set() -> None:
    """T10. The others, whose clocks are right, go on."""
    net = Net(THREE)
    net.skews["us"] = 61_000
    net.run(seconds=130, tick_s=5)
    assert barriers(net.daemons["us"]) == [Cause.CLOCK]
    assert logged(net.daemons.values(), "clock_ahead") == ["us"]
    assert barriers(net.daemons["eu"]) == barriers(net.daemons["ap"]) == []
    net.skews["us"] = 0
    net.run(seconds=5)
    assert barriers(net.daemons["us"]) == []


def test_a_clock_that_is_behind_or_little_ahead_stops_nothing() -> None:
    net = Net(THREE)
    net.skews |= {"us": 59_000, "ap": -(10**10)}
    net.run(seconds=130, tick_s=5)
    assert all(Cause.CLOCK not in barriers(net.daemons[r]) for r in ("us", "ap"))


def test_a_note_is_not_disturbed_by_words() -> None:
    net = Net(THREE)
    net.run(seconds=130, tick_s=5)
    net.write("eu", Note("hello"))
    net.run(seconds=1)
    assert net.daemons["us"].head("eu").final_size == net.daemons["eu"].head().size


def test_evidence_is_passed_on_to_everybody_once_and_nothing_else_is() -> None:
    """A chain of four: the last hears the first, and an echo goes no further."""
    net = Net(("a", "b", "c", "d"))
    for pair in (("a", "c"), ("a", "d"), ("b", "d")):
        net.cut(*pair)
    net.run(seconds=60)
    a, d = net.daemons["a"], net.daemons["d"]
    weights = {str(Digest.of(b"plan")): {"errors": [2**32 * 3] * 12}}
    a.node.bulletin.measured = lambda: {"rollouts": weights}
    net.run(seconds=limits.EVIDENCE_S + 5, tick_s=1)
    said = d.node.bulletin.words(d.node.book.chain.current)
    assert said["a"] == {str(Digest.of(b"plan")): {"errors": (2**32 * 3,) * 12}}
    assert (a.id, HEALTH) not in d.node.bulletin.statuses.latest
    frames = net.frames
    net.run(seconds=limits.EVIDENCE_S, tick_s=1)
    quiet = net.frames - frames
    a.node.bulletin.measured = lambda: {"rollouts": {str(Digest.of(b"plan")): {}}}
    frames = net.frames
    net.run(seconds=limits.EVIDENCE_S, tick_s=1)
    assert net.frames - frames <= quiet + 2 * 3, "over each link at most once each way"
    d.boot()
    assert d.node.bulletin.words(d.node.book.chain.current) != {}, "kept over a restart"
