"""Keeping of a release only what is new of it: in the background, once nobody is likely to come
for all of it.

Its parent, or the release before, is what it leans on, or what that one leans on itself. What was
tried and saved too little is not tried again in this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from hanse.core.catalog.kin import Kin, kin
from hanse.core.catalog.manifest import Manifest
from hanse.core.errors import Broken, NotFound, Unavailable
from hanse.core.ids import Digest
from hanse.core.node import Node
from hanse.daemon.driver import Driver
from hanse.storage.background import Background, Stopped
from hanse.storage.folded import FoldedBlobs
from hanse.storage.recipes import external_of

log = structlog.get_logger("hanse.folding")
LOOK_S_MAX = 60.0
AS_FAST_AS_IT_GOES = 2**50


class Folding:
    """`after_s`: how long a file stays as it came. `still` is held while files are removed."""

    def __init__(
        self,
        driver: Driver,
        blobs: FoldedBlobs,
        after_s: float,
        still: asyncio.Lock,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._driver, self._blobs, self._after_s = driver, blobs, after_s
        self._still, self._now_s = still, now_s
        self._tried: set[tuple[Digest, Digest]] = set()
        self._known: set[Digest] = set()  # those whose recipe was worked out in this process
        self._background = Background("folding")

    async def watch(self) -> None:
        """Never ends by itself."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(min(max(self._after_s / 4, 1.0), LOOK_S_MAX))
        finally:
            self._background.close()

    async def look(self) -> int:
        """Fold what is to be folded now; how many bytes that saved."""
        saved = 0
        for each in await self._driver.do(lambda node, _: _candidates(node)):
            saved += await self._fold(each)
        return saved

    async def _fold(self, each: Kin) -> int:
        digest, older = each.file.digest, each.older.digest
        try:
            if self._blobs.leans_on(digest):
                return 0
            if not self._ripe(digest):
                await self._split(each)
                return 0
            base = next(iter(self._blobs.leans_on(older)), older)
            if base == digest or (digest, base) in self._tried:
                return 0
            found = await self._driver.do(lambda node, _: _holder(node, base))
            manifest, name = found or (each.elder.manifest, each.older.name)
            ours = external_of(self._blobs, each.release.manifest, each.file.name)
            theirs = external_of(self._blobs, manifest, name)
            async with self._still:
                read = self._background.pace(AS_FAST_AS_IT_GOES)
                work = self._background.do(self._blobs.fold, digest, base, ours, theirs, read)
                saved = await work
        except (NotFound, Stopped):  # removed meanwhile; the process ends
            return 0
        except Unavailable as error:  # no room, or damaged
            log.warning("folding_waits", blob=str(digest), why=str(error))
            return 0
        except Broken:
            raise
        except Exception:
            # A mistake of ours, or no memory. The file is whole: nothing has to end for this.
            log.exception("work_failed", blob=str(digest))
            saved = 0
        self._tried.add((digest, base))
        if saved:
            log.info("folded", blob=str(digest), base=str(base), saved_bytes=saved)
        return saved

    async def _split(self, each: Kin) -> None:
        """Work out beforehand what both are made of: a plan can then tell what will travel."""
        for manifest, file in (
            (each.release.manifest, each.file),
            (each.elder.manifest, each.older),
        ):
            if file.digest not in self._known:
                told = external_of(self._blobs, manifest, file.name)
                await self._background.do(self._blobs.recipe, file.digest, told)
                self._known.add(file.digest)

    def _ripe(self, digest: Digest) -> bool:
        return self._now_s() - self._blobs.came_s(digest) >= self._after_s


def _candidates(node: Node) -> list[Kin]:
    views = node.catalog.views
    return [each for _, view in sorted(views.items()) for each in kin(view, node.region.local)]


def _holder(node: Node, digest: Digest) -> tuple[Manifest, str] | None:
    """Which release has this file, and under which name."""
    for view in node.catalog.views.values():
        for release in view.releases:
            for file in release.manifest.files:
                if file.digest == digest:
                    return release.manifest, file.name
    return None
