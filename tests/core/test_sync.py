"""Sync: everybody gets everything, from whoever has it; lies and losses cost time only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import pytest
from federation import CHAIN, CODEC, REGIONS, ROOT, Author, key, members, origin
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core import limits
from hanse.core.effects import Dial, HangUp, Log, Serve, Undial
from hanse.core.events import Note
from hanse.core.gossip.frames import (
    Announce,
    Chunk,
    Frame,
    Heads,
    Hello,
    HelloProof,
    LogHead,
    Pull,
    TrustFile,
)
from hanse.core.gossip.overlay import Overlay, bridges, degree, neighbours, random_link
from hanse.core.gossip.sync import PROOF_TIMEOUT_S, Sync
from hanse.core.ids import MemberId, Segment
from hanse.core.log.checkpoint import open_checkpoint
from hanse.core.logbook import Logbook
from hanse.core.step import PutTrust
from hanse.core.trust import chain

EU, US, AP = (origin(r) for r in REGIONS)
MEMBER = members().members[0]
SECOND = chain.sign(members(version=2), (ROOT,), CHAIN)

# -- the overlay ---------------------------------------------------------------

ids = st.sets(st.integers(0, 2**64), min_size=2, max_size=70).map(
    lambda numbers: [MemberId(f"{n:032x}") for n in sorted(numbers)]
)


@settings(deadline=None)
@given(ids, st.text(max_size=5))
def test_the_overlay_is_connected_mutual_and_bounded(members: list[MemberId], seed: str) -> None:
    near = {m: neighbours(m, members, seed) for m in members}
    for member, others in near.items():
        assert member not in others
        assert len(others) <= degree(len(members))
        assert all(member in near[other] for other in others), "an edge has two ends"
    reached, open_ = set(), [members[0]]
    while open_:
        member = open_.pop()
        if member not in reached:
            reached.add(member)
            open_ += near[member]
    assert reached == set(members)
    assert len(members) > 5 or all(len(others) == len(members) - 1 for others in near.values())


@settings(deadline=None)
@given(ids, st.integers(0, 99))
def test_the_random_link_leads_beyond_the_rings(members: list[MemberId], seed: int) -> None:
    near = neighbours(members[0], members, "s")
    found = random_link(members[0], members, near, Random(seed))
    assert found is None or found not in {*near, members[0]}
    assert (found is None) == (set(members) == {*near, members[0]})


def test_everybody_computes_the_same_rings() -> None:
    members = [MemberId(f"{n:032x}") for n in range(9)]
    turned = [*members[4:], *members[:4]]
    assert all(neighbours(m, members, "s") == neighbours(m, turned, "s") for m in members)
    assert any(neighbours(m, members, "s") != neighbours(m, members, "t") for m in members)


@settings(deadline=None)
@given(ids, st.integers(2, 5), st.text(max_size=5))
def test_every_daemon_hears_two_other_regions(
    members: list[MemberId], count: int, seed: str
) -> None:
    """However many daemons one region runs: it is not all that a daemon of it hears."""
    regions = {m: Segment(f"r{0 if i % 9 else i % count}") for i, m in enumerate(members)}
    for me in members:
        near = neighbours(me, members, seed)
        across = bridges(me, regions, near, seed)
        heard = {regions[m] for m in {*near, *across}} - {regions[me]}
        assert len(heard) >= min(2, len({*regions.values()} - {regions[me]}))
        assert len(across) <= 2
        assert me not in across


@settings(deadline=None)
@given(st.integers(6, 60), st.integers(0, 99))
def test_a_daemon_whose_callers_are_all_hostile_still_dials_whom_they_cannot_choose(
    count: int, seed: int
) -> None:
    """T22: hostile members may call as often as they like, and stand next to us on every ring."""
    listed = [replace(MEMBER, key=key(f"member {i}").public) for i in range(count)]
    current = members(members=tuple(listed))
    me, overlay = listed[0].id, Overlay(listed[0].id, Random(seed))
    near = neighbours(me, [m.id for m in listed], current.ring_seed)
    dialled = {d.member for d in overlay.changes(current, (), 0.0)}
    assert dialled == {m for m in near if me < m} | (dialled - set(near))
    assert len(dialled - set(near)) == 1
    assert overlay.changes(current, (), limits.RANDOM_LINK_S - 1) == [], "for an hour"


def test_another_trust_cuts_nobody_off_before_its_news_has_left() -> None:
    """T22: who has not heard of it would be left with the links of one who withholds it."""
    listed = [replace(MEMBER, key=key(f"member {i}").public) for i in range(40)]
    before = members(members=tuple(listed))
    after = replace(before, digest=b"2", ring_seed="other", members=before.members[:-1])
    me = min(m.id for m in before.members[:-1])  # of two neighbours the lower dials
    overlay = Overlay(me, Random(1))
    old = {d.member for d in overlay.changes(before, (), 0.0)}
    changes = overlay.changes(after, (), 1.0)
    removed = {m.id for m in before.members} - {m.id for m in after.members}
    assert {c.member for c in changes if isinstance(c, Undial)} == old & removed
    new = {c.member for c in changes if isinstance(c, Dial)}
    later = overlay.changes(after, (), 1.0 + limits.LINGER_S)
    assert later, "the rings differ"
    assert {c.member for c in later} <= old - new
    assert all(isinstance(c, Undial) for c in later)


# -- conversations -------------------------------------------------------------


@dataclass
class Peer:
    """A `Sync` over a log book, and what it has written itself."""

    region: str
    author: Author = field(init=False)
    sync: Sync = field(init=False)

    def __post_init__(self) -> None:
        self.author = Author(self.region, book=Logbook(CODEC, CHAIN))
        self.book = self.author.book
        me = origin(self.region)
        spki = self.region.encode()
        self.sync = Sync(me, key(self.region), spki, self.book, Random(self.region))

    @property
    def id(self) -> MemberId:
        return origin(self.region).member

    def write(self, text: str = "news") -> None:
        self.author.write(Note(text))
        self.sync.news(self.author.appends[-1], None)

    def said(self) -> list[tuple[MemberId, Frame]]:
        out = [(send.peer, send.frame) for send in self.sync.out]
        self.sync.out.clear()
        return out

    def kinds(self) -> list[str]:
        return [type(frame).__name__ for _, frame in self.said()]

    def logs(self) -> list[str]:
        return [e.event for e in self.sync.effects if isinstance(e, Log)]

    def hang_ups(self) -> list[str]:
        return [e.reason for e in self.sync.effects if isinstance(e, HangUp)]


class Net:
    """Peers that hear each other at once, unless told otherwise."""

    def __init__(self, *regions: str) -> None:
        self.peers = {origin(r).member: Peer(r) for r in regions}
        self.now_s = 0.0
        self.lost: set[str] = set()
        self.carried: list[str] = []

    def __getitem__(self, region: str) -> Peer:
        return self.peers[origin(region).member]

    def link(self, a: str, b: str) -> None:
        self[a].sync.link_up(self[b].id, b.encode(), self.now_s)
        self[b].sync.link_up(self[a].id, a.encode(), self.now_s)

    def settle(self) -> None:
        for _ in range(200):
            waiting = [(p, *said) for p in self.peers.values() for said in p.said()]
            waiting += [w for p in self.peers.values() for w in self.served(p)]
            if not waiting:
                return
            for source, target, frame in waiting:
                kind = type(frame).__name__
                self.carried.append(kind)
                if kind not in self.lost:
                    self.peers[target].sync.frame(source.id, frame, self.now_s)
        raise AssertionError("they never stop talking")

    def served(self, peer: Peer) -> list[tuple[Peer, MemberId, Frame]]:
        """What a store would answer: one append at a time, so that catching up takes several."""
        answers: list[tuple[Peer, MemberId, Frame]] = []
        for effect in [e for e in peer.sync.effects if isinstance(e, Serve)]:
            peer.sync.effects.remove(effect)
            for other in self.peers.values():
                for append in other.author.appends:
                    if append.head.origin == effect.origin and append.start == effect.start:
                        chunk = Chunk(effect.origin, append.start, append.events, append.head.note)
                        answers.append((peer, effect.peer, chunk))
        return answers

    def tick(self, seconds: float) -> None:
        self.now_s += seconds
        for peer in self.peers.values():
            peer.sync.tick(self.now_s)
        self.settle()

    @property
    def agreed(self) -> bool:
        return len({peer.book.digest for peer in self.peers.values()}) == 1


def trio() -> Net:
    net = Net(*REGIONS)
    for a, b in (("eu", "us"), ("us", "ap"), ("eu", "ap")):
        net.link(a, b)
    net.settle()
    return net


def pair() -> Net:
    net = Net("eu", "us")
    net.link("eu", "us")
    net.settle()
    return net


def test_news_reach_everybody_without_a_tick() -> None:
    net = trio()
    net["eu"].write()
    net.settle()
    assert net.agreed
    assert net["ap"].book.size(EU) == 1


def test_who_was_away_catches_up_on_linking() -> None:
    net = Net("eu", "us")
    for i in range(5):
        net["eu"].write(str(i))
        net["us"].write(str(i))
    net.link("eu", "us")
    net.settle()
    assert net.agreed
    assert net["us"].book.size(EU) == 5


def test_only_what_is_new_is_passed_on() -> None:
    """A line eu - us - ap: us passes eu's news to ap once, and nothing back."""
    net = Net(*REGIONS)
    net.link("eu", "us")
    net.link("us", "ap")
    net.settle()
    net["eu"].write()
    for _, frame in net["eu"].said():
        for _ in range(3):
            net["us"].sync.frame(net["eu"].id, frame, 0)
    said = net["us"].said()
    assert [(peer, type(frame)) for peer, frame in said] == [(net["ap"].id, Announce)]


def test_an_announcement_does_not_circle() -> None:
    net = trio()
    net.carried.clear()
    net["eu"].write()
    net.settle()
    assert net.carried.count("Announce") <= 4


def test_a_large_append_is_announced_and_then_pulled() -> None:
    net = pair()
    texts = [Note("x" * 500) for _ in range(1 + limits.INLINE_BYTES_MAX // 500)]
    net["eu"].author.write(*texts)
    net["eu"].sync.news(net["eu"].author.appends[-1], None)
    net.settle()
    assert {"Pull", "Chunk"} <= set(net.carried)
    assert net.agreed


@pytest.mark.parametrize("kind", ["Announce", "Heads", "Fingerprints", "Pull", "Chunk", "Ping"])
def test_any_lost_frame_is_made_up_for_by_pings(kind: str) -> None:
    net = pair()
    net.lost = {kind}
    for _ in range(3):
        net["eu"].write()
    net.settle()
    net.lost = set()
    for _ in range(3):
        net.tick(limits.ANTI_ENTROPY_S * 1.2)
    net.tick(limits.PULL_TIMEOUT_S)
    assert net.agreed


def test_equal_daemons_only_ping() -> None:
    net = trio()
    net.carried.clear()
    for _ in range(4):
        net.tick(limits.ANTI_ENTROPY_S * 1.2)
    assert set(net.carried) == {"Ping"}


def test_heads_are_compared_once_in_a_period_however_often_the_clock_ticks() -> None:
    net = pair()
    net.carried.clear()
    for _ in range(200):
        net.tick(0.25)  # fifty seconds in all
    rounds = 50 / (limits.ANTI_ENTROPY_S * (1 - limits.ANTI_ENTROPY_JITTER)) + 1
    assert 2 <= net.carried.count("Ping") <= 2 * rounds


def test_a_gap_is_pulled() -> None:
    net = pair()
    net["eu"].write()
    net["eu"].said()  # the first announcement is lost
    net["eu"].write()
    net.settle()
    assert net.agreed


def test_a_pull_that_is_not_answered_goes_to_the_next() -> None:
    eu, us, ap = Peer("eu"), Peer("us"), Peer("ap")
    eu.write()
    append = eu.author.appends[0]
    for other in (eu, us):
        ap.sync.link_up(other.id, other.region.encode(), 0)
        ap.sync.links[other.id].proven = True
        ap.sync.frame(other.id, Heads((LogHead(EU, 1, append.head.root[:8]),)), 0)
    asked = [peer for peer, frame in ap.said() if isinstance(frame, Pull)]
    ap.sync.tick(limits.PULL_TIMEOUT_S + 0.1)
    again = [peer for peer, frame in ap.said() if isinstance(frame, Pull)]
    assert len(asked) == len(again) == 1
    assert asked != again


def test_a_peer_that_promises_and_sends_nothing_new_is_not_asked_in_a_circle() -> None:
    net = pair()
    eu, us = net["eu"], net["us"]
    promise = Heads((LogHead(EU, 99, b"12345678"),))
    us.sync.frame(eu.id, promise, 0)
    assert us.kinds() == ["Pull"]
    us.sync.frame(eu.id, Chunk(EU, 0, (), b""), 0)
    assert us.kinds() == []


def test_a_chunk_with_a_wrong_root_is_refused_and_says_so() -> None:
    net = pair()
    eu, us = net["eu"], net["us"]
    other = Author("eu", hlc_ms=5)
    eu.write("one")
    other.write(Note("another"))
    eu.said()
    wrong = Chunk(EU, 0, other.appends[0].events, eu.author.appends[0].head.note)
    us.sync.frame(eu.id, wrong, 0)
    assert us.book.size(EU) == 0
    assert us.logs() == ["frame_rejected"]


def test_a_log_of_a_stranger_is_neither_asked_for_nor_remembered() -> None:
    net = pair()
    eu, us = net["eu"], net["us"]
    strangers = (
        replace(EU, federation="other"),
        replace(EU, member=origin("nobody").member),
        replace(EU, region="us"),
    )
    heads = tuple(LogHead(stranger, 3, b"12345678") for stranger in strangers)
    us.sync.frame(eu.id, Heads(heads), 0)
    assert "Pull" not in us.kinds()
    assert us.sync.links[eu.id].theirs == {}


def test_claims_of_endless_incarnations_do_not_fill_the_memory() -> None:
    net = pair()
    eu, us = net["eu"], net["us"]
    for part in range(5):
        heads = tuple(
            LogHead(origin("eu", 1000 * part + i), 3, b"12345678") for i in range(1, 1000)
        )
        us.sync.frame(eu.id, Heads(heads), 0)
    assert len(us.sync.links[eu.id].theirs) <= 1003


def test_what_somebody_else_has_written_in_our_name_is_taken_and_told() -> None:
    net = pair()
    eu, us = net["eu"], net["us"]
    twin = Author("us", hlc_ms=7)
    twin.write(Note("not by us"))
    append = twin.appends[0]
    us.sync.frame(eu.id, Announce(US, append.head.note, 0, append.events), 0)
    assert us.sync.selves.usurped == [US]
    assert us.book.size(US) == 1


def test_a_greeting_says_what_we_hold_of_the_other_sides_logs() -> None:
    net = pair()
    eu, us = net["eu"], net["us"]
    us.write()
    net.settle()
    eu.sync.link_up(us.id, b"us", 0)
    (hello,) = [frame for _, frame in eu.said() if isinstance(frame, Hello)]
    head = us.book.heads[US]
    assert hello.yours == (LogHead(US, 1, head.root[:8]),)
    assert hello.boot_nonce == eu.sync.selves.boot_nonce != us.sync.selves.boot_nonce


def test_a_peer_that_takes_other_logs_for_ours_is_hung_up() -> None:
    net = pair()
    eu, us = net["eu"], net["us"]
    current = CHAIN.current
    yours = (LogHead(origin("ap"), 1, b"12345678"),)
    hello = Hello("acme", EU, 1, current.digest, b"n", bytes(32), b"boot", yours)
    us.sync.frame(eu.id, hello, 0)
    assert us.hang_ups() == ["it takes other logs for ours"]


def test_a_second_start_of_a_member_that_lives_is_told_to_it() -> None:
    net = pair()
    eu, us = net["eu"], net["us"]
    us.sync.second(eu.id, eu.sync.selves.boot_nonce, 1.0)
    us.sync.second(eu.id, b"", 1.0)
    assert us.said() == [], "the same start, dialling twice, is no clone"
    us.sync.second(eu.id, b"another start", 1.0)
    us.sync.second(eu.id, b"another start", 2.0)
    net.settle()
    assert eu.sync.selves.rivals == {us.id: b"another start"}
    assert us.logs().count("two_processes_one_key") == 1
    assert us.sync.selves.doubles == {eu.id: 2.0}


# -- who is there --------------------------------------------------------------


def test_a_link_proves_both_ends_before_anything_counts() -> None:
    net = pair()
    assert [link.peer for link in net["eu"].sync.proven()] == [net["us"].id]
    assert [link.peer for link in net["us"].sync.proven()] == [net["eu"].id]


def test_an_unproven_link_is_not_listened_to() -> None:
    net = Net("eu", "us")
    us = net["us"]
    us.sync.link_up(net["eu"].id, b"eu", 0)
    net["eu"].author.write(Note("hear me"))
    append = net["eu"].author.appends[0]
    us.said()
    us.sync.frame(net["eu"].id, Announce(EU, append.head.note, 0, append.events), 0)
    us.sync.frame(net["eu"].id, Pull(US, 0), 0)
    assert us.book.size(EU) == 0
    assert us.said() == []
    assert us.sync.effects == []


def hello(region: str, **changes: object) -> Hello:
    current = CHAIN.current
    whole = Hello("acme", origin(region), current.version, current.digest, b"n" * 16, bytes(32))
    return replace(whole, **changes)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (hello("eu", federation="other"), "belongs to federation other"),
        (hello("ap"), "its log is not that of its certificate"),
        (HelloProof(bytes(64)), "signature"),
    ],
)
def test_who_is_not_who_it_says_is_hung_up_on(frame: Frame, why: str) -> None:
    us = Peer("us")
    us.sync.link_up(EU.member, b"eu", 0)
    us.sync.frame(EU.member, frame, 0)
    assert any(why in reason for reason in us.hang_ups())
    assert us.sync.links == {}


def test_a_proof_for_another_connection_is_worthless() -> None:
    """The proof binds both TLS keys and both nonces: a man in the middle has other keys."""
    net = Net("eu", "us")
    net["eu"].sync.link_up(net["us"].id, b"the middle", 0)
    net["us"].sync.link_up(net["eu"].id, b"the middle", 0)
    net.settle()
    assert net["eu"].sync.proven() == net["us"].sync.proven() == []
    assert net["eu"].hang_ups()


def test_a_peer_that_proves_nothing_in_time_is_hung_up_on() -> None:
    us = Peer("us")
    us.sync.link_up(EU.member, b"eu", 0)
    us.sync.tick(PROOF_TIMEOUT_S + 0.1)
    assert us.hang_ups() == ["did not prove who it is in time"]


# -- trust ---------------------------------------------------------------------


def versions(net: Net) -> list[int]:
    return [peer.book.chain.current.version for peer in net.peers.values()]


def test_a_trust_file_spreads() -> None:
    net = trio()
    net["eu"].sync.trust.extend(SECOND, None)
    net.settle()
    assert versions(net) == [2, 2, 2]
    assert net["ap"].sync.trust.writes == [PutTrust(2, SECOND)]


def test_who_comes_late_gets_every_version_it_lacks() -> None:
    net = Net("eu", "us")
    third = chain.sign(members(version=3), (ROOT,), chain.extend(CHAIN, SECOND))
    net["eu"].sync.trust.extend(SECOND, None)
    net["eu"].sync.trust.extend(third, None)
    net.link("eu", "us")
    net.settle()
    assert versions(net) == [3, 3]


def test_a_lost_trust_file_is_missed_at_the_next_ping() -> None:
    net = pair()
    net.lost = {"TrustFile"}
    net["eu"].sync.trust.extend(SECOND, None)
    net.settle()
    assert versions(net) == [2, 1]
    net.lost = set()
    net.tick(limits.ANTI_ENTROPY_S * 1.2)
    assert versions(net) == [2, 2]


def test_a_trust_file_that_comes_while_a_link_is_proved_is_not_missed() -> None:
    """eu greets under version 1, learns version 2, and only then knows who us is."""
    net = Net("eu", "us")
    net.link("eu", "us")
    net["eu"].sync.trust.extend(SECOND, None)
    net.settle()
    net.tick(limits.ANTI_ENTROPY_S * 1.2)
    assert versions(net) == [2, 2]


def test_an_author_that_stalled_goes_on_when_trust_arrives() -> None:
    net = pair()
    net.lost = {"TrustFile"}
    net["eu"].sync.trust.extend(SECOND, None)
    net["eu"].write()
    net.settle()
    assert net["us"].book.stalled == {EU: "trust version 2 has not reached us"}
    net.lost = set()
    for _ in range(3):
        net.tick(limits.ANTI_ENTROPY_S * 1.2)
    assert net["us"].book.stalled == {}
    assert net.agreed


def test_a_trust_file_that_nobody_signed_goes_no_further() -> None:
    net = pair()
    forged = chain.sign(members(version=2), (key("nobody"),), CHAIN)
    net["us"].sync.frame(net["eu"].id, TrustFile(2, 0, 1, forged), 0)
    assert versions(net) == [1, 1]
    assert net["us"].logs() == ["frame_rejected"]
    assert net["us"].said() == []


def test_parts_of_a_trust_file_may_come_in_any_order() -> None:
    us = pair()["us"]
    half = len(SECOND) // 2
    us.sync.frame(EU.member, TrustFile(2, 1, 2, SECOND[half:]), 0)
    us.sync.frame(EU.member, TrustFile(2, 1, 2, SECOND[half:]), 0)
    us.sync.frame(EU.member, TrustFile(2, 0, 2, SECOND[:half]), 0)
    assert us.book.chain.current.version == 2


def test_parts_that_do_not_belong_together_are_not_put_together() -> None:
    """Part 5 of 6 and then part 0 of 2: two parts, and yet no file."""
    us = pair()["us"]
    us.sync.frame(EU.member, TrustFile(2, 5, 6, b"x"), 0)
    us.sync.frame(EU.member, TrustFile(2, 0, 2, b"x"), 0)
    assert us.book.chain.current.version == 1
    us.sync.frame(EU.member, TrustFile(2, 0, 1, SECOND), 0)
    assert us.book.chain.current.version == 2


def test_what_is_announced_is_signed_by_its_author() -> None:
    net = trio()
    net["eu"].write()
    (announce, *_) = [f for _, f in net["eu"].said() if isinstance(f, Announce)]
    assert open_checkpoint(announce.note, str(EU), key("eu").public).size == 1
