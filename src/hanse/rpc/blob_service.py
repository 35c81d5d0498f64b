"""hanse.v1.BlobService: bytes of artefacts, to whom residency allows them.

The gate judges the direct peer's certificate before anything is looked up, and there is one
answer for "not for you" and "not here": a peer cannot find out what we hold.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Protocol

import grpc

from hanse.core import limits
from hanse.core.counters import Counters, zeros
from hanse.core.errors import InvalidSpec, NotFound, NotPermitted, Unavailable
from hanse.core.ids import Digest
from hanse.rpc import tls
from hanse.rpc.status import Context, translated
from hanse.rpc.tls import Peer
from hanse.v1 import blob_pb2 as pb

NAME = "hanse.v1.BlobService"
FETCHES_MAX = 64
FETCHES_PER_PEER_MAX = 4
WRITE_S = 30.0


class BlobSource(Protocol):
    """Files, and who may have them. What blocks is called in a thread."""

    def may_fetch(self, peer: Peer, digest: Digest, release: Digest) -> bool:
        """Membership and residency come first, the disk last; it does not block.

        `peer` holds a certificate that some listed CA or member signed; whether it is a
        member or a node of this region is the source's to check. May raise `NotPermitted`,
        which is answered just as False is.
        """
        ...

    def size(self, digest: Digest) -> int:
        """This and the next block, and raise `NotFound` for what was dropped meanwhile."""
        ...

    def read_range(self, digest: Digest, start: int, length: int) -> bytes: ...


class BlobService:
    name = NAME

    def __init__(self, source: BlobSource, counters: Counters | None = None) -> None:
        self._source = source
        self._counters = zeros() if counters is None else counters
        self._slots = asyncio.Semaphore(FETCHES_MAX)
        self._by_peer: Counter[bytes] = Counter()

    @translated
    async def fetch(self, request: pb.FetchRequest, context: Context) -> None:
        peer = tls.peer_of(context)
        digest, release = Digest.from_bytes(request.digest), Digest.from_bytes(request.release)
        if self._by_peer[peer.spki] >= FETCHES_PER_PEER_MAX:
            self._counters["fetches_refused"] += 1
            raise Unavailable(
                f"{FETCHES_PER_PEER_MAX} fetches of this peer are under way",
                fix="let one of them end first",
            )
        self._by_peer[peer.spki] += 1
        try:
            async with self._slots:
                self._judge(peer, digest, release)
                await context.send_initial_metadata(())
                await self._send(digest, request.offset, context)
        finally:
            self._by_peer[peer.spki] -= 1
            if not self._by_peer[peer.spki]:
                del self._by_peer[peer.spki]

    def _judge(self, peer: Peer, digest: Digest, release: Digest) -> None:
        try:
            allowed = self._source.may_fetch(peer, digest, release)
        except NotPermitted:
            allowed = False
        if not allowed:
            raise _not_found(digest)

    async def _send(self, digest: Digest, offset: int, context: Context) -> None:
        try:
            size = await asyncio.to_thread(self._source.size, digest)
            if offset > size:
                raise InvalidSpec(f"offset {offset} lies beyond the blob's {size} bytes")
            while offset < size:
                message = await asyncio.to_thread(self._piece, digest, offset)
                await _write(context, message)
                offset += limits.BLOB_CHUNK_BYTES
        except NotFound:  # dropped since the gate looked
            raise _not_found(digest) from None

    def _piece(self, digest: Digest, offset: int) -> bytes:
        return piece_message(self._source.read_range(digest, offset, limits.BLOB_CHUNK_BYTES))

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        method = grpc.unary_stream_rpc_method_handler(
            self.fetch, request_deserializer=pb.FetchRequest.FromString
        )
        return grpc.method_handlers_generic_handler(NAME, {"Fetch": method})


def piece_message(data: bytes) -> bytes:
    """A serialised `FetchResponse`: tag 0x0a, length as varint, then the bytes.

    By hand, because protobuf would copy each MiB once more into its own memory; a test
    proves that the bytes are the same.
    """
    size, head = len(data), bytearray(b"\x0a")
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return b"".join((head, data))


async def _write(context: Context, message: bytes) -> None:
    try:
        async with asyncio.timeout(WRITE_S):
            await context.write(message)
    except TimeoutError:
        raise Unavailable(f"the caller took no piece for {WRITE_S:g} s") from None


def _not_found(digest: Digest) -> NotFound:
    return NotFound(f"no blob {digest} here for you", fix="ask another peer")
