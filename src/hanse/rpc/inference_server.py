"""An edge node's inference port: the Open Inference Protocol, late labels, health, reflection."""

from __future__ import annotations

import grpc

from hanse.core import limits
from hanse.core.errors import Unavailable
from hanse.rpc.certificates import Identity
from hanse.rpc.flag_service import FlagService
from hanse.rpc.inference_service import Serving, add_inference_service, server_options
from hanse.rpc.label_service import Join, LabelService


class InferenceServer:
    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self._server = server
        self.port = port

    async def stop(self, grace_s: float) -> None:
        """Take no new requests, give those that run `grace_s` seconds."""
        await self._server.stop(grace_s)


async def serve(
    address: str,
    serving: Serving,
    join: Join,
    version: str,
    *,
    shown: Identity | None = None,
    client_ca_pem: bytes | None = None,
) -> InferenceServer:
    """Listen on `address`: with TLS if there is something to show, else without.

    With `client_ca_pem` callers must show a certificate. Raises `Unavailable` if the port is
    taken.
    """
    server = grpc.aio.server(
        options=server_options(), maximum_concurrent_rpcs=limits.INFERENCES_AT_ONCE_MAX
    )
    others = (LabelService(join), FlagService(serving))
    server.add_generic_rpc_handlers([each.handler() for each in others])
    add_inference_service(server, serving, version, [each.name for each in others])
    try:
        if shown is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _credentials(shown, client_ca_pem))
    except RuntimeError as error:
        raise Unavailable(
            f"cannot listen on {address}: {error}", fix="choose another address or free it"
        ) from None
    await server.start()
    return InferenceServer(server, port)


def _credentials(shown: Identity, client_ca_pem: bytes | None) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(shown.key_pem, shown.cert_pem)],
        root_certificates=client_ca_pem,
        require_client_auth=client_ca_pem is not None,
    )
