"""Asks an edge node which release answers a unit; blocking, for applications of any kind."""

from __future__ import annotations

import grpc

from hanse.core.audience import Context
from hanse.core.ids import Digest
from hanse.core.serving import Choice
from hanse.rpc.status import error_of
from hanse.v1 import edge_pb2, edge_pb2_grpc


class FlagClient:
    """One channel to one node. `ca_pem`: whoever signed the certificate that the node shows."""

    def __init__(self, address: str, *, ca_pem: bytes | None = None, timeout_s: float) -> None:
        self._address, self._timeout_s = address, timeout_s
        self._channel = (
            grpc.insecure_channel(address)
            if ca_pem is None
            else grpc.secure_channel(address, grpc.ssl_channel_credentials(ca_pem))
        )
        self._stub = edge_pb2_grpc.FlagServiceStub(self._channel)

    def choose(self, model: str, unit: str, context: Context) -> Choice:
        """Raises `NotFound`, `Unavailable` or another `Rejected`, as the node says."""
        request = edge_pb2.ChooseRequest(model=model, unit=unit, context=context)
        try:
            found = self._stub.Choose(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise error_of(error.code(), error.details(), self._address) from None
        return Choice(
            Digest.parse(found.release),
            found.version,
            found.role,
            found.reason,
            found.rollout,
            found.generation,
        )

    def close(self) -> None:
        self._channel.close()
