"""Which release answers a unit: the choice of the inference path, for applications to ask."""

from __future__ import annotations

from typing import Protocol

from hanse.core.audience import Context
from hanse.core.errors import InvalidSpec
from hanse.core.limits import TEXT_BYTES_MAX
from hanse.core.serving import Choice
from hanse.rpc import status
from hanse.rpc.methods import Described
from hanse.v1 import edge_pb2


class Choosing(Protocol):
    def choose(self, model: str, unit: str, context: Context) -> Choice:
        """Raises `Rejected` or `Unavailable`."""
        ...


class FlagService(Described):
    described = edge_pb2.DESCRIPTOR.services_by_name["FlagService"]

    def __init__(self, serving: Choosing) -> None:
        self._serving = serving

    @status.translated
    async def choose(
        self, request: edge_pb2.ChooseRequest, context: status.Context
    ) -> edge_pb2.ChooseResponse:
        if not 0 < len(request.unit.encode()) <= TEXT_BYTES_MAX:
            raise InvalidSpec(
                f"a unit of {len(request.unit)} characters",
                fix=f"name whom you ask for, in 1 to {TEXT_BYTES_MAX} bytes",
            )
        found = self._serving.choose(request.model, request.unit, dict(request.context))
        return edge_pb2.ChooseResponse(
            release=str(found.release),
            version=found.version,
            role=found.role,
            reason=found.reason,
            rollout=found.rollout,
            generation=found.generation,
        )
