"""Who is asked for which part, over lines and peers of every kind, in virtual time."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import accumulate, count, pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.transfer import download as downloads
from hanse.core.transfer.download import (
    BATCH_BYTES_FIRST,
    BATCHES_MAX,
    NEIGHBOUR_SILENT_S,
    POINTED_MAX,
    WINDOW_RUNS,
    Ask,
    Download,
    Drop,
    scattered,
)

MB = 1_000_000
LONG_S = 3600.0


@dataclass
class Peer:
    """`breaks`: so many times its line breaks, each time before the next part has come."""

    rtt_s: float = 0.01
    pace: float = 10 * MB
    kind: str = "honest"  # liar, silent
    lacks: frozenset[int] = frozenset()
    elsewhere: frozenset[int] = frozenset()
    breaks: int = 0
    sent: list[int] = field(default_factory=list)
    free_s: float = 0.0


@dataclass
class World:
    """Carries out what the download wants. `peers` send their batches one part after the other."""

    sizes: list[int]
    peers: dict[str, Peer]
    missing: list[int] | None = None
    now: float = 0.0
    insisted: list[int] = field(default_factory=list)
    got: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        missing = range(len(self.sizes)) if self.missing is None else self.missing
        self.download = Download(self.sizes, missing)
        for name, peer in self.peers.items():
            self.download.join(name, peer.rtt_s)
        self.ticks = count()
        self.events: list[tuple[float, int, str, Ask, int]] = []
        self.under_way: dict[int, Ask] = {}
        self.lied: set[str] = set()

    def run(self, until_s: float = LONG_S) -> None:
        while not self.download.done and not self.download.stuck and self.now < until_s:
            for step in self.download.step(self.now):
                if isinstance(step, Ask):
                    self._asked(step)
                elif self.under_way.pop(step.batch, None):
                    self.download.ended(step.batch)
            at_s = self.events[0][0] if self.events else self.now + 1
            if at_s > self.now + 0.25:
                self.now += 0.25
                continue
            self.now, _, what, ask, part = heapq.heappop(self.events)
            if ask.batch in self.under_way:
                self._happens(what, ask, part)

    def _asked(self, ask: Ask) -> None:
        peer = self.peers[ask.source]
        assert ask.source not in self.lied
        assert len(set(ask.parts)) == len(ask.parts) > 0
        assert all(self.download.needs(part) for part in ask.parts)
        assert sum(a.source == ask.source for a in self.under_way.values()) < BATCHES_MAX
        self.under_way[ask.batch] = ask
        self.insisted += ask.parts if ask.insist else ()
        at_s = max(self.now + peer.rtt_s, peer.free_s)
        if peer.breaks:
            peer.breaks -= 1
            self._later(at_s, "breaks", ask)
            return
        if peer.kind == "silent":
            self._later(self.now + 30, "breaks", ask)
            return
        for part in ask.parts:
            if part in peer.lacks:
                self._later(at_s, "lacks", ask, part)
                continue
            if part in peer.elsewhere and not ask.insist:
                self._later(at_s, "elsewhere", ask, part)
                continue
            at_s += self.sizes[part] / peer.pace
            self._later(at_s, "lies" if peer.kind == "liar" else "came", ask, part)
        peer.free_s = at_s
        self._later(at_s, "ended", ask)

    def _later(self, at_s: float, what: str, ask: Ask, part: int = -1) -> None:
        heapq.heappush(self.events, (at_s, next(self.ticks), what, ask, part))

    def _happens(self, what: str, ask: Ask, part: int) -> None:
        download = self.download
        match what:
            case "came":
                self.peers[ask.source].sent.append(part)
                if download.came(ask.batch, part, self.now):
                    self.got.append(part)
            case "lies":
                self.lied.add(ask.source)
                download.out(ask.source)
            case "lacks" | "elsewhere":
                download.lacks(ask.batch, part, elsewhere=what == "elsewhere")
            case "breaks":
                del self.under_way[ask.batch]
                download.failed(ask.batch, self.now)
            case "ended":
                del self.under_way[ask.batch]
                download.ended(ask.batch)


sizes = st.lists(st.integers(1, 6 * MB), min_size=1, max_size=60)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """At least one honest peer that has everything, among others of every kind."""
    found = draw(sizes)
    some = st.frozensets(st.integers(0, len(found) - 1))
    peer = st.builds(
        Peer,
        rtt_s=st.floats(0, 0.5),
        pace=st.floats(0.01 * MB, 100 * MB),
        kind=st.sampled_from(["honest", "honest", "liar", "silent"]),
        lacks=some,
        elsewhere=some,
        breaks=st.integers(0, 6),
    )
    peers = {f"p{n}": each for n, each in enumerate(draw(st.lists(peer, max_size=4)))}
    rtt_s, pace = draw(st.floats(0, 0.5)), draw(st.floats(1 * MB, 100 * MB))
    peers["good"] = Peer(rtt_s, pace, breaks=draw(st.integers(0, 3)), elsewhere=draw(some))
    return World(found, peers, draw(st.permutations(range(len(found)))))


@settings(max_examples=60)
@given(worlds())
def test_whoever_else_there_is_one_honest_peer_is_enough(world: World) -> None:
    """And it takes not much longer than from it alone, though the others are slow or liars."""
    good = world.peers["good"]
    total = sum(world.sizes)
    pauses_s = sum(downloads.PAUSE_S * 2**n for n in range(1, good.breaks + 1))
    alone_s = total / good.pace + good.rtt_s * (2 + total / BATCH_BYTES_FIRST)
    world.run()
    assert world.download.done
    assert sorted(world.got) == list(range(len(world.sizes)))
    assert world.download.left_bytes == 0
    assert world.now <= 4 * alone_s + pauses_s + 100


@settings(max_examples=20)
@given(sizes)
def test_nobody_left_is_known_at_once(found: list[int]) -> None:
    world = World(found, {"liar": Peer(kind="liar"), "empty": Peer(lacks=frozenset(range(60)))})
    world.run()
    assert world.download.stuck
    assert not world.download.done
    assert world.got == []


def test_a_line_that_breaks_is_tried_again_and_given_up_in_the_end() -> None:
    world = World([MB], {"p": Peer(breaks=3)})
    world.run()
    assert world.download.done
    world = World([MB], {"p": Peer(breaks=4)})
    world.run()
    assert world.download.stuck


def test_the_faster_peer_brings_more() -> None:
    world = World([MB] * 200, {"fast": Peer(pace=20 * MB), "slow": Peer(pace=2 * MB)})
    world.run()
    fast, slow = (len(world.peers[name].sent) for name in ("fast", "slow"))
    assert fast > 5 * slow > 0
    assert world.now < 200 / 20


@pytest.mark.parametrize("kind", ["honest", "silent"])
def test_at_the_end_the_slow_one_gives_up_its_parts(kind: str) -> None:
    slow = Peer(pace=0.02 * MB, kind=kind, rtt_s=0.001)
    world = World([MB] * 20, {"slow": slow, "fast": Peer(pace=10 * MB)})
    world.run()
    assert world.now < 5
    assert len(world.peers["fast"].sent) == 20


def test_the_nearer_of_two_is_asked_first() -> None:
    download = Download([MB], [0])
    download.join("far", 0.2)
    download.join("near", 0.01)
    assert [step.source for step in download.step(0.0) if isinstance(step, Ask)] == ["near"]


def test_a_known_pace_counts_more_than_the_distance() -> None:
    download = Download([MB] * 64, range(64))
    download.join("far", 0.2)
    download.join("near", 0.01)
    asked = {step.source: step for step in download.step(0.0) if isinstance(step, Ask)}
    for name, took_s in (("far", 0.3), ("near", 20.0)):
        for part in asked[name].parts:
            download.came(asked[name].batch, part, took_s)
        download.ended(asked[name].batch)
    first = next(step for step in download.step(20.0) if isinstance(step, Ask))
    assert first.source == "far"


def test_what_is_elsewhere_is_insisted_on_only_when_nobody_else_has_it() -> None:
    pointing = Peer(elsewhere=frozenset(range(8)), pace=50 * MB)
    world = World([MB] * 8, {"daemon": pointing, "near": Peer(lacks=frozenset({3, 5}))})
    world.run()
    assert world.download.done
    assert sorted(world.insisted) == [3, 5]
    assert sorted(world.peers["daemon"].sent) == [3, 5]


def test_a_neighbour_is_asked_for_what_it_was_named_for() -> None:
    download = Download([MB] * 4, range(4))
    download.join("n", 0.0, only=[1])
    download.join("n", 0.0, only=[2])
    asked = [step for step in download.step(0.0) if isinstance(step, Ask)]
    assert [part for step in asked for part in step.parts] == [1, 2]


def test_parts_that_could_not_be_used_are_asked_for_again() -> None:
    download = Download([MB] * 2, range(2))
    download.join("p", 0.0)
    (ask,) = download.step(0.0)
    assert isinstance(ask, Ask)
    download.again(ask.batch, 1)
    (again,) = download.step(0.0)
    assert isinstance(again, Ask)
    assert again.parts == (1,)


def test_a_source_that_is_out_never_comes_back() -> None:
    download = Download([MB], [0])
    download.join("p", 0.0)
    download.out("p")
    download.join("p", 0.0)
    assert download.step(0.0) == []
    assert download.stuck


@settings(max_examples=50)
@given(st.lists(st.integers(1, 8 * MB), max_size=200), st.randoms(use_true_random=False))
def test_scattered_parts_are_all_there_in_runs(found: list[int], chance: Random) -> None:
    parts = scattered(range(len(found)), found, chance)
    assert sorted(parts) == list(range(len(found)))
    behind = accumulate(found[part] for part in parts)
    window = WINDOW_RUNS * (BATCH_BYTES_FIRST + max(found, default=0))
    assert all(sum(found[:part]) <= came + window for part, came in zip(parts, behind, strict=True))
    jumps = sum(b != a + 1 for a, b in pairwise(parts))
    assert jumps <= sum(found) // BATCH_BYTES_FIRST + 1


def test_a_crowd_asks_for_different_parts_first() -> None:
    sizes = [BATCH_BYTES_FIRST] * WINDOW_RUNS
    first = {scattered(range(WINDOW_RUNS), sizes, Random(seed))[0] for seed in range(50)}
    assert len(first) > WINDOW_RUNS // 2


def test_a_source_is_believed_twice_that_others_have_a_part() -> None:
    """The second time it may name others, and whoever waited for the part may have it by then."""
    pointing = Peer(elsewhere=frozenset({0}), pace=50 * MB)
    world = World([MB], {"daemon": pointing})
    asked: list[bool] = []
    step = world.download.step

    def noted(now: float) -> list[Ask | Drop]:
        steps = step(now)
        asked.extend(each.insist for each in steps if isinstance(each, Ask))
        return steps

    world.download.step = noted  # type: ignore[method-assign]  # only to look
    world.run()
    assert asked == [False] * POINTED_MAX + [True]


def test_nobody_hurries_because_a_neighbour_waits_for_the_part_itself() -> None:
    download = Download([MB], [0])
    download.join("daemon", 0.001)
    (first,) = download.step(0.0)
    assert isinstance(first, Ask)
    download.lacks(first.batch, 0, elsewhere=True)
    download.ended(first.batch)
    download.join("near", 0.001, only=[0])
    (second,) = download.step(0.0)
    assert isinstance(second, Ask)
    assert second.source == "near"
    assert download.step(NEIGHBOUR_SILENT_S - 1) == []
    (third,) = download.step(NEIGHBOUR_SILENT_S + 1)
    assert isinstance(third, Ask)
    assert third.source == "daemon"


def test_who_is_named_again_may_have_it_by_now() -> None:
    download = Download([MB], [0])
    download.join("near", 0.0, only=[0])
    (first,) = download.step(0.0)
    assert isinstance(first, Ask)
    download.lacks(first.batch, 0)
    download.ended(first.batch)
    assert download.stuck
    download.join("near", 0.0, only=[0])
    assert not download.stuck
    assert download.step(1.0)
