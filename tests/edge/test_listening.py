"""Who reaches the inference port: this machine, or whoever TLS lets in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import daemons
import grpc
import pytest

from hanse.core.errors import InvalidName, InvalidSpec
from hanse.edge.listening import check_listen, check_reach, is_local
from hanse.rpc import certificates
from hanse.rpc.certificates import Identity
from hanse.rpc.inference_server import serve

HEALTH = "/grpc.health.v1.Health/Check"
SPAN = certificates.from_now(daemons.NOW, daemons.DAY)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8001", "127.9.9.9:1", "[::1]:8001", "localhost:8001", "unix:/run/x.sock"]
)
def test_what_stays_on_this_machine_needs_nothing(address: str) -> None:
    assert is_local(check_listen(address))
    check_reach(address, None, None, without_tls=False)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:8001", "[::]:8001", "10.0.0.7:8001", "node.example:8001", "128.0.0.1:1"]
)
def test_what_reaches_further_needs_tls_or_a_word(address: str) -> None:
    with pytest.raises(InvalidSpec, match="serving_without_tls"):
        check_reach(check_listen(address), None, None, without_tls=False)
    check_reach(address, None, None, without_tls=True)
    check_reach(address, Path("c"), Path("k"), without_tls=False)


def test_a_certificate_goes_with_its_key() -> None:
    for cert, key in ((Path("c"), None), (None, Path("k"))):
        with pytest.raises(InvalidSpec, match="go together"):
            check_reach("127.0.0.1:1", cert, key, without_tls=False)


@pytest.mark.parametrize("address", ["", "unix:", "unix:a b", "everywhere", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InvalidName):
        check_listen(address)


class Nothing:
    """A node with no models."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"only health is asked for here, not {name}")


def server_identity() -> tuple[Identity, Identity]:
    """A CA and a certificate of a server, as any operator's own CA would make them."""
    ca = certificates.authority("spiffe://site/x/ca/y", SPAN, "site ca")
    return ca, certificates.issue("spiffe://site/x/daemon/inference", ca, SPAN)


async def healthy(port: int, credentials: grpc.ChannelCredentials | None) -> bytes:
    name: Sequence[tuple[str, str]] = [("grpc.ssl_target_name_override", "hanse")]
    address = f"127.0.0.1:{port}"
    opened = (
        grpc.aio.insecure_channel(address)
        if credentials is None
        else grpc.aio.secure_channel(address, credentials, options=name)
    )
    async with opened as channel:
        return bytes(await channel.unary_unary(HEALTH)(b"", timeout=5))


async def test_with_a_certificate_the_port_speaks_tls_only_and_asks_for_the_callers() -> None:
    ca, shown = server_identity()
    app = certificates.issue("spiffe://site/x/edge/app", ca, SPAN)
    server = await serve(
        "127.0.0.1:0",
        Nothing(),
        lambda *_: None,
        "0",
        shown=shown,
        client_ca_pem=ca.cert_pem,  # type: ignore[arg-type]
    )
    known = grpc.ssl_channel_credentials(ca.cert_pem, app.key_pem, app.cert_pem)
    assert await healthy(server.port, known)
    for credentials in (None, grpc.ssl_channel_credentials(ca.cert_pem)):
        with pytest.raises(grpc.aio.AioRpcError):
            await healthy(server.port, credentials)
    await server.stop(0)


async def test_without_a_client_ca_whoever_trusts_the_certificate_may_ask() -> None:
    ca, shown = server_identity()
    server = await serve("127.0.0.1:0", Nothing(), lambda *_: None, "0", shown=shown)  # type: ignore[arg-type]
    assert await healthy(server.port, grpc.ssl_channel_credentials(ca.cert_pem))
    with pytest.raises(grpc.aio.AioRpcError):
        await healthy(server.port, None)
    await server.stop(0)


async def test_a_unix_socket_serves_too(tmp_path: Path) -> None:
    server = await serve(f"unix:{tmp_path}/s", Nothing(), lambda *_: None, "0")  # type: ignore[arg-type]
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        assert await channel.unary_unary(HEALTH)(b"", timeout=5)
    await server.stop(0)
