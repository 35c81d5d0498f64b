"""Fetch blobs from a peer, and measure how far away it is.

What arrives is worth nothing until the caller has compared its digest: a peer may send any
bytes, and only their number is bounded here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import grpc
from google.protobuf.message import DecodeError

from hanse.core import limits
from hanse.core.errors import InvalidSpec, TooLarge, Unavailable
from hanse.core.ids import Digest
from hanse.rpc.status import error_of, reraise_if_ours
from hanse.v1 import blob_pb2, sync_pb2

FETCH = "/hanse.v1.BlobService/Fetch"
PROBE = "/hanse.v1.PeerService/Probe"
PIECE_S = 30.0
PROBE_S = 5.0


async def fetch(
    channel: grpc.aio.Channel,
    digest: Digest,
    release: Digest,
    offset: int = 0,
    *,
    bytes_max: int = limits.FILE_BYTES_MAX,
) -> AsyncIterator[bytes]:
    """The blob from `offset` on, in pieces of at most 1 MiB.

    `bytes_max` is what the manifest leaves to come. Raises `TooLarge` at the first byte
    beyond it, `NotFound` if the peer has no such blob *for us*, `Unavailable` if the peer
    breaks off or a piece takes longer than `PIECE_S`: go on elsewhere from what has come.
    """
    request = blob_pb2.FetchRequest(digest=digest.raw, offset=offset, release=release.raw)
    call = channel.unary_stream(FETCH, None, None)(request.SerializeToString())
    left = bytes_max
    try:
        while raw := await _next(call):
            piece = _data(raw)
            left -= len(piece)
            if left < 0 or len(piece) > limits.BLOB_CHUNK_BYTES:
                raise TooLarge(f"the peer sends more of {digest.short} than there is")
            yield piece
    finally:
        call.cancel()


async def probe(channel: grpc.aio.Channel) -> float:
    """Seconds for one round trip. Raises `NotPermitted`, `Unavailable`."""
    method = channel.unary_unary(PROBE, None, None)
    loop = asyncio.get_running_loop()
    begin_s = loop.time()
    try:
        await method(sync_pb2.ProbeRequest().SerializeToString(), timeout=PROBE_S)
    except grpc.aio.AioRpcError as error:
        raise error_of(error.code(), error.details(), "probe") from None
    except asyncio.CancelledError:
        reraise_if_ours()
        raise Unavailable("the channel was closed") from None
    return loop.time() - begin_s


async def _next(call: grpc.aio.UnaryStreamCall[bytes, bytes]) -> bytes | None:
    try:
        async with asyncio.timeout(PIECE_S):
            raw = cast(bytes, await call.read())
    except TimeoutError:
        raise Unavailable(f"no piece of the blob came within {PIECE_S:g} s") from None
    except grpc.aio.AioRpcError as error:
        raise error_of(error.code(), error.details(), "fetch") from None
    except asyncio.CancelledError:
        reraise_if_ours()
        raise Unavailable("the channel was closed") from None
    return raw or None  # grpc's end of file is falsy


def _data(raw: bytes) -> bytes:
    """The one field of a `FetchResponse`: see `blob_service.piece_message`.

    Reading it by hand saves a copy of each MiB; whoever wrote it in any other legal way is
    left to protobuf.
    """
    size = shift = 0
    for at, byte in enumerate(raw[1:6], start=2):
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if raw[0] == 0x0A and at + size == len(raw):
                return raw[at:]
            break
    try:
        return blob_pb2.FetchResponse.FromString(raw).data
    except DecodeError:
        raise InvalidSpec("the peer's piece of a blob cannot be read") from None
