"""Daemons' worth of nodes in one process: real driver, real SQLite at FULL, links in memory.

What is left out of a daemon is what does not take part: TLS, the edge, blobs, the socket.
Links carry encoded frames through the windows of the memory transport.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from memory_network import MemoryNetwork, MemoryTransport

from hanse.core.errors import Unavailable
from hanse.core.events import Note
from hanse.core.ids import MemberId, Origin, Segment, member_id, segment
from hanse.core.log.policy import default_policy
from hanse.core.node import Node, Ticket
from hanse.core.signing import SigningKey
from hanse.core.step import AppendEvents, PutTrust, Write
from hanse.core.trust import chain as trust
from hanse.core.trust.chain import Chain
from hanse.core.trust.members import Member, Members, Region
from hanse.daemon.driver import Driver
from hanse.rpc.codec import EventCodec
from hanse.rpc.tls import Peer
from hanse.rpc.transport import PeerStream
from hanse.storage.sqlite import SqliteEventStore

PEM = "-----BEGIN CERTIFICATE-----\n"
FEDERATION = segment("bench")
SETTLE_S = 120.0


def key_of(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


def founded(count: int, regions: int) -> Chain:
    """The trust of so many daemons, spread evenly over the regions."""
    root = key_of("root")
    names = [segment(f"region-{i}") for i in range(regions)]
    members = Members(
        FEDERATION,
        1,
        (root.public,),
        1,
        "seed",
        tuple(Region(name, PEM) for name in names),
        tuple(_member(i, names[i % regions]) for i in range(count)),
        (),
        witness_policy=_policy(count, names),
    )
    return trust.start(trust.sign(members, (root,)))


def _member(number: int, region: Segment) -> Member:
    key, witness = key_of(f"daemon {number}").public, witness_of(number).public
    return Member(region, key, PEM, f"daemon-{number}:1", witness)


def witness_of(number: int) -> SigningKey:
    return key_of(f"witness {number}")


def _policy(count: int, names: Sequence[Segment]) -> str:
    """The one that a ceremony writes."""
    keys: dict[Segment, dict[MemberId, bytes]] = {name: {} for name in names}
    for number in range(count):
        member = member_id(key_of(f"daemon {number}").public)
        keys[names[number % len(names)]][member] = witness_of(number).public
    return default_policy(FEDERATION, keys)


class WatchedStore(SqliteEventStore):
    """Says how far each log is durable."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sizes: dict[Origin, int] = {}

    async def apply(self, writes: Sequence[Write]) -> None:
        await super().apply(writes)
        for write in writes:
            if isinstance(write, AppendEvents):
                self.sizes[write.head.origin] = write.head.size


@dataclass(slots=True)
class Running:
    """One node that is up; its home outlives it."""

    number: int
    driver: Driver
    store: WatchedStore
    transport: MemoryTransport
    task: asyncio.Task[None]

    @property
    def node(self) -> Node:
        return self.driver.node

    async def write(self, text: str) -> Ticket:
        """One event; returns when it is durable here."""
        return await self.driver.do(lambda node, _: node.propose(Note(text)))

    async def stop(self) -> None:
        self.transport.accept(_nobody)
        self.task.cancel()
        await asyncio.wait({self.task})
        await self.store.close()


async def _nobody(stream: PeerStream) -> None:
    raise Unavailable(f"{stream.peer} calls a daemon that has stopped")


class Fleet:
    """Owns the network and the homes; a node may be stopped and started again."""

    def __init__(self, folder: Path, count: int, regions: int) -> None:
        self.chain = founded(count, regions)
        self.running: dict[int, Running] = {}
        self._folder, self._network = folder, MemoryNetwork()

    async def start(self, number: int) -> Running:
        key = key_of(f"daemon {number}")
        member = self.chain.current.member(member_id(key.public))
        assert member is not None
        me = Origin(FEDERATION, member.region, member.id, 1)
        spki = hashlib.sha256(b"spki" + member.key).digest()
        store = await WatchedStore.open(self._folder / str(number))
        known = len(await store.trust())
        files = enumerate(self.chain.files[known:], start=known + 1)
        await store.apply([PutTrust(version, raw) for version, raw in files])
        node = Node(
            me,
            key,
            spki,
            EventCodec(),
            self.chain,
            Random(number),  # a bench
            witness=witness_of(number),
            witnessed=await store.witnessed(),
        )
        for head in await store.heads():
            node.restore(head, await store.events(head.origin, 0, head.size, 2**40))
        node.open("start")
        peer = Peer(FEDERATION, member.region, "daemon", member.id, spki)
        transport = self._network.join(peer)
        driver = Driver(node, store, transport)
        transport.accept(driver.converse)
        task = asyncio.create_task(driver.run())
        self.running[number] = Running(number, driver, store, transport, task)
        return self.running[number]

    async def stop(self, number: int) -> None:
        await self.running.pop(number).stop()

    def agreed(self) -> bool:
        return len({r.node.book.digest for r in self.running.values()}) == 1

    async def until(self, condition: Callable[[], bool]) -> float:
        """Seconds that it took."""
        began = time.perf_counter()
        while not condition():
            if time.perf_counter() - began > SETTLE_S:
                raise TimeoutError("the fleet does not settle: is the machine too slow?")
            await asyncio.sleep(0.002)
        return time.perf_counter() - began


@asynccontextmanager
async def fleet(folder: Path, count: int, regions: int) -> AsyncIterator[Fleet]:
    """All of them up, linked and in agreement."""
    made = Fleet(folder, count, regions)
    try:
        for number in range(count):
            await made.start(number)
        await made.until(lambda: made.agreed() and _everybody_known(made))
        yield made
    finally:
        for number in list(made.running):
            await made.stop(number)


def _everybody_known(made: Fleet) -> bool:
    return all(len(r.node.book.heads) == len(made.running) for r in made.running.values())
