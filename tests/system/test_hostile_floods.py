"""What a member can do with bytes alone: floods, trickles, bombs. Everybody else is still served.

The daemon's memory is read from the kernel, its counters say which limit has bitten, and an
honest member and a person at the control socket are answered in the midst of it (T06, T23, T24).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import http2_client as h2
import pytest
from hostile_peer import HostilePeer, Log
from system_federation import WAIT_S, Daemon, Federation

from hanse.core import limits
from hanse.rpc import tls
from hanse.rpc.blob_client import probe
from hanse.rpc.link import LINK
from hanse.v1 import sync_pb2

pytestmark = pytest.mark.system
GROWTH_KB_MAX = 64 * 1024
"""What any of these may cost the daemon: the send queue, some frames, and Python's own slack."""


@dataclass
class World:
    federation: Federation
    log: Log
    asked: list[str] = field(default_factory=list)

    @property
    def victim(self) -> Daemon:
        return self.federation.founder

    @property
    def thief(self) -> Daemon:
        return self.federation.daemons["ap-south"]

    @property
    def port(self) -> int:
        return int(self.victim.address.rpartition(":")[2])

    @property
    def memory_kb(self) -> int:
        assert self.victim.handle is not None
        status = Path(f"/proc/{self.victim.handle.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def counted(self, name: str) -> int:
        return int(self.victim.ask("counters")["counters"][name])

    @contextlib.asynccontextmanager
    async def peer(self) -> AsyncIterator[HostilePeer]:
        """A proven link."""
        async with asyncio.timeout(WAIT_S):
            while True:
                async with HostilePeer(self.thief, self.victim, self.log) as peer:
                    if await peer.accepted():
                        await peer.prove()
                        yield peer
                        return
                await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def raw(self) -> AsyncIterator[h2.Connection]:
        async with h2.connected(
            self.port, self.thief.identity(), self.victim.authority.cert_pem
        ) as made:
            yield made

    @contextlib.asynccontextmanager
    async def others_are_served(self) -> AsyncIterator[None]:
        """Another member and a person ask all the while, and are answered; memory stays."""
        before_kb, most_kb, answers = self.memory_kb, 0, 0
        identity = self.federation.daemons["us-east"].identity()
        channel = tls.open_channel(self.victim.address, identity, self.victim.authority.cert_pem)

        async def ask() -> None:
            nonlocal most_kb, answers
            while True:
                async with asyncio.timeout(10):
                    await probe(channel)
                    await asyncio.to_thread(self.victim.ask, "status")
                answers += 1
                most_kb = max(most_kb, self.memory_kb)
                await asyncio.sleep(0.1)

        asking = asyncio.create_task(ask())
        try:
            await asyncio.sleep(0.15)
            yield
            await asyncio.sleep(0.15)
            assert not asking.done(), asking.exception()
        finally:
            asking.cancel()
            await asyncio.wait({asking})
            await channel.close()
        assert answers >= 2
        assert most_kb - before_kb < GROWTH_KB_MAX, f"{before_kb} kB before, {most_kb} kB"


@pytest.fixture(scope="module")
def world(federation: Federation) -> World:
    federation.nodes.clear()
    federation.start(("eu-north", "us-east"))
    return World(federation, Log(federation.daemons["ap-south"]))


Flood = Callable[[World], Awaitable[None]]


async def ten_thousand_resets(world: World) -> None:
    """CVE-2023-44487."""
    async with world.raw() as flood:
        for first in range(1, 20_001, 200):
            frames = [h2.call(s, LINK) + h2.reset(s) for s in range(first, first + 200, 2)]
            if not await flood.send(*frames):
                break
            await asyncio.sleep(0.005)


async def a_stream_a_byte_at_a_time(world: World) -> None:
    """Sixty links that each promise a frame and never end it."""
    async with world.raw() as slow:
        for stream in range(1, 121, 2):
            head = bytes(1) + limits.FRAME_BYTES_MAX.to_bytes(4, "big")
            await slow.send(h2.call(stream, LINK), h2.data(stream, head))
        for _ in range(10):
            await slow.send(*(h2.data(stream, b"x") for stream in range(1, 121, 2)))
            await asyncio.sleep(0.05)


async def calls_without_end(world: World) -> None:
    async with world.raw() as flood:
        for first in range(1, 1001, 100):
            await flood.send(*(h2.call(s, LINK) for s in range(first, first + 100, 2)))
            await asyncio.sleep(0.02)


async def a_message_without_end(world: World) -> None:
    """It says 4 GiB, and sends for as long as somebody takes it."""
    async with world.raw() as flood:
        await flood.send(h2.call(1, LINK), h2.data(1, bytes(1) + b"\xff" * 4))
        for _ in range(200):
            if 1 in flood.ended or not await flood.send(h2.data(1, bytes(16_000))):
                break
            await asyncio.sleep(0)


async def pings_and_settings(world: World) -> None:
    async with world.raw() as flood:
        for _ in range(200):
            ping, setting = h2.frame(h2.PING, 0, 0, bytes(8)), h2.frame(h2.SETTINGS, 0, 0)
            if not await flood.send(ping * 20, setting * 20):
                break


async def header_blocks_without_end(world: World) -> None:
    """The CONTINUATION flood of 2024 (CVE-2024-27316 and kin)."""
    async with world.raw() as flood:
        await flood.send(h2.frame(h2.HEADERS, 0, 1, h2.header_block(LINK)))
        for number in range(2000):
            block = h2.header_block(LINK, (f"x-{number}", "y" * 100))
            if not await flood.send(h2.frame(h2.CONTINUATION, 0, 1, block)):
                break


async def trust_files_without_end(world: World) -> None:
    async with world.peer() as peer:
        version = peer.log.trust.version + 1
        for number in range(160):
            part = sync_pb2.TrustFile(
                version=version, part=number % 7, parts=8, data=bytes(192 * 1024)
            )
            await peer.say(sync_pb2.Frame(trust_file=part))


async def frames_as_fast_as_they_go(world: World) -> None:
    async with world.peer() as peer:
        ping = sync_pb2.LinkRequest(
            frame=sync_pb2.Frame(
                ping=sync_pb2.Ping(head_map_digest=bytes(32), trust_prefix=bytes(8))
            )
        )
        for _ in range(limits.FRAMES_BURST + 100):
            await peer.say(ping.SerializeToString())
        await until(lambda: world.counted("reads_paused") > 0)


async def pulls_without_end(world: World) -> None:
    async with world.peer() as peer:
        origin = world.victim.ask("status")["daemon"]["origin"]
        pull = sync_pb2.LinkRequest(frame=sync_pb2.Frame(pull=sync_pb2.Pull(origin=origin)))
        for _ in range(2000):
            await peer.say(pull.SerializeToString())
            await asyncio.sleep(0)


async def claims_of_logs_that_cannot_be(world: World) -> None:
    async with world.peer() as peer:
        own = str(peer.log.origin).rpartition("/")[0]
        for start in range(1, 20_001, 1000):
            heads = [
                sync_pb2.LogHead(origin=f"{own}/i{n + 1}-{n:08x}", size=2**40, root_prefix=bytes(8))
                for n in range(start, start + 1000)
            ]
            await peer.say(sync_pb2.Frame(heads=sync_pb2.Heads(heads=heads)))
        await until(lambda: world.counted("claims_ignored") > 0)


FLOODS: dict[Flood, str] = {
    ten_thousand_resets: "calls_pace_refused",
    a_stream_a_byte_at_a_time: "links_refused",
    calls_without_end: "",
    a_message_without_end: "",
    pings_and_settings: "",
    header_blocks_without_end: "",
    trust_files_without_end: "",
    frames_as_fast_as_they_go: "reads_paused",
    pulls_without_end: "",  # tests/daemon/test_driver_limits.py: how many are too many
    claims_of_logs_that_cannot_be: "claims_ignored",
}
"""And the counter that names the limit; empty where gRPC itself refuses, or nothing has to."""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
async def test_a_flood_holds_up_nobody_else_and_fills_no_memory(world: World, flood: Flood) -> None:
    counter, before = FLOODS[flood], world.federation.settled()
    counted = world.counted(counter) if counter else 0
    async with asyncio.timeout(WAIT_S), world.others_are_served():
        await flood(world)
    if counter:
        assert world.counted(counter) > counted
    assert world.federation.settled() == before
    async with asyncio.timeout(WAIT_S), world.peer() as peer:  # and the same member may come back
        event = world.log.text(f"after {flood.__name__}")
        chunk = world.log.chunk(event)
        world.log.events.append(event)
        await peer.say(chunk)
        await peer.shown()
    assert "Traceback" not in world.victim.log.read_text()


async def test_a_member_that_makes_us_verify_in_vain_is_ignored_for_a_while(world: World) -> None:
    """L15; the last one here, since nobody listens to this member afterwards."""
    async with asyncio.timeout(WAIT_S), world.peer() as peer:
        lie = peer.log.chunk(*(peer.log.text(str(n)) for n in range(250)), note=peer.log.note())
        async with world.others_are_served():
            while not peer.ended.is_set():
                await peer.say(lie)
                await asyncio.sleep(0.001)  # writing to a stream that has ended does not wait
    assert world.counted("peers_ignored") == 1
    said = world.victim.log.read_text()
    assert '"event": "peer_ignored"' in said
    async with HostilePeer(world.thief, world.victim, world.log) as again:
        await asyncio.wait_for(again.ended.wait(), WAIT_S)
    await until(lambda: world.counted("links_ignored") > 0)
    assert world.federation.agreed()
