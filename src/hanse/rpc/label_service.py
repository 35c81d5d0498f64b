"""Late labels over gRPC: joined on this node, so that only counts ever leave it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc

from hanse.core.limits import TEXT_BYTES_MAX
from hanse.rpc.methods import Described
from hanse.rpc.status import Context
from hanse.v1 import edge_pb2

LABELS_A_CALL_MAX = 10_000
OUTCOME_BYTES_MAX = 64 * 1024
Join = Callable[[str, Sequence[tuple[str, str]]], tuple[int, int]]


class LabelService(Described):
    """`join(model, [(request id, outcome)])` returns how many were joined and how many unknown."""

    described = edge_pb2.DESCRIPTOR.services_by_name["LabelService"]

    def __init__(self, join: Join) -> None:
        self._join = join

    async def record(
        self, request: edge_pb2.RecordRequest, context: Context
    ) -> edge_pb2.RecordResponse:
        if len(request.labels) > LABELS_A_CALL_MAX or any(
            not label.request_id
            or len(label.request_id) > TEXT_BYTES_MAX
            or len(label.outcome) > OUTCOME_BYTES_MAX
            for label in request.labels
        ):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"send at most {LABELS_A_CALL_MAX} labels, each with a request id of 1 to "
                f"{TEXT_BYTES_MAX} characters and an outcome of at most {OUTCOME_BYTES_MAX}",
            )
        labels = [(label.request_id, label.outcome) for label in request.labels]
        joined, unknown = self._join(request.model, labels)
        return edge_pb2.RecordResponse(joined=joined, unknown=unknown)
