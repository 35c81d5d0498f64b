"""Who gets as far as a handler, and whom the handler believes (T43)."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import daemons
import grpc
import pytest
from grpc_health.v1 import health_pb2

from hanse.core.errors import NotPermitted, Rejected, Unavailable
from hanse.rpc import tls
from hanse.rpc.blob_client import PROBE, probe
from hanse.rpc.link import GrpcTransport
from hanse.rpc.peer_service import PeerService
from hanse.rpc.server import build_server
from hanse.rpc.tls import Identity, Peer

DAY = datetime.timedelta(days=1)


class World:
    """A server that knows one other member, and one region's edge CA."""

    def __init__(self) -> None:
        self.daemon, self.member = daemons.two_daemons()
        self.ca = daemons.edge_ca()
        self.accepted = [self.member.identity.cert_pem, self.ca.cert_pem]
        self.channels: list[grpc.aio.Channel] = []
        self.port = 0

    def channel(self, identity: Identity, server: bytes | None = None) -> grpc.aio.Channel:
        pem = server or self.daemon.identity.cert_pem
        channel = tls.open_channel(f"127.0.0.1:{self.port}", identity, pem)
        self.channels.append(channel)
        return channel


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()

    def members() -> Any:
        return daemons.members([world.member.listed("")], world.ca)

    transport = GrpcTransport(world.daemon.id, world.daemon.identity, members)
    service = PeerService(transport, daemons.REGION, members)
    server, world.port = await build_server(
        world.daemon.identity, lambda: world.accepted, [service]
    )
    await server.start()
    yield world
    for channel in world.channels:
        await channel.close()
    await server.stop(None)


async def test_a_member_is_served_over_tls_1_3(world: World) -> None:
    await probe(world.channel(world.member.identity))


@pytest.mark.parametrize("case", ["unlisted", "expired", "not yet", "foreign ca"])
async def test_a_certificate_that_is_not_accepted_gets_no_connection(
    world: World, case: str
) -> None:
    if case == "unlisted":
        identity = daemons.daemon(9).identity
    elif case == "expired":
        identity = daemons.daemon(2, now=daemons.NOW - 60 * DAY).identity
    elif case == "not yet":
        identity = daemons.daemon(2, now=daemons.NOW + 2 * DAY).identity
    else:
        identity = daemons.node("n1", daemons.edge_ca("us-west"))
    if case in ("expired", "not yet"):
        world.accepted.append(identity.cert_pem)  # listed, so that only its dates speak
    with pytest.raises(Unavailable):
        await probe(world.channel(identity))


async def test_no_certificate_no_connection(world: World) -> None:
    credentials = grpc.ssl_channel_credentials(world.daemon.identity.cert_pem)
    async with grpc.aio.secure_channel(
        f"127.0.0.1:{world.port}", credentials, options=tls.CHANNEL_OPTIONS
    ) as channel:
        with pytest.raises(Unavailable):
            await probe(channel)


async def test_plaintext_gets_no_connection(world: World) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{world.port}") as channel:
        with pytest.raises(Unavailable):
            await probe(channel)


async def test_a_client_refuses_any_server_but_the_pinned_one(world: World) -> None:
    impostor = daemons.daemon(1).identity  # same name, another key
    with pytest.raises(Unavailable):
        await probe(world.channel(world.member.identity, impostor.cert_pem))


async def test_a_nodes_certificate_makes_no_member_whatever_tls_accepts(world: World) -> None:
    """A node may measure how far we are; nobody becomes a member by a CA's word."""
    await probe(world.channel(daemons.node("n1", world.ca)))
    uri = tls.daemon_uri(daemons.FEDERATION, daemons.REGION, world.member.id)
    with pytest.raises(NotPermitted, match="no member"):
        await probe(world.channel(tls.issue(uri, days=30, now=daemons.NOW, issuer=world.ca)))


async def test_a_region_cannot_speak_for_a_node_of_another(world: World) -> None:
    """Its CA is accepted by TLS, but the certificate names a region that has another CA."""
    other = daemons.edge_ca("us-east")
    world.accepted.append(other.cert_pem)
    with pytest.raises(NotPermitted):
        await probe(world.channel(daemons.node("n1", other)))


async def test_a_member_added_later_needs_no_restart(world: World) -> None:
    newcomer = daemons.daemon(9)
    with pytest.raises(Unavailable):
        await probe(world.channel(newcomer.identity))
    world.accepted.append(newcomer.identity.cert_pem)
    with pytest.raises(NotPermitted):  # past TLS now; the members file still says no
        await probe(world.channel(newcomer.identity))


async def test_compression_is_refused(world: World) -> None:
    method = world.channel(world.member.identity).unary_unary(PROBE, None, None)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(bytes(1000), compression=grpc.Compression.Gzip)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_health_is_answered(world: World) -> None:
    method = world.channel(world.member.identity).unary_unary(
        "/grpc.health.v1.Health/Check", None, health_pb2.HealthCheckResponse.FromString
    )
    for name in ("", "hanse.v1.PeerService"):
        request = health_pb2.HealthCheckRequest(service=name).SerializeToString()
        assert (await method(request)).status == health_pb2.HealthCheckResponse.SERVING


async def test_a_port_in_use_is_unavailable(world: World) -> None:
    with pytest.raises(Unavailable, match="cannot listen"):
        await build_server(
            world.daemon.identity, lambda: world.accepted, [], address=f"127.0.0.1:{world.port}"
        )


def _client_of(world: World, folder: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.load_verify_locations(cadata=world.daemon.identity.cert_pem.decode())
    (folder / "cert.pem").write_bytes(world.member.identity.cert_pem)
    (folder / "key.pem").write_bytes(world.member.identity.key_pem)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.set_alpn_protocols(["h2"])
    return context


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def _literal(name: str, value: str) -> bytes:
    """One header field without indexing, as HPACK writes short ones."""
    pair = (name.encode(), value.encode())
    return b"\x00" + b"".join(bytes([len(text)]) + text for text in pair)


async def _raw_probe(port: int, context: ssl.SSLContext) -> bytes:
    """A `Probe` as bare HTTP/2, since grpc clients cannot be held below TLS 1.3."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=tls.SERVER_NAME
    )
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":path": PROBE,
        ":authority": "hanse",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    headers = b"".join(_literal(*pair) for pair in fields.items())
    writer.write(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(4, 0, 0)
        + _frame(1, 4, 1, headers)
        + _frame(0, 1, 1, bytes(5))
    )
    answer = b""
    async with asyncio.timeout(5):
        while b"grpc-status" not in answer and (more := await reader.read(65536)):
            answer += more
    writer.close()
    return answer


async def test_a_tls_1_2_client_is_refused_by_the_handler(world: World, tmp_path: Path) -> None:
    new = await _raw_probe(world.port, _client_of(world, tmp_path, ssl.TLSVersion.TLSv1_3))
    assert daemons.REGION.encode() in new
    old = await _raw_probe(world.port, _client_of(world, tmp_path, ssl.TLSVersion.TLSv1_2))
    assert b"not TLS 1.3" in old
    assert daemons.REGION.encode() not in old


class Context:
    def __init__(self, **auth: list[bytes]) -> None:
        self.auth = auth

    def auth_context(self) -> dict[str, list[bytes]]:
        return self.auth


@pytest.mark.parametrize("versions", [[], [b"TLSv1.2"], [b"TLSv1.3", b"TLSv1.2"]])
def test_a_version_that_is_missing_or_low_is_refused(versions: list[bytes]) -> None:
    pem = [daemons.daemon(1).identity.cert_pem]
    with pytest.raises(NotPermitted, match=r"TLS 1\.3"):
        tls.peer_of(Context(ssl_tls_version=versions, x509_pem_cert=pem))  # type: ignore[arg-type]
    known = Context(ssl_tls_version=[b"TLSv1.3"], x509_pem_cert=pem)
    assert tls.peer_of(known).kind == "daemon"  # type: ignore[arg-type]
    with pytest.raises(NotPermitted, match="no client certificate"):
        tls.peer_of(Context(ssl_tls_version=[b"TLSv1.3"]))  # type: ignore[arg-type]  # as much of one as is read


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://hansa/eu-north/edge",
        "spiffe://hansa/eu-north/guest/n1",
        "spiffe://hansa/eu-north/edge/n1/x",
        "spiffe://hansa/eu-north/edge/..",
        "spiffe://hansa/eu-north/daemon/n1",
        "https://hansa.example/n1",
    ],
)
def test_a_certificate_without_one_identity_names_nobody(uri: str) -> None:
    with pytest.raises(Rejected):
        tls.peer_of_certificate(tls.issue(uri, days=1, now=daemons.NOW).cert_pem)


def test_any_bytes_are_no_certificate() -> None:
    for pem in (b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(NotPermitted):
            tls.peer_of_certificate(pem)


def test_an_edge_certificate_is_judged_by_issuer_and_dates() -> None:
    ca, impostor = daemons.edge_ca(), daemons.edge_ca()  # one name, two keys
    pem = daemons.node("n1", ca, days=10).cert_pem
    tls.verify_edge_certificate(pem, ca.cert_pem)
    for other in (impostor, daemons.edge_ca("us-west")):
        with pytest.raises(NotPermitted, match="did not issue"):
            tls.verify_edge_certificate(pem, other.cert_pem)
    with pytest.raises(NotPermitted, match="did not issue"):
        tls.verify_edge_certificate(daemons.daemon(1).identity.cert_pem, ca.cert_pem)
    for moment in (daemons.NOW + 11 * DAY, daemons.NOW - DAY):
        with pytest.raises(NotPermitted, match="not now"):
            tls.verify_edge_certificate(pem, ca.cert_pem, now=moment)


def test_a_member_is_known_by_its_key_and_not_by_its_name() -> None:
    first, second = daemons.two_daemons()
    listed = daemons.members([first.listed("")])
    assert tls.check_member(first.peer, listed).id == first.id
    again = daemons.two_daemons()[0]  # the same name with a new TLS key
    elsewhere = Peer(first.peer.federation, second.peer.region, "edge", first.id, first.peer.spki)
    for peer in (second.peer, again.peer, elsewhere):
        with pytest.raises(NotPermitted):
            tls.check_member(peer, listed)
