"""Whom a daemon names to a node: neighbours that are there, of its region, and with a ticket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from lonely import Lonely, chain, lonely

from hanse.core import ticket
from hanse.core.fleet import SHARE_FACT
from hanse.core.ids import Digest, Segment, segment
from hanse.core.limits import TICKET_S
from hanse.core.node import Clock
from hanse.core.signing import SigningKey
from hanse.core.telemetry import ModelReport, Report
from hanse.core.ticket import Ticket
from hanse.core.transfer.handed import COPIES
from hanse.core.transfer.wanted import Elsewhere, File, Wanted
from hanse.daemon import gate as gates
from hanse.daemon import neighbours
from hanse.daemon.gate import Gate
from hanse.daemon.neighbours import Neighbours
from hanse.rpc.tls import Peer

HERE, THERE = map(Segment, ("eu-north", "us-east"))
KEY = SigningKey(bytes(range(32)))
FILE = File(Digest.of(b"file"), Digest.of(b"release"))


def spki(name: str) -> bytes:
    return Digest.of(name.encode()).raw


class World:
    """The neighbours of a daemon that runs; time is what the test says."""

    def __init__(self, daemon: Lonely) -> None:
        self.node = daemon.node
        self.clock = Clock(1000.0, 1_800_000_000_000)
        self.neighbours = Neighbours(self.node, KEY, lambda: self.clock)

    def watch(self, *names: str) -> None:
        for name in names:
            self.node.fleet.watch(Segment(name), {SHARE_FACT: f"{name}:80"}, self.clock.now_s)

    def ask(
        self, name: str, *parts: int, insist: bool = False, region: str = HERE, kind: str = "edge"
    ) -> Mapping[int, Elsewhere]:
        peer = Peer(self.node.me.federation, Segment(region), kind, name, spki(name))
        wanted = Wanted(FILE, Digest.of(b"recipe"), parts or (0,), insist=insist)
        return self.neighbours.elsewhere(peer, wanted)

    def named(self, name: str, **how: str) -> set[str]:
        return {n.node for each in self.ask(name, **how).values() for n in each.neighbours}  # type: ignore[arg-type]  # `insist` is not given

    def later(self, s: float) -> None:
        self.clock = Clock(self.clock.now_s + s, self.clock.wall_ms + int(s * 1000))


@pytest.fixture
async def world() -> Iterator[World]:  # type: ignore[misc]  # pytest runs it
    async with lonely(HERE, chain()) as daemon:
        yield World(daemon)


async def test_the_third_is_sent_to_the_first_two_with_a_ticket_for_itself(world: World) -> None:
    world.watch("n1", "n2", "n3")
    for name in ("n1", "n2"):
        assert world.ask(name, 0, 1) == {}
    pointed = world.ask("n3", 0, 1, 2)
    assert set(pointed) == {0, 1}, "part 2 never left"
    for each in pointed.values():
        assert {(n.node, n.address) for n in each.neighbours} == {("n1", "n1:80"), ("n2", "n2:80")}
        opened = ticket.open_ticket(each.ticket, KEY.public)
        until_ms = world.clock.wall_ms + int(TICKET_S * 1000)
        asked = Ticket(Segment("n3"), spki("n3"), FILE.release, FILE.digest, until_ms)
        assert opened == asked
    assert world.node.counters["tickets_signed"] == 1
    assert world.node.counters["parts_pointed"] == 2


async def test_who_insists_is_sent_to_nobody(world: World) -> None:
    world.watch("n1", "n2", "n3")
    for name in ("n1", "n2"):
        world.ask(name)
    assert world.ask("n3", 0)
    assert world.ask("n3", 0, insist=True) == {}
    assert world.node.counters["parts_insisted"] == 1


async def test_nodes_that_have_gone_or_share_nothing_are_not_named(world: World) -> None:
    world.watch("n1", "n2")
    world.node.fleet.watch(Segment("mute"), {}, 0.0)
    for name in ("n1", "mute", "n2"):
        world.ask(name)
    assert world.named("n3") == {"n1", "n2"}
    world.node.fleet.gone(Segment("n1"))
    assert world.named("n4") == {"n2"}
    world.node.fleet.watch(Segment("n2"), {}, 0.0)
    assert world.ask("n5") == {}, "it shares no more"


@pytest.mark.parametrize("who", [{"region": THERE}, {"kind": "daemon"}])
async def test_only_nodes_of_this_region_are_sent_to_each_other(
    world: World, who: dict[str, str]
) -> None:
    """Others get what they may have from here; residency was judged for them, not for relays."""
    world.watch("n1", "n2", "far")
    for name in ("n1", "n2"):
        world.ask(name)
    for _ in range(3):
        assert world.ask("far", **who) == {}  # type: ignore[arg-type]  # chosen by name
    assert "far" not in world.named("n3")
    assert world.node.counters["tickets_signed"] == 1, "that of n3"


async def test_residency_is_judged_before_anybody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of a region that may not have the release is not even counted."""
    monkeypatch.setattr(gates.tls, "check_known", lambda peer, _: None)
    async with lonely(HERE, chain()) as daemon:
        release = await daemon.publish("1.0.0", b"file", residency=(HERE,))
        world = World(daemon)
        world.watch("n1", "n2")
        gate = Gate(daemon.node, daemon.blobs, world.neighbours)
        file, known = File(Digest.of(b"file"), release), daemon.node.me.federation
        for name, region, may in (("n1", HERE, True), ("far", THERE, False)):
            peer = Peer(known, region, "edge", name, spki(name))
            assert gate.may_fetch(peer, file) == may
        assert daemon.node.counters["fetches_denied"] == 1
        assert daemon.node.counters["tickets_signed"] == 0


async def test_nodes_that_report_the_release_on_their_disk_are_named(world: World) -> None:
    world.watch("n1", "n2", "old")
    model = ModelReport(segment("ocr-rec"), stored=(FILE.release,))
    report = Report(Segment("old"), 1, 1, (model,))
    world.node.fleet.report(b"boot", 1, report, world.clock.now_s)
    for name in ("n1", "n2"):
        world.ask(name)
        world.node.fleet.gone(Segment(name))
    assert world.named("n3") == {"old"}


async def test_a_ticket_is_signed_once_for_a_while_and_never_for_longer(world: World) -> None:
    world.watch("n1", "n2", "n3")
    for name in ("n1", "n2"):
        world.ask(name)
    for s in (0, TICKET_S / 2 - 1, 2, TICKET_S, -TICKET_S):
        world.later(s)
        raw = world.ask("n3")[0].ticket
        left_ms = ticket.open_ticket(raw, KEY.public).expires_ms - world.clock.wall_ms
        assert TICKET_S / 2 <= left_ms / 1000 <= TICKET_S
    assert world.node.counters["tickets_signed"] == 4


async def test_so_many_tickets_are_kept_and_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "TICKETS_MAX", 3)
    names = [f"n{n}" for n in range(COPIES + 8)]
    world.watch(*names)
    for name in names:
        world.ask(name)
    assert len(world.neighbours._tickets) == 3
