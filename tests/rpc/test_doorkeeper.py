"""Who may call what, and who must leave: identities that are not right (T12, T43), over sockets.

The server knows two members and the edge CA of one region. Every stranger is also given what
TLS alone would let in, so that it is the doorkeeper who refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import daemons
import grpc
import pytest
from grpc_health.v1 import health_pb2
from shelves import Shelf

from hanse.core.errors import NotPermitted, Rejected, Unavailable
from hanse.core.ids import Digest, Segment
from hanse.core.transfer.wanted import File
from hanse.core.trust.members import Member, Members
from hanse.rpc import blob_client, certificates, edge_client, tls
from hanse.rpc.blob_client import probe
from hanse.rpc.blob_service import BlobService
from hanse.rpc.certificates import Identity
from hanse.rpc.doorkeeper import Doorkeeper, Known
from hanse.rpc.edge_service import EdgeService
from hanse.rpc.link import LINK, GrpcTransport
from hanse.rpc.peer_service import PeerService
from hanse.rpc.server import build_server
from hanse.rpc.tls import Peer
from hanse.rpc.transport import PeerStream

NOW, DAY = daemons.NOW, daemons.DAY
SPAN = certificates.from_now(NOW, 30 * DAY)
BLOB, RELEASE = Digest.of(b"blob"), Digest.of(b"release")
WAIT_S = 5


class Endless(Shelf):
    def may_fetch(self, peer: Peer, file: File, ticket: bytes = b"") -> bool:
        return True

    def size(self, digest: Digest) -> int:
        return 1 << 40

    def read_range(self, digest: Digest, start: int, length: int) -> bytes:
        return bytes(length)


class World:
    """One server with every service, and its callers."""

    def __init__(self) -> None:
        self.me, self.member = daemons.two_daemons()
        self.ca = daemons.edge_ca()
        self.listed: list[Member] = [self.member.listed("")]
        self.others: dict[str, Identity] = {}
        self.denied: dict[str, str] = {}
        self.revision = 0
        self.now = NOW
        self.port = 0
        self._last: tuple[Any, Members] | None = None
        self.channels: list[grpc.aio.Channel] = []
        self.gone: asyncio.Queue[str] = asyncio.Queue()

    def members(self) -> Members:
        """The same object for as long as nothing has changed, as a chain of trust has it."""
        now = (tuple(self.listed), self.ca, dict(self.others))
        if self._last is None or self._last[0] != now:
            self._last = (now, daemons.members(self.listed, self.ca, **self.others))
        return self._last[1]

    async def serve(self) -> grpc.aio.Server:
        known = Known(
            self.members,
            denied=lambda peer: self.denied.get(peer.name, ""),
            revision=lambda: self.revision,
        )
        self.keeper = Doorkeeper(known, now=lambda: self.now)
        self.transport = GrpcTransport(self.me.id, self.me.shown, self.members)
        self.transport.accept(self.hold)
        self.edge = EdgeService(daemons.FEDERATION, daemons.REGION, self)
        services = [
            PeerService(self.transport, daemons.REGION),
            BlobService(Endless(Path())),
            self.edge,
        ]
        server, self.port = await build_server(self.me.shown, self.keeper, services)
        await server.start()
        return server

    async def hold(self, stream: PeerStream) -> None:
        async for _ in stream.frames():
            pass
        self.gone.put_nowait(stream.peer)

    def on_watch(self, peer: Peer, node: Segment, facts: Mapping[str, str]) -> None: ...

    def on_gone(self, peer: Peer, node: Segment) -> None:
        self.gone.put_nowait(node)

    async def on_report(self, peer: Peer, node: Segment, nonce: bytes, seq: int, raw: bytes) -> int:
        return seq

    def channel(self, identity: Identity) -> grpc.aio.Channel:
        address = f"127.0.0.1:{self.port}"
        channel = tls.open_channel(address, identity, self.me.authority.cert_pem)
        self.channels.append(channel)
        return channel

    def node(self, name: str = "n1") -> Identity:
        return daemons.node(name, self.ca)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    server = await world.serve()
    yield world
    for channel in world.channels:
        await channel.close()
    await world.edge.close()
    await world.transport.close()
    await server.stop(None)


async def refusal(call: Any) -> str:
    """How a call ended that must have been refused, after what had come before is read."""
    async with asyncio.timeout(WAIT_S):
        with contextlib.suppress(grpc.aio.AioRpcError):
            if hasattr(call, "read"):
                while await call.read():
                    pass
        code, details = await call.code(), await call.details()
    assert code is grpc.StatusCode.PERMISSION_DENIED, details
    return str(details)


# -- who may call what --------------------------------------------------------------


def link(channel: grpc.aio.Channel) -> Any:
    return channel.stream_stream(LINK, None, None)(None)


def watch(channel: grpc.aio.Channel) -> Any:
    return channel.unary_stream("/hanse.v1.EdgeService/Watch", None, None)(b"\x0a\x02n1")


def report(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary("/hanse.v1.EdgeService/Report", None, None)(b"\x0a\x02n1\x12\x01x")


def fetch(channel: grpc.aio.Channel) -> Any:
    request = b"\x0a\x20" + BLOB.raw + b"\x1a\x20" + RELEASE.raw
    return channel.unary_stream("/hanse.v1.BlobService/Fetch", None, None)(request)


def health(channel: grpc.aio.Channel) -> Any:
    return channel.unary_stream("/grpc.health.v1.Health/Watch", None, None)(b"")


async def begun(call: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        await call.initial_metadata()
        assert not call.done(), await call.details()


async def test_each_kind_of_identity_is_let_in_where_it_belongs(world: World) -> None:
    member, node = world.channel(world.member.identity), world.channel(world.node())
    await begun(link(member))
    await begun(watch(node))
    assert await edge_client.report(node, "n1", b"nonce", 1, b"{}") == 1
    for channel in (member, node):
        await begun(fetch(channel))
        await begun(health(channel))
        await probe(channel)


@pytest.mark.parametrize("method", [watch, report])
async def test_a_daemon_does_not_speak_for_nodes(world: World, method: Callable[..., Any]) -> None:
    said = await refusal(method(world.channel(world.member.identity)))
    assert "may not call" in said


async def test_a_node_opens_no_link(world: World) -> None:
    assert "may not call" in await refusal(link(world.channel(world.node())))


@pytest.mark.parametrize("method", [link, watch, report, fetch, health])
@pytest.mark.parametrize("case", ["federation", "region", "same name", "daemon by a ca", "token"])
async def test_who_is_not_who_it_says_is_refused_everywhere(
    world: World, method: Callable[..., Any], case: str
) -> None:
    """Each passes TLS: its issuer is let in there as the CA of some region."""
    elsewhere = daemons.edge_ca("elsewhere")
    stranger = daemons.daemon(9, federation="other")
    again = daemons.daemon(2 if world.member.key[0] == 2 else 1)  # T12: the same id, another key
    assert again.id == world.member.id
    uri = certificates.daemon_uri(daemons.FEDERATION, daemons.REGION, world.member.id)
    token = certificates.token_uri(daemons.FEDERATION, daemons.REGION, "0" * 32)
    identity, issuer = {
        "federation": (stranger.identity, stranger.authority),
        "region": (daemons.node("n1", elsewhere), elsewhere),
        "same name": (again.identity, again.authority),
        "daemon by a ca": (certificates.issue(uri, world.ca, SPAN), world.ca),
        "token": (certificates.issue(token, world.ca, SPAN), world.ca),
    }[case]
    world.others["elsewhere"] = issuer
    await refusal(method(world.channel(identity)))


@pytest.mark.parametrize("days", [-9, 9])
async def test_dates_count_by_the_daemons_own_clock(world: World, days: int) -> None:
    short = certificates.issue(
        certificates.edge_uri(daemons.FEDERATION, daemons.REGION, "n1"),
        world.ca,
        certificates.from_now(NOW, 7 * DAY),
    )
    world.now = NOW + days * DAY
    assert "not now" in await refusal(report(world.channel(short)))


async def test_no_certificate_of_a_node_makes_a_server(world: World) -> None:
    """A node's certificate is for clients: whoever steals one cannot answer in a daemon's place."""
    node = world.node()
    server, port = await build_server(lambda: node, world.keeper, [])
    await server.start()
    channel = tls.open_channel(f"127.0.0.1:{port}", world.member.identity, world.ca.cert_pem)
    world.channels.append(channel)
    health_check = channel.unary_unary("/grpc.health.v1.Health/Check")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health_check(b"")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await server.stop(None)


# -- in the middle ------------------------------------------------------------------


async def test_a_member_cannot_answer_in_the_place_of_another(world: World) -> None:
    """The one in the middle has a valid certificate of its own, and the address."""
    middle = daemons.daemon(7)
    world.listed.append(middle.listed(""))
    server, port = await build_server(middle.shown, world.keeper, [])
    await server.start()
    here = f"127.0.0.1:{port}"
    world.listed[0] = dataclasses.replace(world.member.listed(here))
    with pytest.raises(Unavailable):
        await world.transport.open_stream(world.member.id)
    await server.stop(None)


async def test_both_ends_of_a_link_are_named_by_their_authorities(world: World) -> None:
    """So that what each proves to the other outlives the certificate of a week."""
    far: asyncio.Queue[PeerStream] = asyncio.Queue()

    async def keep(stream: PeerStream) -> None:
        far.put_nowait(stream)
        await world.hold(stream)

    world.transport.accept(keep)
    listed = daemons.members([world.me.listed(f"127.0.0.1:{world.port}")])
    other = GrpcTransport(world.member.id, world.member.shown, lambda: listed)
    near = await other.open_stream(world.me.id)
    theirs = await far.get()
    assert near.spki == certificates.spki_hash(world.me.authority.cert_pem)
    assert theirs.spki == certificates.spki_hash(world.member.authority.cert_pem)
    assert theirs.spki != certificates.spki_hash(world.member.identity.cert_pem)
    await other.close()


# -- live connections ----------------------------------------------------------------


@pytest.mark.parametrize("method", [link, fetch, health])
async def test_a_member_that_is_removed_is_hung_up_on(
    world: World, method: Callable[..., Any]
) -> None:
    channel = world.channel(world.member.identity)
    call = method(channel)
    await begun(call)
    bystander = watch(world.channel(world.node()))
    await begun(bystander)
    world.keeper.look_again()
    assert not call.done()
    world.listed.clear()
    world.keeper.look_again()
    assert "no member" in await refusal(call)
    if method is link:
        assert await world.gone.get() == world.member.id
    assert "no member" in await refusal(method(channel))  # nor again on the open connection
    with pytest.raises(NotPermitted, match="no member"):
        await probe(channel)
    with pytest.raises(Unavailable):  # nor on a new one
        await probe(world.channel(world.member.identity))
    assert not bystander.done()


async def test_links_and_fetches_that_we_began_end_too(world: World) -> None:
    world.listed.append(world.me.listed(f"127.0.0.1:{world.port}"))
    listed = list(world.listed)
    other = GrpcTransport(world.member.id, world.member.shown, lambda: daemons.members(listed))
    near = await other.open_stream(world.me.id)
    reading = asyncio.ensure_future(anext(near.frames()))
    blob = blob_client.fetch(other.channel(world.me.id), BLOB, RELEASE)
    await anext(blob)
    other.look_again()
    await asyncio.sleep(0)
    assert not reading.done()
    listed.clear()
    other.look_again()
    async with asyncio.timeout(WAIT_S):
        with pytest.raises((Unavailable, StopAsyncIteration)):
            await reading
        with pytest.raises(Unavailable):
            async for _ in blob:
                pass
    with pytest.raises(NotPermitted):
        other.channel(world.me.id)
    await other.close()


@pytest.mark.parametrize("method", [watch, fetch, health])
async def test_a_node_that_is_revoked_is_hung_up_on(
    world: World, method: Callable[..., Any]
) -> None:
    channel, other = world.channel(world.node()), world.channel(world.node("n2"))
    call, bystander = method(channel), health(other)
    await begun(call)
    await begun(bystander)
    world.denied["n1"], world.revision = "the truck was stolen", 1
    world.keeper.look_again()
    assert "the truck was stolen" in await refusal(call)
    if method is watch:
        assert await world.gone.get() == "n1"
    assert "revoked" in await refusal(report(channel))
    assert not bystander.done()
    await probe(other)


async def test_a_certificate_that_ends_under_a_stream_ends_the_stream(world: World) -> None:
    call = watch(world.channel(daemons.node("n1", world.ca, days=7)))
    await begun(call)
    world.now = NOW + 6 * DAY
    world.keeper.look_again()
    assert not call.done()
    world.now = NOW + 8 * DAY
    world.keeper.look_again()
    assert "not now" in await refusal(call)


async def test_a_ca_that_is_replaced_takes_its_nodes_along(world: World) -> None:
    call = watch(world.channel(world.node()))
    await begun(call)
    world.ca = daemons.edge_ca()
    world.keeper.look_again()
    assert "not issued" in await refusal(call)


async def test_who_hangs_up_by_itself_is_not_refused(world: World) -> None:
    call = watch(world.channel(world.node()))
    await begun(call)
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED
    async with asyncio.timeout(WAIT_S):
        assert await world.gone.get() == "n1"
    world.ca = daemons.edge_ca()
    world.keeper.look_again()


async def test_an_error_of_a_method_passes_the_gate_unchanged(world: World) -> None:
    with pytest.raises(Rejected, match="1 to 64"):
        await edge_client.report(world.channel(world.node()), "n1", bytes(65), 1, b"")
    unknown = world.channel(world.node()).unary_unary("/hanse.v1.EdgeService/Nothing", None, None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unknown(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# -- renewal -------------------------------------------------------------------------


async def test_a_daemon_shows_its_new_certificate_without_a_restart(world: World) -> None:
    shown = world.me.identity
    server, port = await build_server(lambda: shown, world.keeper, [])
    await server.start()
    health_check = "/grpc.health.v1.Health/Check"

    async def served() -> None:
        channel = tls.open_channel(
            f"127.0.0.1:{port}", world.member.identity, world.me.authority.cert_pem
        )
        async with channel:
            answer = await channel.unary_unary(health_check)(b"")
        assert health_pb2.HealthCheckResponse.FromString(answer).status

    await served()
    shown = world.me.renewed(NOW - 60 * DAY)  # ended a month ago, so that it is seen
    with pytest.raises(grpc.aio.AioRpcError):
        await served()
    shown = world.me.renewed(NOW)
    await served()
    await server.stop(None)
    await server.stop(None)


async def test_a_renewed_certificate_is_shown_on_new_channels(world: World) -> None:
    shown = [world.member.identity]
    listed = daemons.members([world.me.listed(f"127.0.0.1:{world.port}")])
    other = GrpcTransport(world.member.id, lambda: shown[0], lambda: listed)
    before = other.channel(world.me.id)
    assert other.channel(world.me.id) is before
    shown[0] = world.member.renewed(NOW)
    other.look_again()
    after = other.channel(world.me.id)
    assert after is not before
    await probe(after)
    await other.close()
