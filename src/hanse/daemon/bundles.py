"""Bundles: made for another region from what is stored, and taken in as if they were a peer.

Making one: the receiver says what it has (`Held`), the rest is listed with its digests, signed
and streamed. Which model files may go to the receiving region is judged here, by whoever gives.

Taking one: it may come from anybody. It is read once, in order, piece by piece, and no part is
touched before its digest is right. Trust, events and files then go exactly the way that a
peer's frames and transfers go; residency is judged again, by whoever receives. Nothing is
repeated that is here already, so a bundle that was interrupted is simply taken again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hanse.core import bundle, freeze
from hanse.core.bundle import Held, Manifest, Part
from hanse.core.catalog.manifest import parse_manifest
from hanse.core.catalog.residency import may_go
from hanse.core.errors import Conflict, InvalidProof, NotFound, Rejected, Unavailable
from hanse.core.events import BlobHave
from hanse.core.ids import Digest, Origin, Segment, segment
from hanse.core.limits import BLOB_CHUNK_BYTES, BUNDLE_MANIFEST_BYTES_MAX, CHUNK_BYTES_MAX
from hanse.core.node import Clock, Node
from hanse.core.retention import pin_of
from hanse.core.signing import SIGNATURE_BYTES, SigningKey
from hanse.daemon.driver import Driver
from hanse.daemon.transfers import check_whole, complete
from hanse.storage.blobs import Blobs
from hanse.storage.contract import EventStore
from hanse.storage.serving import chunk_from

PIECE_BYTES = BLOB_CHUNK_BYTES // 2


@dataclass(slots=True)
class Taken:
    """What came of a bundle. `refused` says of parts that did not enter why not."""

    sender: str = ""
    trust: int = 0
    events: int = 0
    known: int = 0
    files: int = 0
    refused: list[str] = field(default_factory=list)


class _Item(NamedTuple):
    """A part, and what of it is kept until it is sent: all of it, or the note of events."""

    part: Part
    kept: bytes


class Bundles:
    """Made once, by the composition root; `key` signs what this daemon gives away."""

    def __init__(self, driver: Driver, store: EventStore, blobs: Blobs, key: SigningKey) -> None:
        self._driver, self._store, self._blobs, self._key = driver, store, blobs, key
        self._sending: list[frozenset[Digest]] = []

    async def held(self) -> Held:
        """What we have, for whoever makes the next bundle for us."""
        node, heads = self._driver.node, await self._store.heads()
        return Held(
            node.me.federation,
            node.me.region,
            len(await self._store.trust()),
            {head.origin: head.size for head in heads},
            frozenset(await asyncio.to_thread(self._blobs.list)),
        )

    # -- making one --------------------------------------------------------------

    async def make(
        self, held: Held, region: Segment, *, with_blobs: bool
    ) -> tuple[Manifest, AsyncIterator[bytes]]:
        """The manifest, and the whole bundle in pieces.

        Raises `NotFound` for a region that is not in the trust file, `Conflict` for what
        another federation holds.
        """
        members = self._driver.node.book.chain.current
        if members.region(region) is None:
            known = ", ".join(r.name for r in members.regions)
            raise NotFound(f"there is no region {region}", fix=f"regions: {known}")
        if held.federation != members.federation:
            raise Conflict(
                f"the receiver belongs to {held.federation}, not {members.federation}",
                fix="name the heads or the bundle of a daemon of this federation",
            )
        trust = [*await self._trust(held), *self._timestamp()]
        contents = [*trust, *await self._evidence(), *await self._logs(held)]
        files = await self._files(held, region) if with_blobs else []
        heads = await self._store.heads()
        after = Held(
            held.federation,
            region,
            len(await self._store.trust()),
            {**held.heads, **{head.origin: head.size for head in heads}},
            held.blobs | {part.digest for part in files},
        )
        parts = (*(item.part for item in contents), *files)
        manifest = Manifest(self._key.public, region, after, parts)
        return manifest, self._pieces(bundle.seal(manifest, self._key), contents, files)

    async def _trust(self, held: Held) -> list[_Item]:
        versions = await self._store.trust()
        return [
            _Item(Part("trust", len(raw), Digest.of(raw), version=version), raw)
            for version, raw in enumerate(versions, start=1)
            if version > held.trust
        ]

    def _timestamp(self) -> list[_Item]:
        """Whoever is reached by bundles alone moves forward only on these."""
        stamp = self._driver.node.sync.trust.freshness.stamp
        if stamp is None:
            return []
        return [_Item(Part("timestamp", len(stamp.raw), Digest.of(stamp.raw)), stamp.raw)]

    async def _evidence(self) -> list[_Item]:
        """Every proof of a fork, ahead of the logs: few, small, and never to be missed."""
        proofs = (await self._store.local(freeze.SPACE)).items()
        return [
            _Item(Part("evidence", len(raw), Digest.of(raw), 0, Origin.parse(name)), raw)
            for name, raw in proofs
        ]

    async def _logs(self, held: Held) -> list[_Item]:
        events: list[_Item] = []
        final: list[_Item] = []
        for head in await self._store.heads():
            begin = start = held.heads.get(head.origin, 0)
            while start < head.size:
                end = head.final_size if start < head.final_size else head.size
                chunk = await chunk_from(self._store, head.origin, start, end)
                if chunk is None:
                    break
                raw, count = bundle.pack_events(chunk.note, chunk.events), len(chunk.events)
                part = Part("events", len(raw), Digest.of(raw), 0, head.origin, start, count)
                events.append(_Item(part, chunk.note))
                start += count
            if 0 < head.final_size <= begin:  # no events bring it along
                note = head.final_note
                part = Part("final", len(note), Digest.of(note), 0, head.origin)
                final.append(_Item(part, note))
        return events + final

    async def _files(self, held: Held, region: Segment) -> list[Part]:
        """Files of whole releases that may lie there, each once."""
        node = self._driver.node
        members, own = node.book.chain.current, node.me.region
        found: dict[Digest, Part] = {}
        for release in await asyncio.to_thread(complete, node, self._blobs):
            known = node.catalog.release(release)
            if known is None or not may_go(known, own, region, members):
                continue
            for file in known.manifest.files:
                if file.digest not in held.blobs:
                    part = Part("blob", file.size, file.digest, release=release)
                    found.setdefault(file.digest, part)
        return list(found.values())

    async def _pieces(
        self, first: bytes, contents: list[_Item], files: list[Part]
    ) -> AsyncIterator[bytes]:
        yield first
        for item in contents:
            yield await self._content(item)
        sending = frozenset(part.release for part in files if part.release is not None)
        self._sending.append(sending)
        try:
            for part in files:
                for at in range(0, part.size, PIECE_BYTES):
                    length = min(PIECE_BYTES, part.size - at)
                    yield await asyncio.to_thread(self._blobs.read_range, part.digest, at, length)
        finally:
            self._sending.remove(sending)

    @property
    def under_way(self) -> frozenset[Digest]:
        """The releases whose files are being written into bundles now."""
        return frozenset().union(*self._sending)

    async def _content(self, item: _Item) -> bytes:
        part = item.part
        if part.kind != "events" or part.origin is None:
            return item.kept
        # Read once more: only the notes of a long history are kept in memory meanwhile.
        events = await self._store.events(part.origin, part.start, part.count, CHUNK_BYTES_MAX)
        raw = bundle.pack_events(item.kept, tuple(events))
        if Digest.of(raw) != part.digest:
            raise Conflict(f"the log {part.origin} was cut while it was copied", fix="try again")
        return raw

    # -- taking one --------------------------------------------------------------

    async def take(self, source: AsyncIterator[bytes]) -> Taken:
        """Read a bundle to its end. What stood before an error has entered and stays.

        Raises `InvalidProof` for what is no bundle of this federation, `Unavailable` for one
        that ends too early.
        """
        reader, taken = _Reader(source), Taken()
        manifest = await _opening(reader)
        parts = list(manifest.parts)
        trust = [part for part in parts if part.kind == "trust"]
        for part in trust:
            await self._take_trust(part, await reader.whole(part), taken)
        # Only now: the sender may be known by a trust version that the bundle itself brought.
        members = self._driver.node.book.chain.current
        taken.sender = bundle.check_sender(manifest, members)
        source_region = next(m.region for m in members.members if m.key == manifest.key)
        for part in parts[len(trust) :]:
            if part.kind == "timestamp":
                await self._take_timestamp(await reader.whole(part), taken)
            elif part.kind == "blob":
                await self._take_file(part, reader, source_region, taken)
            else:
                await self._take_log(part, await reader.whole(part), taken)
        await reader.end()
        await self._complete()
        return taken

    async def _take_trust(self, part: Part, raw: bytes, taken: Taken) -> None:
        def extend(node: Node, _: Clock) -> bool:
            known = node.book.chain.at(part.version)
            if known is None:
                node.extend_trust(raw)
            elif node.book.chain.files[part.version - 1] != raw:
                raise InvalidProof(
                    f"the bundle brings another trust version {part.version}",
                    fix="two people signed the same version, or this is another federation",
                )
            return known is None

        taken.trust += await self._driver.do(extend)

    async def _take_timestamp(self, raw: bytes, taken: Taken) -> None:
        try:
            await self._driver.do(lambda node, clock: node.bring_timestamp(raw, clock))
        except Rejected as error:
            taken.refused.append(f"timestamp: {error}")

    async def _take_log(self, part: Part, raw: bytes, taken: Taken) -> None:
        origin = part.origin
        assert origin is not None
        try:
            if part.kind == "evidence":
                await self._driver.do(lambda node, _: node.freezer.heard(raw, None))
                return
            if part.kind == "final":
                await self._driver.do(lambda node, _: node.bring(origin, 0, (), raw))
                return
            note, events = bundle.unpack_events(part, raw)
            new = await self._driver.do(
                lambda node, _: node.bring(origin, part.start, events, note)
            )
        except Rejected as error:
            # As on a link: one log that cannot enter keeps no other out.
            taken.refused.append(f"{origin} from {part.start}: {error}")
            return
        taken.events += new
        taken.known += len(events) - new

    async def _take_file(self, part: Part, reader: _Reader, source: Segment, taken: Taken) -> None:
        try:
            self._judge_file(part, source)
        except Rejected as error:
            taken.refused.append(f"{part.digest}: {error}")
            await reader.skip(part.size)
            return
        if self._blobs.has(part.digest):
            await asyncio.to_thread(self._blobs.renew, part.digest)
            await reader.skip(part.size)
            return
        writer = await asyncio.to_thread(self._blobs.writer, part.size, part.digest)
        try:
            await reader.skip(writer.offset)  # of an earlier try
            async for piece in reader.pieces(part.size - writer.offset):
                await asyncio.to_thread(writer.write, piece)
            await asyncio.to_thread(writer.commit)
        except BaseException:
            await asyncio.to_thread(writer.suspend)
            raise
        taken.files += 1

    def _judge_file(self, part: Part, source: Segment) -> None:
        """May this file lie here, and did that region have the right to send it?"""
        node = self._driver.node
        assert part.release is not None
        found, own = node.catalog.release(part.release), node.me.region
        if found is None:
            raise NotFound(f"release {part.release.short} is not recorded here")
        if (part.digest, part.size) not in {(f.digest, f.size) for f in found.manifest.files}:
            raise InvalidProof(f"it is no file of release {part.release.short}")
        if not may_go(found, source, own, node.book.chain.current):
            raise Conflict(f"residency keeps {found.version} out of {own}")

    async def _complete(self) -> None:
        """Pin and announce every release whose last file has come."""
        node = self._driver.node
        whole = await asyncio.to_thread(complete, node, self._blobs)
        for release in whole:
            found = node.catalog.find(release)
            if found is None or release in node.region.local:
                continue
            digests = tuple(f.digest for f in parse_manifest(found[1].manifest).files)
            for digest in digests:
                await asyncio.to_thread(self._blobs.pin, digest, pin_of(release))
            model = found[0]

            def arrived(
                node: Node, _: Clock, release: Digest = release, model: Segment = model,
                digests: tuple[Digest, ...] = digests,
            ) -> None:  # fmt: skip
                check_whole(self._blobs, digests)
                node.region.have(release)
                node.propose(BlobHave(model, digests))

            await self._driver.do(arrived)


class _Reader:
    """Exactly so many bytes of a stream at a time, never more than a piece in memory."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source, self._buffer = source, b""

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        while size:
            if not self._buffer:
                self._buffer = await anext(self._source, b"")
                if not self._buffer:
                    raise Unavailable(
                        f"the bundle ends {size} bytes too early", fix="copy the file again"
                    )
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(piece)
            yield piece

    async def exactly(self, size: int) -> bytes:
        return b"".join([piece async for piece in self.pieces(size)])

    async def whole(self, part: Part) -> bytes:
        """A part whose digest is right. Its size was bounded when the manifest was read."""
        raw = await self.exactly(part.size)
        if hashlib.sha256(raw).hexdigest() != part.digest.hex:
            raise InvalidProof(
                f"a part of kind {part.kind} has other bytes than the bundle's manifest says",
                fix="copy the file again",
            )
        return raw

    async def skip(self, size: int) -> None:
        async for _ in self.pieces(size):
            pass

    async def end(self) -> None:
        if self._buffer or await anext(self._source, b""):
            raise InvalidProof("the bundle goes on after its last part", fix="copy the file again")


async def _opening(reader: _Reader) -> Manifest:
    if await reader.exactly(len(bundle.MAGIC)) != bundle.MAGIC:
        raise InvalidProof("this is no bundle", fix="make one with hanse bundle export")
    size = int.from_bytes(await reader.exactly(bundle.LENGTH_BYTES), "big")
    if size > BUNDLE_MANIFEST_BYTES_MAX:
        raise InvalidProof("the bundle's manifest is too large", fix="copy the file again")
    raw = await reader.exactly(size)
    return bundle.open_manifest(raw, await reader.exactly(SIGNATURE_BYTES))


def held_of(text: str) -> Held:
    """What a person carried over: the output of `hanse bundle heads`, or an earlier manifest."""
    return bundle.parse_held(text.encode())


def wanted(args: Mapping[str, Any]) -> tuple[Held, Segment]:
    """The arguments of a request for a bundle."""
    region = segment(str(args.get("region") or ""), "region")
    return held_of(str(args.get("held") or "")), region
