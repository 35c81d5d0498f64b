"""Fetch blobs and their parts from a peer, and measure how far away it is.

What arrives is worth nothing until the caller has compared its digest: a peer may send any
bytes, and only their number, order and pace are bounded here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message

from hanse.core import limits
from hanse.core.errors import InvalidProof, InvalidSpec, TooLarge, Unavailable
from hanse.core.ids import Digest
from hanse.core.transfer.wanted import (
    ADDRESS_BYTES_MAX,
    NEIGHBOURS_MAX,
    Elsewhere,
    File,
    Neighbour,
    Wanted,
)
from hanse.parts.recipe import Recipe, parse_recipe
from hanse.rpc.pacing import Pace
from hanse.rpc.status import call_errors
from hanse.v1 import blob_pb2, sync_pb2

FETCH = "/hanse.v1.BlobService/Fetch"
RECIPE = "/hanse.v1.BlobService/Recipe"
PARTS = "/hanse.v1.BlobService/Parts"
PROBE = "/hanse.v1.PeerService/Probe"
PIECE_S = 30.0
PROBE_S = 5.0
PACE_S = 60.0
PACE_BYTES_MIN = 64 * 1024
"""Whoever sends less in `PACE_S` of waiting for it only holds us up."""
AS_IT_COMES = Pace()
_PAYLOAD_HEAD_BYTES = 2
_Call: TypeAlias = "grpc.aio.UnaryStreamCall[bytes, bytes]"
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Arriving:
    """A part whose payload is on its way, not looked into: read its pieces before the next part."""

    part: int
    pieces: AsyncIterator[memoryview]


@dataclass(frozen=True, slots=True)
class Pointed:
    """A part is not sent."""

    part: int
    elsewhere: Elsewhere


async def fetch(
    channel: grpc.aio.Channel,
    digest: Digest,
    release: Digest,
    offset: int = 0,
    *,
    bytes_max: int = limits.FILE_BYTES_MAX,
    line: Pace = AS_IT_COMES,
) -> AsyncIterator[memoryview]:
    """The blob from `offset` on, in pieces of at most 1 MiB.

    `bytes_max` is what the manifest leaves to come; `line` is ours. Raises `TooLarge` at the
    first byte beyond it, `NotFound` if the peer has no such blob *for us*, `Unavailable` if the
    peer breaks off or is too slow: go on elsewhere from what has come.
    """
    request = blob_pb2.FetchRequest(digest=digest.raw, offset=offset, release=release.raw)
    async for piece in _pieces(channel, FETCH, request, digest, bytes_max):
        yield piece
        await line.take(digest, len(piece))


async def recipe(channel: grpc.aio.Channel, file: File, size: int) -> tuple[Recipe, Digest]:
    """What the peer says that a file of this size is made of, and the digest of its words.

    Raises as `fetch` does, and `Rejected` if it is no recipe of such a file.
    """
    request = blob_pb2.RecipeRequest(digest=file.digest.raw, release=file.release.raw)
    raw = b"".join(
        [p async for p in _pieces(channel, RECIPE, request, file.digest, limits.RECIPE_BYTES_MAX)]
    )
    found = await asyncio.to_thread(parse_recipe, raw)
    if (found.digest, found.size) != (file.digest, size):
        raise InvalidProof("a recipe of another file", fix="ask another peer")
    return found, Digest.of(raw)


async def parts(
    channel: grpc.aio.Channel, wanted: Wanted, sizes: Sequence[int], line: Pace = AS_IT_COMES
) -> AsyncIterator[Arriving | Pointed]:
    """The parts in the order asked for; `sizes` are theirs.

    Raises `Rejected` if the peer sends anything else, and else as `fetch` does.
    """
    call = channel.unary_stream(PARTS, None, None)(_request(wanted).SerializeToString())
    pace = _Pace()

    async def payload(part: int, piece: _Piece, left: int) -> AsyncIterator[memoryview]:
        while True:
            left -= len(piece.data)
            if left < 0:
                raise TooLarge(f"the payload of part {part} is larger than the part")
            yield piece.data
            await line.take(wanted.file.digest, len(piece.data))
            if piece.last:
                return
            piece = await _piece(call, pace, part)
            if not piece.data:
                raise InvalidProof(f"part {part} breaks off", fix="ask another peer")

    try:
        for part, size in zip(wanted.parts, sizes, strict=True):
            first = await _piece(call, pace, part)
            if first.data:
                yield Arriving(part, payload(part, first, size + _PAYLOAD_HEAD_BYTES))
            else:
                yield Pointed(part, _elsewhere(first.raw))
        if await pace.read(call):
            raise TooLarge("the peer sends more parts than were asked for")
    finally:
        call.cancel()


class _Piece(NamedTuple):
    part: int
    data: memoryview
    last: bool
    raw: bytes


async def _piece(call: _Call, pace: _Pace, part: int) -> _Piece:
    raw = await pace.read(call)
    if not raw:
        raise InvalidProof(f"the peer ended before part {part}", fix="ask another peer")
    piece = _piece_in(raw)
    if piece.part != part:
        raise InvalidProof(f"part {piece.part} came where {part} was asked for")
    return piece


def _piece_in(raw: bytes) -> _Piece:
    """A `PartsResponse`, by hand if it is as `blob_service.part_message` writes it, see `_data`."""
    if raw[0] == 0x08:
        part, at = _varint(raw, 1)
        last = raw[-2:] == b"\x18\x01"
        if raw[at : at + 1] == b"\x12":
            size, at = _varint(raw, at + 1)
            if at + size + 2 * last == len(raw):
                return _Piece(part, memoryview(raw)[at : at + size], last, raw)
    message = _parsed(blob_pb2.PartsResponse, raw)
    return _Piece(message.part, memoryview(message.data), message.last, raw)


def _request(wanted: Wanted) -> blob_pb2.PartsRequest:
    base = wanted.base
    return blob_pb2.PartsRequest(
        digest=wanted.file.digest.raw,
        release=wanted.file.release.raw,
        recipe=wanted.recipe.raw,
        parts=wanted.parts,
        base=base.digest.raw if base else b"",
        base_release=base.release.raw if base else b"",
        packed=wanted.packed,
        insist=wanted.insist,
        ticket=wanted.ticket,
    )


def _elsewhere(raw: bytes) -> Elsewhere:
    message = _parsed(blob_pb2.PartsResponse, raw)
    named = [Neighbour(n.node, n.address) for n in message.elsewhere]
    if (
        len(named) > NEIGHBOURS_MAX
        or len(message.ticket) > limits.TICKET_BYTES_MAX
        or any(len(text) > ADDRESS_BYTES_MAX for n in named for text in (n.node, n.address))
    ):
        raise TooLarge("the peer names more neighbours than anybody has")
    return Elsewhere(tuple(named), message.ticket)


async def _pieces(
    channel: grpc.aio.Channel, method: str, request: Message, digest: Digest, bytes_max: int
) -> AsyncIterator[memoryview]:
    call = channel.unary_stream(method, None, None)(request.SerializeToString())
    pace, left = _Pace(), bytes_max
    try:
        while raw := await pace.read(call):
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
    with call_errors("probe"):
        await method(sync_pb2.ProbeRequest().SerializeToString(), timeout=PROBE_S)
    return loop.time() - begin_s


async def _next(call: _Call) -> bytes | None:
    try:
        with call_errors("fetch"):
            async with asyncio.timeout(PIECE_S):
                raw = cast(bytes, await call.read())
    except TimeoutError:
        raise Unavailable(f"no piece of the blob came within {PIECE_S:g} s") from None
    return raw or None  # grpc's end of file is falsy


@dataclass(slots=True)
class _Pace:
    """Reads a stream for as long as it is worth it. What the reader does meanwhile is not counted
    against the peer."""

    waited_s: float = 0.0
    came: int = 0

    async def read(self, call: _Call) -> bytes | None:
        """The next message; None at the end."""
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        raw = await _next(call)
        self.waited_s += loop.time() - begin_s
        self.came += len(raw or b"")
        if self.waited_s >= PACE_S:
            if self.came < PACE_BYTES_MIN:
                raise Unavailable(f"the peer sent {self.came} bytes in {self.waited_s:.0f} s")
            self.waited_s, self.came = 0.0, 0
        return raw


def _data(raw: bytes) -> memoryview:
    """The one field of a `FetchResponse`: see `blob_service.piece_message`.

    Reading it by hand saves two copies of each MiB; whoever wrote it in any other legal way is
    left to protobuf.
    """
    if raw[0] == 0x0A:
        size, at = _varint(raw, 1)
        if at + size == len(raw):
            return memoryview(raw)[at:]
    return memoryview(_parsed(blob_pb2.FetchResponse, raw).data)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A number of up to five bytes, and what comes behind it; no such number is taken for huge."""
    value = shift = 0
    for behind, byte in enumerate(raw[at : at + 5], start=at + 1):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, behind
    return len(raw), len(raw)


def _parsed(kind: type[M], raw: bytes) -> M:
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise InvalidSpec("the peer's piece of a blob cannot be read") from None
