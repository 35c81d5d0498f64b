"""hanse.v1.BlobService: bytes of artefacts, to whom residency allows them.

The gate judges the direct peer's certificate before anything is looked up, and there is one
answer for "not for you" and "not here": a peer cannot find out what we hold.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Protocol

from hanse.core import limits
from hanse.core.counters import Counters, zeros
from hanse.core.errors import InvalidSpec, NotFound, NotPermitted, TooLarge, Unavailable
from hanse.core.ids import Digest
from hanse.core.transfer.wanted import ASKED_MAX, Elsewhere, File, Wanted
from hanse.parts.recipe import Recipe
from hanse.rpc import tls
from hanse.rpc.methods import Described
from hanse.rpc.pacing import Pace
from hanse.rpc.payloads import Damaged, Known, Payloads, Piece, Place, read_ahead
from hanse.rpc.status import Context, translated
from hanse.rpc.tls import Peer
from hanse.v1 import blob_pb2 as pb

FETCHES_MAX = 64
FETCHES_PER_PEER_MAX = 8
WRITE_S = 30.0
WAIT_S = 2.0
"""So long together a call waits for parts that are on their way here."""


class BlobSource(Protocol):
    """Files, and who may have them."""

    def may_fetch(self, peer: Peer, file: File, ticket: bytes = b"") -> bool:
        """Membership and residency come first, the disk last; it does not block.

        `peer` holds a certificate that some listed CA or member signed; whether it is a
        member or a node of this region is the source's to check. May raise `NotPermitted`,
        which is answered just as False is.
        """
        ...

    def may_lean(self, peer: Peer, base: File) -> bool:
        """Whether what this peer is sent of a file that it may have may be against this one."""
        ...

    # These three block, and raise `NotFound` for what was dropped meanwhile.
    def size(self, digest: Digest) -> int: ...
    def read_range(self, digest: Digest, start: int, length: int) -> bytes: ...
    def recipe(self, file: File) -> Recipe: ...

    async def elsewhere(self, peer: Peer, wanted: Wanted) -> Mapping[int, Elsewhere]:
        """Where else this peer shall get some of these parts; the others it gets here."""
        ...

    async def has_part(self, file: File, part: int, until_s: float) -> bool:
        """Whether it can be read, perhaps after a while: until then, by the loop's time."""
        ...

    def on_damage(self, digest: Digest) -> None:
        """Bytes were read that are not those of the blob."""
        ...


class BlobService(Described):
    described = pb.DESCRIPTOR.services_by_name["BlobService"]

    def __init__(
        self,
        source: BlobSource,
        counters: Counters | None = None,
        pace: Pace | None = None,
        *,
        at_once: int = FETCHES_MAX,
        of_a_peer: int = FETCHES_PER_PEER_MAX,
    ) -> None:
        self._source = source
        self._payloads = Payloads(source)
        self._pace = pace or Pace()
        self._counters = zeros() if counters is None else counters
        self._slots = asyncio.Semaphore(at_once)
        self._of_a_peer = of_a_peer
        self._by_peer: Counter[bytes] = Counter()

    @translated
    async def fetch(self, request: pb.FetchRequest, context: Context) -> None:
        file = _file(request.digest, request.release)
        async with self._admitted(file, context) as peer, self._slots:
            await context.send_initial_metadata(())
            size, offset = await asyncio.to_thread(self._source.size, file.digest), request.offset
            if offset > size:
                raise InvalidSpec(f"offset {offset} lies beyond the blob's {size} bytes")
            async with aclosing(self._ranges(file.digest, offset, size)) as messages:
                async for message, count in messages:
                    await self._write(context, peer, message, count)

    async def _ranges(
        self, digest: Digest, offset: int, size: int
    ) -> AsyncGenerator[tuple[bytes, int], None]:
        step = self._pace.piece_bytes

        def read(start: int) -> tuple[bytes, int]:
            data = self._source.read_range(digest, start, step)
            return piece_message(data), len(data)

        async with aclosing(read_ahead(read, range(offset, size, step))) as messages:
            async for message in messages:
                yield message

    @translated
    async def recipe(self, request: pb.RecipeRequest, context: Context) -> None:
        file = _file(request.digest, request.release)
        step = self._pace.piece_bytes
        async with self._admitted(file, context) as peer, self._slots:
            known = await self._payloads.recipe(file)
            raw = await asyncio.to_thread(known.recipe.encode)
            for at in range(0, len(raw), step):
                data = raw[at : at + step]
                await self._write(context, peer, piece_message(data), len(data))

    @translated
    async def parts(self, request: pb.PartsRequest, context: Context) -> None:
        wanted = parse_wanted(request)
        async with self._admitted(wanted.file, context, wanted.ticket) as peer:
            known = await self._payloads.recipe(wanted.file)
            if known.id != wanted.recipe:
                raise NotFound("parts of another recipe", fix="ask for the recipe, or another peer")
            if max(wanted.parts) >= len(known.recipe.parts):
                raise InvalidSpec("a part beyond the last", fix="ask for parts of the recipe")
            bases = await self._bases(peer, wanted, known)
            await context.send_initial_metadata(())
            pointed = await self._source.elsewhere(peer, wanted)
            until_s = asyncio.get_running_loop().time() + WAIT_S
            for number in wanted.parts:
                place = known.place(number)
                base = bases.get(place.part.digest)
                where = None if self._payloads.is_small(place, base) else pointed.get(number)
                if where is None and not await self._source.has_part(wanted.file, number, until_s):
                    where = Elsewhere()
                if where is not None:
                    await self._write(context, peer, elsewhere_message(number, where), 0)
                    continue
                pieces = self._payloads.pieces(
                    place, base, packed=wanted.packed, bytes_max=self._pace.piece_bytes
                )
                # slots are not held by who waits for a part, or is sent elsewhere
                async with self._slots, aclosing(pieces):
                    async for piece in pieces:
                        message = part_message(number, piece)
                        await self._write(context, peer, message, piece.size)

    async def _bases(self, peer: Peer, wanted: Wanted, known: Known) -> dict[Digest, Place]:
        """None if the peer may not have the base: it gets what needs no base."""
        if wanted.base is None or not self._source.may_lean(peer, wanted.base):
            return {}
        return await self._payloads.bases(known, await self._payloads.recipe(wanted.base))

    @asynccontextmanager
    async def _admitted(
        self, file: File, context: Context, ticket: bytes = b""
    ) -> AsyncIterator[Peer]:
        """Hold one of this peer's fetches, if it may have the file."""
        peer = tls.peer_of(context)
        if self._by_peer[peer.spki] >= self._of_a_peer:
            self._counters["fetches_refused"] += 1
            raise Unavailable(
                f"{self._of_a_peer} fetches of this peer are under way",
                fix="let one of them end first",
            )
        self._by_peer[peer.spki] += 1
        try:
            allowed = False
            with suppress(NotPermitted):
                allowed = self._source.may_fetch(peer, file, ticket)
            if not allowed:
                raise _not_found(file.digest)
            yield peer
        except NotFound:  # dropped since the gate looked
            raise _not_found(file.digest) from None
        except Damaged as error:
            self._source.on_damage(error.file)
            raise
        finally:
            self._by_peer[peer.spki] -= 1
            if not self._by_peer[peer.spki]:
                del self._by_peer[peer.spki]

    async def _write(self, context: Context, peer: Peer, message: bytes, count: int) -> None:
        await self._pace.take(peer.spki, count)
        self._counters["blob_bytes_sent"] += count  # before: who has it all hangs up meanwhile
        try:
            async with asyncio.timeout(WRITE_S):
                await context.write(message)
        except TimeoutError:
            raise Unavailable(f"the caller took no piece for {WRITE_S:g} s") from None


def parse_wanted(request: pb.PartsRequest) -> Wanted:
    parts = tuple(request.parts)
    if not 1 <= len(parts) <= ASKED_MAX or len(set(parts)) != len(parts):
        raise InvalidSpec(f"parts are asked for by 1 to {ASKED_MAX} numbers, each once")
    if len(request.ticket) > limits.TICKET_BYTES_MAX:
        raise TooLarge(f"a ticket of {len(request.ticket)} bytes")
    return Wanted(
        _file(request.digest, request.release),
        Digest.from_bytes(request.recipe),
        parts,
        base=_file(request.base, request.base_release) if request.base else None,
        packed=request.packed,
        insist=request.insist,
        ticket=request.ticket,
    )


def elsewhere_message(part: int, pointed: Elsewhere) -> bytes:
    neighbours = [pb.Neighbour(node=n.node, address=n.address) for n in pointed.neighbours]
    message = pb.PartsResponse(part=part, elsewhere=neighbours, ticket=pointed.ticket)
    message.last = True  # so that it is not empty: on a stream that would be its end
    return message.SerializeToString()


def _file(digest: bytes, release: bytes) -> File:
    return File(Digest.from_bytes(digest), Digest.from_bytes(release))


def piece_message(data: bytes) -> bytes:
    """A serialised `FetchResponse`: tag 0x0a, length as varint, then the bytes.

    By hand, because protobuf would copy each MiB once more into its own memory; a test
    proves that the bytes are the same.
    """
    return b"".join((b"\x0a", _varint(len(data)), data))


def part_message(part: int, piece: Piece) -> bytes:
    """A serialised `PartsResponse` with its part, its data and whether it is the last."""
    return b"".join(
        (
            b"\x08",
            _varint(part),
            b"\x12",
            _varint(piece.size),
            piece.head,
            piece.data,
            b"\x18\x01" if piece.last else b"",
        )
    )


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _not_found(digest: Digest) -> NotFound:
    return NotFound(f"no blob {digest} here for you", fix="ask another peer")
