"""A daemon's one gRPC port: mutual TLS, no compression, health and reflection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hanse.core import limits
from hanse.core.errors import Unavailable
from hanse.rpc import tls
from hanse.rpc.tls import Identity

_RPCS_MAX = limits.NODES_MAX + 1_000  # every node watching, and room for everything else


class Service(Protocol):
    """One gRPC service: its full name and its methods."""

    @property
    def name(self) -> str: ...

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]: ...


async def build_server(
    identity: Identity,
    accepted_certs: Callable[[], Sequence[bytes]],
    services: Sequence[Service],
    *,
    address: str = "127.0.0.1:0",
) -> tuple[grpc.aio.Server, int]:
    """A server that is bound but not started, and its port. Raises `Unavailable`.

    `accepted_certs` gives the PEM certificates of members and edge CAs at each handshake;
    who may do what is then for each service to judge by the caller's certificate.
    """
    server = grpc.aio.server(options=tls.SERVER_OPTIONS, maximum_concurrent_rpcs=_RPCS_MAX)
    server.add_generic_rpc_handlers([service.handler() for service in services])
    await _add_health(server, [service.name for service in services])
    try:
        port = server.add_secure_port(address, tls.server_credentials(identity, accepted_certs))
    except RuntimeError as error:
        raise Unavailable(
            f"cannot listen on {address}: {error}", fix="choose another address or free this one"
        ) from None
    return server, port


async def _add_health(server: grpc.aio.Server, names: Sequence[str]) -> None:
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # added at run time
    for name in names:
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection(
        (*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
