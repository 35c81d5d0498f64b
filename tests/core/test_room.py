"""A disk that fills up stops what is new, first ours, then others'; never what undoes harm."""

from __future__ import annotations

from random import Random

import pytest
from federation import CHAIN, CODEC, MODEL, Author, key, manifest, origin

from hanse.core import events
from hanse.core.errors import Unavailable
from hanse.core.events import Body
from hanse.core.gossip.frames import Announce
from hanse.core.ids import Digest, EventId, segment
from hanse.core.node import Clock, Node
from hanse.core.room import Level, Room, check_room

MIB = 2**20
ENOUGH = Room(100 * MIB, 1000 * MIB, 10 * MIB, True)
LOW = Room(49 * MIB, 1000 * MIB, 10 * MIB, True)
FULL = Room(9 * MIB, 1000 * MIB, 10 * MIB, True)
EU, RELEASE, EVENT = segment("eu"), Digest.of(b"release"), EventId(bytes(32))


def control(action: str) -> Body:
    return events.RolloutControl(MODEL, segment("r-1"), 1, action)


URGENT: list[Body] = [
    events.Hold(MODEL, EU, RELEASE, "worse"),
    events.Kill(MODEL, RELEASE, "bad"),
    events.FloorRaise(MODEL, 2, "old"),
    events.Rollback(MODEL, EU, EVENT, RELEASE, RELEASE, "worse"),
    events.RolloutReport(MODEL, segment("r-1"), 1, RELEASE, EU, "held", 0, 0),
    events.LogOpen(1),
    control("pause"),
    control("abort"),
]
NEW: list[Body] = [
    events.ReleaseRecord(MODEL, manifest("1.0").version, 1, manifest("1.0").encode()),
    events.RolloutIntent(MODEL, segment("r-1"), 1, RELEASE, None, b"{}"),
    events.Promote(MODEL, EU, RELEASE, 9, 1),
    events.HoldLift(MODEL, EVENT),
    events.BlobHave(MODEL, (RELEASE,)),
    events.Note("hello"),
    control("resume"),
]


@pytest.mark.parametrize(
    ("free", "level"),
    [(50, Level.ENOUGH), (49, Level.LOW), (10, Level.LOW), (9, Level.FULL), (0, Level.FULL)],
)
def test_five_percent_are_low_and_less_than_the_reserve_is_full(free: int, level: Level) -> None:
    assert Room(free * MIB, 1000 * MIB, 10 * MIB, True).level is level


@pytest.mark.parametrize("body", URGENT, ids=lambda body: type(body).__name__)
@pytest.mark.parametrize("room", [None, ENOUGH, LOW, FULL])
def test_what_undoes_harm_is_always_taken(room: Room | None, body: Body) -> None:
    check_room(room, body)


@pytest.mark.parametrize("body", NEW, ids=lambda body: type(body).__name__)
def test_what_is_new_waits_for_room_and_says_so(body: Body) -> None:
    check_room(None, body)
    check_room(ENOUGH, body)
    for room in (LOW, FULL):
        with pytest.raises(Unavailable, match=r"disk is nearly full.*free some space"):
            check_room(room, body)


def node() -> Node:
    made = Node(origin("eu"), key("eu"), b"eu", CODEC, CHAIN, Random(1))
    made.open("test")
    made.take(Clock(0.0, 0))
    return made


def test_a_node_refuses_what_is_new_and_logs_a_hold() -> None:
    eu = node()
    eu.set_room(LOW)
    with pytest.raises(Unavailable, match="nearly full"):
        eu.propose(events.Note("hello"))
    ticket = eu.propose(events.Hold(MODEL, EU, None, "INC-1"))
    eu.take(Clock(1.0, 0))
    assert ticket.event is not None
    eu.set_room(ENOUGH)
    eu.propose(events.Note("hello"))


@pytest.mark.parametrize(("room", "size"), [(ENOUGH, 1), (LOW, 1), (FULL, 0)])
def test_events_of_others_are_taken_until_the_rest_is_for_our_own(room: Room, size: int) -> None:
    eu, us = node(), Author("us")
    us.write(events.LogOpen(1))
    (append,) = us.appends
    peer = us.origin.member
    eu.link_up(peer, b"us", Clock(1.0, 0))
    eu.sync.links[peer].proven = True
    eu.set_room(room)
    news = Announce(us.origin, append.head.note, 0, append.events)
    eu.frame(peer, news, Clock(1.0, 0))
    assert eu.book.size(us.origin) == size
    asked = [send for send in eu.take(Clock(1.0, 0)).send if "Pull" in type(send.frame).__name__]
    assert asked == []
    eu.set_room(ENOUGH)
    eu.frame(peer, news, Clock(2.0, 0))
    assert eu.book.size(us.origin) == 1
