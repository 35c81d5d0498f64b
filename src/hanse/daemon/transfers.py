"""Bringing releases here, if they may lie here.

Residency is judged twice: by whoever serves, see `gate`, and here by whoever receives. Sources
are asked in the order of their measured round trip, the next one when one fails; a blob enters
the store only with the right digest and size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from hanse.core.catalog.residency import may_lie
from hanse.core.effects import FetchRelease
from hanse.core.errors import HanseError, NotPermitted, Unavailable
from hanse.core.events import BlobHave
from hanse.core.ids import Digest, MemberId
from hanse.core.node import Node
from hanse.core.retention import pin_of
from hanse.daemon.driver import Driver
from hanse.rpc import blob_client
from hanse.rpc.link import GrpcTransport
from hanse.storage.blobs import Blobs

log = structlog.get_logger("hanse.transfers")
RETRY_S = 2.0
RETRY_MAX_S = 60.0


class Transfers:
    """Fetches releases, one task each; owned by the composition root."""

    def __init__(self, driver: Driver, transport: GrpcTransport, blobs: Blobs, region: str) -> None:
        self._driver, self._transport, self._blobs = driver, transport, blobs
        self._region = region
        self._tasks: dict[Digest, asyncio.Task[None]] = {}

    def fetch(self, effect: FetchRelease) -> None:
        if effect.release not in self._tasks:
            task = asyncio.create_task(self._bring(effect))
            self._tasks[effect.release] = task
            task.add_done_callback(lambda _: self._tasks.pop(effect.release, None))

    @property
    def under_way(self) -> frozenset[Digest]:
        """The releases that are being brought now."""
        return frozenset(self._tasks)

    async def close(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()

    async def _bring(self, effect: FetchRelease) -> None:
        """Try until it is here: a rollout that waits for it says so."""
        pause_s = RETRY_S
        while True:
            try:
                await self._bring_once(effect)
            except HanseError as error:
                log.warning("fetch_failed", release=effect.release.short, why=str(error))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
            else:
                return

    async def _bring_once(self, effect: FetchRelease) -> None:
        node = self._driver.node
        found = node.catalog.release(effect.release)
        if found is None:
            raise Unavailable(f"release {effect.release.short} is not recorded here yet")
        if not may_lie(found, self._region, node.book.chain.current):
            raise NotPermitted(f"residency keeps {found.version} out of {self._region}")
        manifest = found.manifest
        for file in manifest.files:
            await asyncio.to_thread(self._blobs.pin, file.digest, pin_of(effect.release))
            if not self._blobs.has(file.digest):
                await self._bring_file(effect.release, file.digest, file.size)
        digests = tuple(f.digest for f in manifest.files)

        def arrived(node: Node, _: object) -> None:
            check_whole(self._blobs, digests)
            node.region.have(effect.release)
            node.propose(BlobHave(manifest.model, digests))

        await self._driver.do(arrived)
        log.info("release_fetched", release=effect.release.short, version=manifest.version)

    async def _bring_file(self, release: Digest, digest: Digest, size: int) -> None:
        ranked = await self._ranked(digest)
        last: HanseError = Unavailable("no daemon is known to have it")
        for _, member in ranked:
            try:
                await self._receive(member, release, digest, size)
            except HanseError as error:
                last = error
            else:
                return
        raise last

    async def _ranked(self, digest: Digest) -> list[tuple[float, MemberId]]:
        """Members that may give, those that said they have it first, each group nearest first."""
        node, members = self._driver.node, self._driver.node.book.chain.current
        hinted = set(node.catalog.serves(digest))
        others = [
            m.id
            for m in members.members
            if m.id != node.me.member and members.may_give(m.region, self._region)
        ]
        probed = await asyncio.gather(*(self._probe(m) for m in others))
        reachable = [(rtt, m) for rtt, m in zip(probed, others, strict=True) if rtt is not None]
        return sorted(reachable, key=lambda pair: (pair[1] not in hinted, pair))

    async def _probe(self, member: MemberId) -> float | None:
        try:
            return await blob_client.probe(self._transport.channel(member))
        except HanseError:
            return None

    async def _receive(self, member: MemberId, release: Digest, digest: Digest, size: int) -> None:
        """Stream into the store; an interrupted part stays and is continued next time."""
        writer = await asyncio.to_thread(self._blobs.writer, size, digest)
        try:
            channel = self._transport.channel(member)
            async for piece in blob_client.fetch(channel, digest, release, writer.offset):
                await asyncio.to_thread(writer.write, piece)
            await asyncio.to_thread(writer.commit)
        except BaseException:
            await asyncio.to_thread(writer.suspend)
            raise


def check_whole(blobs: Blobs, digests: Sequence[Digest]) -> None:
    """Asked where nothing is removed meanwhile: inside a stimulus, as `gc` removes."""
    if not all(map(blobs.has, digests)):
        raise Unavailable("a file was removed while others came", fix="fetch the release again")


def complete(node: Node, blobs: Blobs) -> list[Digest]:
    """The releases whose every file is in the store, as found at start."""
    return [
        release.digest
        for view in node.catalog.views.values()
        for release in view.releases
        if all(blobs.has(f.digest) for f in release.manifest.files)
    ]
