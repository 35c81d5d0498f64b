"""Two head maps find what they do not share, and the bytes follow the difference."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from federation import CHAIN, origin
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sync import Net, Peer

from hanse.core import limits
from hanse.core.effects import Log
from hanse.core.gossip import reconcile
from hanse.core.gossip.frames import Fingerprints, Frame, Heads, Ping, Pull, Range
from hanse.core.gossip.heads import EVERYTHING, HeadMap, digest
from hanse.core.gossip.overlay import degree
from hanse.core.ids import MemberId, Origin
from hanse.core.step import Head
from hanse.rpc.codec import encode_frame

EU = origin("eu")
SALT = b"s" * 32
GRPC_BYTES = 5  # what gRPC puts before every message


def log(number: int) -> Origin:
    return origin("ap", number + 1)


def head(number: int, size: int) -> Head:
    where = log(number)
    return Head(where, size, hashlib.sha256(f"{number}/{size}".encode()).digest(), b"", b"")


def head_map(sizes: dict[int, int]) -> HeadMap:
    heads = HeadMap()
    for number, size in sizes.items():
        heads[log(number)] = head(number, size)
    return heads


maps = st.dictionaries(st.integers(0, 300), st.integers(1, 3))


# -- the digest ----------------------------------------------------------------


@given(maps, maps)
def test_a_digest_is_that_of_what_is_held_and_not_of_how_it_came(
    first: dict[int, int], then: dict[int, int]
) -> None:
    grown = head_map(first)
    for number, size in then.items():
        grown.fingerprint(EVERYTHING)  # so that there is something to forget
        grown[log(number)] = head(number, size)
    for number in first:
        if number not in then:
            del grown[log(number)]
    assert digest(grown, b"t") == digest(head_map(then), b"t")
    assert grown.count(EVERYTHING) == len(grown) == len(then)


@given(maps, maps)
def test_unequal_maps_have_unequal_digests(one: dict[int, int], other: dict[int, int]) -> None:
    equal = digest(head_map(one), b"t") == digest(head_map(other), b"t")
    assert equal == (one == other)


def test_the_digest_covers_the_trust() -> None:
    assert digest(HeadMap(), b"t") != digest(HeadMap(), b"u")


# -- the conversation ----------------------------------------------------------


def converse(ours: HeadMap, theirs: HeadMap) -> tuple[list[set[Origin]], list[Frame]]:
    """What each side learns that it lacks, when we begin; and all that was said."""
    maps, lacking, said = [ours, theirs], [set[Origin](), set[Origin]()], []
    waiting: list[tuple[int, Frame]] = [
        (1, frame) for frame in reconcile.describe(ours, [EVERYTHING], SALT)
    ]
    while waiting:
        to, frame = waiting.pop(0)
        said.append(frame)
        held = maps[to]
        answers: list[Fingerprints | Heads] = []
        if isinstance(frame, Fingerprints):
            answers += reconcile.describe(held, reconcile.differing(held, frame, SALT), SALT)
        elif isinstance(frame, Heads):
            claims = {h.origin: h.size for h in frame.heads}
            lacking[to] |= {o for o, n in claims.items() if o not in held or held[o].size < n}
            answers += reconcile.tell(reconcile.unknown(held, frame)) if frame.below else []
        waiting += [(1 - to, answer) for answer in answers]
    return lacking, said


@settings(deadline=None)
@given(maps, maps, maps)
def test_each_side_learns_exactly_what_it_lacks(
    shared: dict[int, int], ours: dict[int, int], theirs: dict[int, int]
) -> None:
    one, other = shared | ours, shared | theirs
    lacking, _ = converse(head_map(one), head_map(other))
    assert lacking[0] == {log(n) for n in other if one.get(n, 0) < other[n]}
    assert lacking[1] == {log(n) for n in one if other.get(n, 0) < one[n]}


def test_no_list_names_more_than_the_ranges_that_differ() -> None:
    """The last list speaks only of heads that the other side lacks."""
    one, other = dict.fromkeys(range(300), 1), dict.fromkeys(range(300), 1) | {7: 2}
    _, said = converse(head_map(one), head_map(other))
    assert len(said) <= 4
    assert sum(len(f.heads) for f in said if isinstance(f, Heads)) <= reconcile.LISTED_MAX + 1


def test_a_whole_federation_is_told_in_frames_that_fit() -> None:
    longest = replace(EU, federation="f" * 64, region="r" * 64)
    many = HeadMap()
    for i in range(2500):
        where = replace(longest, incarnation=10**9 - 1 - i, salt="f" * 8)
        many[where] = Head(where, 2**63 - 1, bytes(32), b"", b"")
    question = Heads((), (EVERYTHING,))
    frames = reconcile.tell(reconcile.unknown(many, question))
    assert [len(frame.heads) for frame in frames] == [1000, 1000, 500]
    assert all(len(encode_frame(frame)) <= limits.FRAME_BYTES_MAX for frame in frames)


def test_a_range_that_is_asked_for_many_times_is_told_once() -> None:
    held = head_map(dict.fromkeys(range(50), 1))
    question = Heads((), (EVERYTHING, b"\1", b"\1\2", EVERYTHING) * 100)
    assert len(reconcile.unknown(held, question)) == 50
    nothing = Range(EVERYTHING, bytes(128))
    assert len(reconcile.differing(held, Fingerprints((nothing,) * 100), SALT)) <= 16


def test_fingerprints_of_one_link_say_nothing_on_another() -> None:
    """Two states of a log that were made to look alike would have to do so under any nonces."""
    held = head_map(dict.fromkeys(range(50), 1))
    (here,), (there,) = (
        reconcile.describe(held, [EVERYTHING], salt) for salt in (b"a" * 32, b"b" * 32)
    )
    assert here != there
    assert reconcile.salt(b"x", b"y") == reconcile.salt(b"y", b"x")


# -- what it costs -------------------------------------------------------------


def federation(logs: int, differ: int) -> Net:
    """Two linked daemons with so many logs; us lacks the last event of some of them."""
    net = Net("eu", "us")
    for region, size in (("eu", 2), ("us", 1)):
        for number in range(logs):
            net[region].book.heads[log(number)] = head(number, size if number < differ else 1)
    return net


def cost(net: Net) -> int:
    """Bytes both ways until nobody says more; what is pulled is not counted."""
    total = 0
    for _ in range(20):
        for peer in net.peers.values():
            for target, frame in peer.said():
                if not isinstance(frame, Pull):
                    total += len(encode_frame(frame)) + GRPC_BYTES
                    net.peers[target].sync.frame(peer.id, frame, net.now_s)
    return total


@pytest.mark.parametrize("logs", [3, 50, 500, 5000])
def test_equal_daemons_spend_less_than_two_hundred_bytes_a_round(logs: int) -> None:
    net = federation(logs, 0)
    net.link("eu", "us")
    cost(net)
    net.now_s += limits.ANTI_ENTROPY_S * 1.2
    for peer in net.peers.values():
        peer.sync.tick(net.now_s)
    assert 0 < cost(net) <= 200


@pytest.mark.parametrize("logs", [50, 500, 5000])
@pytest.mark.parametrize("differ", [0, 1, 10, 100, 1000])
def test_a_new_link_costs_what_differs(logs: int, differ: int) -> None:
    """A greeting, and at most some 600 bytes for each log: three short lists of fingerprints."""
    if differ > logs:
        return
    net = federation(logs, differ)
    net.link("eu", "us")
    spent = cost(net)
    assert spent <= 800 + 650 * differ
    assert len(net["us"].sync.links[net["eu"].id].theirs) == differ


def with_links(count: int) -> Peer:
    eu = Peer("eu")
    for number in range(count):
        peer = MemberId(f"{number:032x}")
        eu.sync.link_up(peer, b"spki", 0)
        eu.sync.links[peer].proven = True
    eu.said()
    return eu


def pinged(eu: Peer, now_s: float) -> list[Ping]:
    eu.sync.tick(now_s)
    return [frame for _, frame in eu.said() if isinstance(frame, Ping)]


def test_no_link_is_quiet_for_so_long_that_it_ends() -> None:
    """With the highest degree, two bridges and a random link."""
    eu = with_links(degree(10_000) + 2 + 1)
    quiet = dict.fromkeys(eu.sync.links, 0.0)
    for round_ in range(50):
        now_s = round_ * limits.ANTI_ENTROPY_S * (1 + limits.ANTI_ENTROPY_JITTER)
        assert len(pinged(eu, now_s)) <= limits.PINGS_PER_ROUND
        for peer, link in eu.sync.links.items():
            quiet[peer] = max(quiet[peer], now_s - max(0.0, link.pinged_s))
    assert max(quiet.values()) < limits.IDLE_READ_S


def test_a_link_that_was_just_heard_of_waits_for_its_turn() -> None:
    """One ping serves both ends."""
    eu = with_links(3)
    first, *others = sorted(eu.sync.links)
    eu.sync.frame(first, Ping(eu.book.digest, CHAIN.current.version), 1.0)
    eu.sync.tick(2.0)
    assert [peer for peer, frame in eu.said() if isinstance(frame, Ping)] == others


def test_whom_a_rollout_waits_for_is_asked_each_round_and_answers() -> None:
    eu = with_links(30)
    eu.sync.must_hear = sorted(eu.sync.links)[5:25]
    for round_ in range(3):
        pings = pinged(eu, round_ * limits.ANTI_ENTROPY_S * 1.3)
        assert sum(ping.answer for ping in pings) == 20
    us, (asked,) = with_links(1), {ping for ping in pings if ping.answer}
    us.sync.frame(MemberId("0" * 32), asked, 0)
    assert us.said() == [(MemberId("0" * 32), replace(asked, answer=False))]
    us.sync.frame(MemberId("0" * 32), replace(asked, answer=False), 0)
    assert us.said() == [], "and that is the end of it"


# -- hostile questions ---------------------------------------------------------


def test_a_peer_that_asks_without_end_is_answered_as_much_as_honest_ones_need() -> None:
    net = federation(500, 0)
    net.link("eu", "us")
    cost(net)
    eu, us = net["eu"], net["us"]
    told = 0
    for _ in range(100):
        eu.sync.frame(us.id, Heads((), (EVERYTHING,)), net.now_s)
        told += sum(len(frame.heads) for _, frame in eu.said() if isinstance(frame, Heads))
    assert 500 <= told <= limits.ANSWERS_PER_ROUND + 2 * 500
    assert any(e.event == "asked_too_often" for e in eu.sync.effects if isinstance(e, Log))
    eu.sync.tick(limits.ANTI_ENTROPY_S * 1.3)
    eu.said()
    eu.sync.frame(us.id, Heads((), (EVERYTHING,)), net.now_s)
    assert eu.kinds() == ["Heads"], "and goes on in the next round"


def test_made_up_fingerprints_cost_one_answer_each_and_change_nothing() -> None:
    net = federation(500, 0)
    net.link("eu", "us")
    cost(net)
    eu, us = net["eu"], net["us"]
    lies = tuple(Range(bytes([i % 16]), bytes(128)) for i in range(256))
    before = eu.book.digest
    eu.sync.frame(us.id, Fingerprints(lies), net.now_s)
    said = [frame for _, frame in eu.said()]
    assert sum(len(encode_frame(frame)) for frame in said) <= 500 * 200 + 256 * 150
    assert eu.book.digest == before


def test_an_author_that_is_behind_in_its_trust_is_greeted() -> None:
    """Equal logs, unequal digests: what differs is the trust, and Hello says which."""
    net = federation(50, 0)
    net.link("eu", "us")
    cost(net)
    eu, us = net["eu"], net["us"]
    (ours,) = reconcile.describe(us.book.heads, [EVERYTHING], us.sync.links[eu.id].salt)
    eu.book.heads = us.book.heads
    eu.sync.frame(us.id, ours, net.now_s)
    assert eu.kinds() == ["Hello"]
    eu.sync.frame(us.id, Ping(bytes(32), CHAIN.current.version + 1), net.now_s)
    assert eu.kinds() == ["Hello", "Fingerprints"]
