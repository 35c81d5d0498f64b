"""T23, T24: one peer cannot take what belongs to all, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import daemons
import grpc
import http2_client as h2
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hanse.core import counters
from hanse.core.errors import Unavailable
from hanse.core.gossip.budget import Budget
from hanse.rpc import admission, tls
from hanse.rpc.admission import Admission, CallLimits
from hanse.rpc.blob_client import PROBE, probe
from hanse.rpc.certificates import Identity
from hanse.rpc.link import LINK, GrpcTransport
from hanse.rpc.peer_service import PeerService
from hanse.rpc.server import build_server

WHO, OTHER = b"w" * 32, b"o" * 32


# -- the accounts ------------------------------------------------------------------------------


def test_a_peer_has_so_many_calls_under_way_and_no_more() -> None:
    count = counters.zeros()
    gate = Admission(count, CallLimits(per_s=1000, burst=1000, at_once=2))
    with gate.admit(WHO, 0.0), gate.admit(WHO, 0.0):
        with pytest.raises(Unavailable, match="2 calls of this peer"), gate.admit(WHO, 0.0):
            pass
        with gate.admit(OTHER, 0.0):  # another peer has its own
            pass
        assert count["calls_at_once_refused"] == 1
    with gate.admit(WHO, 0.0):
        pass


def test_a_peer_calls_at_its_pace_after_a_burst() -> None:
    count = counters.zeros()
    gate = Admission(count, CallLimits(per_s=10, burst=3, at_once=9))

    def admitted(who: bytes, now_s: float) -> bool:
        try:
            with gate.admit(who, now_s):
                return True
        except Unavailable:
            return False

    assert [admitted(WHO, 1.0) for _ in range(4)] == [True, True, True, False]
    assert admitted(OTHER, 1.0)
    assert not admitted(WHO, 1.09)
    assert admitted(WHO, 1.2)
    assert count["calls_pace_refused"] == 2


def test_accounts_of_peers_without_a_call_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PEERS_MAX", 3)
    gate = Admission(counters.zeros(), CallLimits(burst=1, at_once=1))
    with gate.admit(WHO, 0.0):
        for number in range(100):
            with gate.admit(bytes([number]) * 32, 0.0):
                pass
        assert len(gate._accounts) <= 3
        with pytest.raises(Unavailable), gate.admit(WHO, 0.0):  # who has one is remembered
            pass


def test_what_is_spent_without_being_there_is_owed() -> None:
    budget = Budget(per_s=2, burst=4, now_s=10.0)
    assert [budget.take(1, 10.0) for _ in range(5)] == [True, True, True, True, False]
    budget = Budget(per_s=2, burst=4, now_s=10.0)
    budget.spend(7, 10.0)
    assert budget.wait_s(10.0) == 1.5
    assert not budget.take(1, 11.5)
    assert budget.take(1, 12.0)
    assert budget.left(1000.0) == 4
    assert budget.left(999.0) == 4  # a clock that goes back gives nothing and takes nothing


# -- over the wire -----------------------------------------------------------------------------


@dataclass
class World:
    port: int = 0
    server: Any = None
    member: daemons.Daemon = field(default_factory=lambda: daemons.two_daemons()[1])
    own: daemons.Daemon = field(default_factory=lambda: daemons.two_daemons()[0])
    counters: dict[str, int] = field(default_factory=counters.zeros)
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    ca: Identity = field(default_factory=daemons.edge_ca)

    async def serve(self, bounds: CallLimits, **options: int) -> None:
        def members() -> Any:
            return daemons.members([self.member.listed("")], self.ca)

        transport = GrpcTransport(self.own.id, self.own.shown, members)
        service = PeerService(transport, daemons.REGION)
        self.server, self.port = await build_server(
            self.own.shown,
            daemons.doorkeeper(members),
            [service],
            admission=Admission(self.counters, bounds),
            options=[(f"grpc.{name}", value) for name, value in options.items()],
        )
        await self.server.start()

    def channel(self, identity: Identity | None = None) -> grpc.aio.Channel:
        who = identity or self.member.identity
        made = tls.open_channel(f"127.0.0.1:{self.port}", who, self.own.authority.cert_pem)
        self.channels.append(made)
        return made

    def raw(self) -> Any:
        return h2.connected(self.port, self.member.identity, self.own.authority.cert_pem)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    for channel in made.channels:
        await channel.close()
    await made.server.stop(None)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # gRPC's own threads do the work
            await asyncio.sleep(0.005)


async def test_a_peer_that_calls_too_often_is_told_so_and_may_come_back(world: World) -> None:
    await world.serve(CallLimits(per_s=2, burst=3))
    channel = world.channel()
    for _ in range(3):
        await probe(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(PROBE)(b"")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "wait a second" in (caught.value.details() or "")
    await asyncio.sleep(0.6)
    await probe(channel)


async def test_health_and_reflection_stand_behind_the_same_gate(world: World) -> None:
    await world.serve(CallLimits(per_s=0.001, burst=3))
    health = health_pb2_grpc.HealthStub(world.channel())
    watched = health.Watch(health_pb2.HealthCheckRequest())
    assert (await watched.read()).status == health_pb2.HealthCheckResponse.SERVING
    answer = await health.Check(health_pb2.HealthCheckRequest(service="hanse.v1.PeerService"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflect = world.channels[0].stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    )
    asked = reflect()
    await asked.write(b"\x3a\x00")  # list_services
    assert b"hanse.v1.PeerService" in await asked.read()
    watched.cancel()
    asked.cancel()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert world.counters["calls_pace_refused"] == 1


async def test_a_request_that_trickles_in_is_given_up(world: World) -> None:
    await world.serve(CallLimits(read_s=0.3))
    async with world.raw() as slow:
        await slow.send(h2.call(1, PROBE), h2.data(1, (1000).to_bytes(5, "big")))
        trickle = [h2.data(1, b"x")] * 1000
        async with asyncio.timeout(10):
            while 1 not in slow.ended and await slow.send(trickle.pop()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert world.counters["calls_silent"] == 1
    await probe(world.channel())


async def test_a_request_that_cannot_be_read_is_answered_as_such(world: World) -> None:
    await world.serve(CallLimits())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.channel().unary_unary(PROBE)(b"\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert world.counters["calls_unreadable"] == 1


async def test_ten_thousand_resets_hold_up_nobody_else(world: World) -> None:
    """CVE-2023-44487: a call that is taken back at once costs its server more than its client."""
    await world.serve(CallLimits())
    honest, answered = world.channel(daemons.node("n1", world.ca)), 0
    await probe(honest)
    async with world.raw() as flood:
        for first in range(1, 20_001, 200):
            streams = range(first, first + 200, 2)
            assert await flood.send(*(h2.call(s, LINK) + h2.reset(s) for s in streams))
            if first % 2000 == 1:  # another peer is answered in the midst of it
                async with asyncio.timeout(5):
                    await probe(honest)
                answered += 1
    assert answered == 10
    assert world.counters["calls_pace_refused"] > 0
    await probe(honest)


async def test_a_connection_without_a_handshake_is_closed(world: World) -> None:
    await world.serve(CallLimits(), server_handshake_timeout_ms=300)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


async def test_connections_beyond_the_bound_are_closed_at_once(world: World) -> None:
    await world.serve(CallLimits(), max_allowed_incoming_connections=3)
    async with world.raw(), world.raw():
        await probe(world.channel())
        assert await _is_refused(world)


async def _is_refused(world: World) -> bool:
    try:
        async with asyncio.timeout(10), world.raw() as another:
            await another.closed.wait()
    except OSError:  # closed before or after the handshake
        pass
    return True


async def test_a_connection_is_renewed_after_its_age(world: World) -> None:
    await world.serve(CallLimits(), max_connection_age_ms=300, max_connection_age_grace_ms=300)
    async with world.raw() as old, asyncio.timeout(10):
        await old.closed.wait()
        assert old.goaway
    await probe(world.channel())


async def test_more_streams_than_a_connection_may_have_are_refused(world: World) -> None:
    await world.serve(CallLimits(at_once=10**6, burst=10**6), max_concurrent_streams=4)
    async with world.raw() as greedy, asyncio.timeout(10):
        # The bound holds once the client has acknowledged it.
        await asyncio.sleep(0.2)
        await greedy.send(*(h2.call(s, PROBE) for s in range(1, 41, 2)))
        await until(lambda: greedy.closed.is_set() or len(greedy.ended) >= 16)


async def test_a_compressed_request_is_not_even_inflated(world: World) -> None:
    """T24: 64 MiB of zeros are 64 KiB on the wire."""
    await world.serve(CallLimits())
    credentials = grpc.ssl_channel_credentials(
        world.own.identity.cert_pem, world.member.identity.key_pem, world.member.identity.cert_pem
    )
    usual = [("grpc.ssl_target_name_override", tls.SERVER_NAME)]  # a client that may compress
    async with grpc.aio.secure_channel(
        f"127.0.0.1:{world.port}", credentials, options=usual
    ) as channel:
        for size in (1000, 64 * 1024 * 1024):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(PROBE)(bytes(size), compression=grpc.Compression.Gzip)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED, caught.value.details()
    assert world.counters == counters.zeros()  # gRPC has refused it before the gate


async def test_a_message_that_says_it_is_compressed_and_is_not_ends_its_call(world: World) -> None:
    await world.serve(CallLimits())
    async with world.raw() as bomb, asyncio.timeout(10):
        packed = h2.message(gzip.compress(bytes(10**6)), compressed=True)
        await bomb.send(h2.call(1, PROBE), h2.data(1, packed, end=True))
        await bomb.until_ended(1)
    await probe(world.channel())
