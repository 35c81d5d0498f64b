"""An edge node's inference port: the Open Inference Protocol, late labels, health, reflection."""

from __future__ import annotations

import grpc

from hanse.core import limits
from hanse.core.errors import Unavailable
from hanse.rpc.inference_service import Serving, add_inference_service, server_options
from hanse.rpc.label_service import Join, add_label_service


class InferenceServer:
    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self._server = server
        self.port = port

    async def stop(self, grace_s: float) -> None:
        """Take no new requests, give those that run `grace_s` seconds."""
        await self._server.stop(grace_s)


async def serve(address: str, serving: Serving, join: Join, version: str) -> InferenceServer:
    """Listen on `address`, without TLS. Raises `Unavailable` if the port is taken."""
    server = grpc.aio.server(
        options=server_options(), maximum_concurrent_rpcs=limits.INFERENCES_AT_ONCE_MAX
    )
    labels = add_label_service(server, join)
    add_inference_service(server, serving, version, [labels])
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise Unavailable(
            f"cannot listen on {address}: {error}", fix="choose another address or free it"
        ) from None
    await server.start()
    return InferenceServer(server, port)
