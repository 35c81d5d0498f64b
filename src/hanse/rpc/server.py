"""A daemon's one gRPC port: mutual TLS, no compression, health and reflection.

There is no other and none without TLS. Every call of every service passes first
`rpc.doorkeeper`, which asks who calls, then `rpc.admission`, which asks how often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from hanse.core import counters, limits
from hanse.core.errors import Unavailable
from hanse.rpc import tls
from hanse.rpc.admission import Admission, GuardedServer
from hanse.rpc.certificates import Identity
from hanse.rpc.doorkeeper import Doorkeeper

Server = grpc.aio.Server
_RPCS_MAX = limits.NODES_MAX + 1_000  # every node watching, and room for everything else


class Service(Protocol):
    """One gRPC service: its full name and its methods."""

    @property
    def name(self) -> str: ...

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]: ...


async def build_server(
    identity: Callable[[], Identity],
    doorkeeper: Doorkeeper,
    services: Sequence[Service],
    *,
    address: str = "127.0.0.1:0",
    admission: Admission | None = None,
    options: Sequence[tuple[str, int]] = (),
) -> tuple[grpc.aio.Server, int]:
    """A server that is bound but not started, and its port. Raises `Unavailable`.

    `identity` is asked at each handshake for what to show then. `options` replace those of the
    same name.
    """
    gate = admission or Admission(counters.zeros())
    server = grpc.aio.server(
        interceptors=[doorkeeper],
        options=list((dict(tls.SERVER_OPTIONS) | dict(options)).items()),
        maximum_concurrent_rpcs=_RPCS_MAX,
    )
    doors = GuardedServer(server, gate)
    doors.add_generic_rpc_handlers([service.handler() for service in services])
    await _add_health(doors, [service.name for service in services])
    try:
        credentials = tls.server_credentials(identity, doorkeeper.known.accepted)
        port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise Unavailable(
            f"cannot listen on {address}: {error}", fix="choose another address or free this one"
        ) from None
    return server, port


async def _add_health(server: GuardedServer, names: Sequence[str]) -> None:
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # added at run time
    for name in names:
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    shown = (*names, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflected = reflection.aio.ReflectionServicer(shown)  # type: ignore[attr-defined]  # as above
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, server)
