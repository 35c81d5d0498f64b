"""Who gets as far as a handler, and whom the handler believes (T43)."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import daemons
import grpc
import pytest
from grpc_health.v1 import health_pb2

from hanse.core.errors import NotPermitted, Rejected, Unavailable
from hanse.core.trust.members import Members
from hanse.rpc import certificates, tls
from hanse.rpc.blob_client import PROBE, probe
from hanse.rpc.certificates import Identity
from hanse.rpc.doorkeeper import Doorkeeper
from hanse.rpc.link import GrpcTransport
from hanse.rpc.peer_service import PeerService
from hanse.rpc.server import build_server

DAY = daemons.DAY
SPAN = certificates.from_now(daemons.NOW, 30 * DAY)


class World:
    """A server that knows one other member, and one region's edge CA."""

    def __init__(self) -> None:
        self.daemon, self.member = daemons.two_daemons()
        self.ca = daemons.edge_ca()
        self.listed = [self.member.listed("")]
        self.regions: dict[str, Identity] = {}
        self.channels: list[grpc.aio.Channel] = []
        self.port = 0
        self.keeper: Doorkeeper

    def members(self) -> Members:
        return daemons.members(self.listed, self.ca, **self.regions)

    def channel(self, identity: Identity, server: bytes | None = None) -> grpc.aio.Channel:
        pem = server or self.daemon.authority.cert_pem
        channel = tls.open_channel(f"127.0.0.1:{self.port}", identity, pem)
        self.channels.append(channel)
        return channel


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()

    transport = GrpcTransport(world.daemon.id, world.daemon.shown, world.members)
    service = PeerService(transport, daemons.REGION)
    world.keeper = daemons.doorkeeper(world.members)
    server, world.port = await build_server(world.daemon.shown, world.keeper, [service])
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
        identity = world.member.renewed(daemons.NOW - 60 * DAY)
    elif case == "not yet":
        identity = world.member.renewed(daemons.NOW + 2 * DAY)
    else:
        identity = daemons.node("n1", daemons.edge_ca("us-west"))
    with pytest.raises(Unavailable):
        await probe(world.channel(identity))


async def test_no_certificate_no_connection(world: World) -> None:
    credentials = grpc.ssl_channel_credentials(world.daemon.authority.cert_pem)
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
    impostor = daemons.daemon(1).authority  # same name, another key
    with pytest.raises(Unavailable):
        await probe(world.channel(world.member.identity, impostor.cert_pem))


async def test_a_nodes_certificate_makes_no_member_whatever_tls_accepts(world: World) -> None:
    """A node may measure how far we are; nobody becomes a member by a CA's word."""
    await probe(world.channel(daemons.node("n1", world.ca)))
    uri = certificates.daemon_uri(daemons.FEDERATION, daemons.REGION, world.member.id)
    with pytest.raises(NotPermitted, match="not issued by"):
        await probe(world.channel(certificates.issue(uri, world.ca, SPAN)))


async def test_a_region_cannot_speak_for_a_node_of_another(world: World) -> None:
    """Its CA is accepted by TLS, but the certificate names a region that has another CA."""
    other = daemons.edge_ca("us-east")
    world.regions["us_east"] = other
    with pytest.raises(NotPermitted):
        await probe(world.channel(daemons.node("n1", other)))


async def test_a_member_added_later_needs_no_restart(world: World) -> None:
    newcomer = daemons.daemon(9)
    with pytest.raises(Unavailable):
        await probe(world.channel(newcomer.identity))
    world.listed.append(newcomer.listed(""))
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
        await build_server(world.daemon.shown, world.keeper, [], address=f"127.0.0.1:{world.port}")


def _client_of(world: World, folder: Path, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.load_verify_locations(cadata=world.daemon.authority.cert_pem.decode())
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


async def _raw_call(port: int, context: ssl.SSLContext, path: str) -> bytes:
    """An empty call as bare HTTP/2, since grpc clients cannot be held below TLS 1.3."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=certificates.SERVER_NAME
    )
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":path": path,
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


@pytest.mark.parametrize("path", [PROBE, "/grpc.health.v1.Health/Check"])
async def test_a_tls_1_2_client_is_refused_by_every_service(
    world: World, tmp_path: Path, path: str
) -> None:
    new = await _raw_call(world.port, _client_of(world, tmp_path, ssl.TLSVersion.TLSv1_3), path)
    assert b"not TLS 1.3" not in new
    assert path != PROBE or daemons.REGION.encode() in new
    old = await _raw_call(world.port, _client_of(world, tmp_path, ssl.TLSVersion.TLSv1_2), path)
    assert b"not TLS 1.3" in old
    assert daemons.REGION.encode() not in old


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
async def test_a_tls_1_1_client_gets_no_connection(world: World, tmp_path: Path) -> None:
    context = _client_of(world, tmp_path, ssl.TLSVersion.TLSv1_1)
    context.set_ciphers("ALL:@SECLEVEL=0")  # so that it is the server who refuses
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await _raw_call(world.port, context, PROBE)


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
        tls.peer_of_certificate(certificates.authority(uri, SPAN, "x").cert_pem)


def test_any_bytes_are_no_certificate() -> None:
    for pem in (b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(NotPermitted):
            tls.peer_of_certificate(pem)


def test_an_edge_certificate_is_judged_by_issuer_and_dates() -> None:
    ca, impostor = daemons.edge_ca(), daemons.edge_ca()  # one name, two keys
    pem = daemons.node("n1", ca, days=10).cert_pem
    tls.check_issued(pem, ca.cert_pem)
    for other in (impostor, daemons.edge_ca("us-west")):
        with pytest.raises(NotPermitted, match="not issued by"):
            tls.check_issued(pem, other.cert_pem)
    with pytest.raises(NotPermitted, match="not issued by"):
        tls.check_issued(daemons.daemon(1).identity.cert_pem, ca.cert_pem)
    for moment in (daemons.NOW + 11 * DAY, daemons.NOW - 2 * DAY):
        with pytest.raises(NotPermitted, match="not now"):
            tls.check_issued(pem, ca.cert_pem, now=moment)


def test_a_member_is_known_by_its_key_and_not_by_its_name() -> None:
    first, second = daemons.two_daemons()
    listed = daemons.members([first.listed("")])
    whole = tls.peer_of_certificate(first.identity.cert_pem)
    assert tls.check_member(whole, listed).id == first.id
    again = daemons.two_daemons()[0]  # the same name with a new TLS key
    elsewhere = dataclasses.replace(whole, kind="edge")
    for peer in (second.peer, again.peer, elsewhere):
        with pytest.raises(NotPermitted):
            tls.check_member(peer, listed)
