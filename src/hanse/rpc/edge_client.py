"""How an edge node hears from its daemon and reports to it.

gRPC's errors end here: no caller above sees a status code.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import grpc

from hanse.rpc.status import call_errors
from hanse.v1 import edge_pb2, edge_pb2_grpc

REPORT_S = 10.0


async def watch(
    channel: grpc.aio.Channel, node: str, facts: Mapping[str, str]
) -> AsyncGenerator[tuple[bytes, bytes], None]:
    """Assignments with their signatures, unverified, until the daemon ends the stream.

    Raises `Unavailable` when the connection is lost and `Rejected` when the daemon refuses.
    """
    call = edge_pb2_grpc.EdgeServiceStub(channel).Watch(
        edge_pb2.WatchRequest(node=node, facts=dict(facts))
    )
    try:
        with call_errors("watch"):
            async for response in call:
                yield response.assignment, response.signature
    finally:
        call.cancel()


async def report(
    channel: grpc.aio.Channel, node: str, boot_nonce: bytes, seq: int, raw: bytes
) -> int:
    """Deliver one report; returns the highest number that the daemon has counted.

    Raises `Unavailable` or `Rejected`; the same report may then be sent again.
    """
    request = edge_pb2.ReportRequest(node=node, boot_nonce=boot_nonce, seq=seq, report=raw)
    with call_errors("report"):
        response = await edge_pb2_grpc.EdgeServiceStub(channel).Report(request, timeout=REPORT_S)
    return int(response.acknowledged_seq)
