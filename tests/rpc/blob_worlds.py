"""One server of blobs and one client of it, over real mTLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import daemons
import grpc

from hanse.core.transfer.wanted import Wanted
from hanse.rpc import blob_client, tls
from hanse.rpc.blob_client import Pointed
from hanse.rpc.link import GrpcTransport
from hanse.rpc.peer_service import PeerService
from hanse.rpc.server import Service, build_server

Answer = Callable[[bytes, Any], AsyncIterator[bytes]]


class Scripted:
    """Says whatever it was told to, to whatever is asked."""

    name = "hanse.v1.BlobService"

    def __init__(self) -> None:
        self.answer: Answer

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        async def say(request: bytes, context: Any) -> None:
            async for message in self.answer(request, context):
                await context.write(message)

        method = grpc.unary_stream_rpc_method_handler(say)
        methods = dict.fromkeys(("Fetch", "Recipe", "Parts"), method)
        return grpc.method_handlers_generic_handler(self.name, methods)


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[tuple[grpc.aio.Channel, daemons.Daemon]]:
    """A channel to the service, and who speaks over it."""
    async with served(service) as (address, pinned, client):
        channel = tls.open_channel(address, client.identity, pinned)
        yield channel, client
        await channel.close()


@asynccontextmanager
async def served(service: Service) -> AsyncIterator[tuple[str, bytes, daemons.Daemon]]:
    """Where the service is, the certificate of its authority, and who may speak with it."""
    server_daemon, client = daemons.two_daemons()
    listed = [client.listed("")]

    def members() -> Any:
        return daemons.members(listed)

    transport = GrpcTransport(server_daemon.id, server_daemon.shown, members)
    services = [service, PeerService(transport, daemons.REGION)]
    server, port = await build_server(server_daemon.shown, daemons.doorkeeper(members), services)
    await server.start()
    yield f"127.0.0.1:{port}", server_daemon.authority.cert_pem, client
    await server.stop(None)


@dataclass(frozen=True)
class Came:
    """A part that came, and its whole payload."""

    part: int
    payload: bytes


async def gathered(
    channel: grpc.aio.Channel, wanted: Wanted, sizes: Sequence[int]
) -> list[Came | Pointed]:
    """What is answered, payloads whole."""
    found: list[Came | Pointed] = []
    async for answer in blob_client.parts(channel, wanted, sizes):
        if isinstance(answer, Pointed):
            found.append(answer)
        else:
            found.append(Came(answer.part, b"".join([piece async for piece in answer.pieces])))
    return found
