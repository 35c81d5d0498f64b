"""How an edge node speaks with daemons: watch, report, fetch, probe.

gRPC's errors end here: what may work later becomes `Unavailable`, what the daemon refused
becomes `Rejected`, and no caller above sees a status code.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping

import grpc

from hanse.core import limits
from hanse.core.errors import Rejected
from hanse.core.ids import Digest
from hanse.rpc.status import error_of
from hanse.v1 import blob_pb2, blob_pb2_grpc, edge_pb2, edge_pb2_grpc, sync_pb2, sync_pb2_grpc

CALL_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 3.0


class DaemonClient:
    """One daemon behind one channel; the caller owns and closes the channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._edge = edge_pb2_grpc.EdgeServiceStub(channel)
        self._blob = blob_pb2_grpc.BlobServiceStub(channel)
        self._peer = sync_pb2_grpc.PeerServiceStub(channel)

    async def watch(
        self, node: str, facts: Mapping[str, str]
    ) -> AsyncIterator[tuple[bytes, bytes]]:
        """Assignments with their signatures, unverified, until the daemon ends the stream."""
        request = edge_pb2.WatchRequest(node=node, facts=dict(facts))
        with _translated():
            async for response in self._edge.Watch(request):
                yield response.assignment, response.signature

    async def report(self, node: str, boot_nonce: bytes, seq: int, raw: bytes) -> int:
        """Deliver one report; returns the highest number that the daemon has counted."""
        request = edge_pb2.ReportRequest(node=node, boot_nonce=boot_nonce, seq=seq, report=raw)
        with _translated():
            response = await self._edge.Report(request, timeout=CALL_TIMEOUT_S)
        return int(response.acknowledged_seq)

    async def fetch(self, digest: Digest, release: Digest, offset: int) -> AsyncIterator[bytes]:
        """The bytes of a blob from `offset`, unverified, in chunks of at most 1 MiB."""
        request = blob_pb2.FetchRequest(digest=digest.raw, offset=offset, release=release.raw)
        with _translated():
            async for response in self._blob.Fetch(request):
                if len(response.data) > limits.BLOB_CHUNK_BYTES:
                    raise Rejected(f"a chunk of {len(response.data)} bytes")
                yield response.data

    async def probe(self) -> None:
        """Return as soon as the daemon answers."""
        with _translated():
            await self._peer.Probe(sync_pb2.ProbeRequest(), timeout=PROBE_TIMEOUT_S)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise error_of(error.code(), error.details(), "the daemon") from error
