"""Bringing releases here, if they may lie here.

Residency is judged twice: by whoever serves, see `gate`, and here by whoever receives. How a file
comes, from whom and what of it, is `transfer`'s; here is who may be asked, and how far they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

import structlog

from hanse.core.catalog.manifest import File, Manifest
from hanse.core.catalog.residency import may_lie
from hanse.core.catalog.view import Release
from hanse.core.effects import FetchRelease
from hanse.core.errors import HanseError, NotPermitted, Unavailable
from hanse.core.events import BlobHave
from hanse.core.ids import Digest, MemberId
from hanse.core.node import Node
from hanse.core.retention import pin_of
from hanse.core.transfer.wanted import File as Wanted
from hanse.daemon.driver import Driver
from hanse.rpc import blob_client
from hanse.rpc.link import GrpcTransport
from hanse.rpc.pacing import Pace
from hanse.storage.blobs import Blobs
from hanse.transfer.fetch import fetch_file
from hanse.transfer.wish import Progress, Source, Wish, likely

log = structlog.get_logger("hanse.transfers")
RETRY_S = 2.0
RETRY_MAX_S = 60.0
FILES_AT_ONCE = 2
UNSAID_S = 100.0


class Transfers:
    """Fetches releases, one task each; owned by the composition root."""

    def __init__(
        self,
        driver: Driver,
        transport: GrpcTransport,
        blobs: Blobs,
        region: str,
        bytes_per_s: int = 0,
    ) -> None:
        self._line = Pace(bytes_per_s)
        self._driver, self._transport, self._blobs = driver, transport, blobs
        self._region = region
        self._chance = Random(driver.node.me.member)  # noqa: S311  # it only spreads what is asked for
        self._at_once = asyncio.Semaphore(FILES_AT_ONCE)
        self.why: dict[Digest, str] = {}  # of those that could not be brought yet
        self.progress: list[Progress] = []
        """Of the files that are under way."""
        self.on_damage: Callable[[Digest], None] = lambda _: None
        self._tasks: dict[Digest, asyncio.Task[None]] = {}

    def fetch(self, effect: FetchRelease) -> None:
        if effect.release not in self._tasks:
            task = asyncio.create_task(self._bring(effect))
            self._tasks[effect.release] = task
            task.add_done_callback(lambda _: self._done(effect.release))

    def _done(self, release: Digest) -> None:
        self._tasks.pop(release, None)
        self.why.pop(release, None)

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
                self.why[effect.release] = str(error)
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
                await self._bring_file(found, file)
        digests = tuple(f.digest for f in manifest.files)

        def arrived(node: Node, _: object) -> None:
            check_whole(self._blobs, digests)
            node.region.have(effect.release)
            node.propose(BlobHave(manifest.model, digests))

        await self._driver.do(arrived)
        log.info("release_fetched", release=effect.release.short, version=manifest.version)

    async def _bring_file(self, release: Release, file: File) -> None:
        like = likely(file.name, file.digest, self._kin(release))
        wish = Wish(Wanted(file.digest, release.digest), file.size, file.name, like)
        async with self._at_once:
            sources = await self._sources(file.digest)
            progress = Progress(wish)
            self.progress.append(progress)
            try:
                await fetch_file(
                    self._blobs,
                    wish,
                    sources,
                    self._chance,
                    progress=progress,
                    on_damage=self.on_damage,
                    line=self._line,
                )
            finally:
                self.progress.remove(progress)

    def _kin(self, release: Release) -> list[tuple[Digest, Manifest]]:
        """Its parents, then the other releases of its model, the newest first."""
        manifest = release.manifest
        parents = {parent.release for parent in manifest.parents}
        others = [
            other
            for other in self._driver.node.catalog.views[manifest.model].releases
            if other.digest != release.digest
        ]
        others.sort(key=lambda other: (other.digest not in parents, -other.counter))
        return [(other.digest, other.manifest) for other in others]

    async def _sources(self, digest: Digest) -> list[Source]:
        """Other daemons by their round trip; last those that never said that they have it."""
        node = self._driver.node
        hinted = set(node.catalog.serves(digest))
        others = [m.id for m in node.book.chain.current.members if m.id != node.me.member]
        probed = await asyncio.gather(*(self._probe(m) for m in others))
        return [
            Source(
                member,
                lambda member=member: self._transport.channel(member),  # type: ignore[misc]  # binds the loop variable
                rtt_s if member in hinted else rtt_s + UNSAID_S,
            )
            for member, rtt_s in zip(others, probed, strict=True)
            if rtt_s is not None
        ]

    async def _probe(self, member: MemberId) -> float | None:
        try:
            return await blob_client.probe(self._transport.channel(member))
        except HanseError:
            return None


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
