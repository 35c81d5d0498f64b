"""Looking for bits that have flipped at rest, and fetching again what is no longer what it was.

Every file is read and hashed, slowly, one pass in `interval_s`; the place where it stands outlives
a restart. Whatever was found damaged, here or by whoever read it, is told in the log, counted, and
shown by `hanse status`; the releases that need it are fetched again until it is whole. They go on
counting as here meanwhile: nodes that have them leave nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from hanse.core.damage import BYTES_MAX, Damage, Scrub
from hanse.core.effects import FetchRelease
from hanse.core.errors import NotFound, Rejected, Unavailable
from hanse.core.ids import Digest
from hanse.core.node import Node
from hanse.core.retention import pin_of
from hanse.daemon.driver import Driver
from hanse.storage.background import Background, Stopped
from hanse.storage.blobs import Blobs
from hanse.storage.incoming import disk_errors
from hanse.storage.sealed import read_sealed, write_sealed

log = structlog.get_logger("hanse.scrubbing")
LOOK_S = 2.0
KEPT_EVERY_S = 10.0
"""What a crash costs of a pass; each time is a small file written."""


class Scrubber:
    """Owned by the composition root. `path` is where it stands, between two starts."""

    def __init__(
        self,
        driver: Driver,
        blobs: Blobs,
        fetch: Callable[[FetchRelease], None],
        path: Path,
        *,
        bytes_s: int,
        interval_s: float,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._driver, self._blobs, self._fetch = driver, blobs, fetch
        self._path, self._bytes_s, self._interval_s = path, bytes_s, interval_s
        self._now_s = now_s
        self._background = Background("scrubbing")
        self._suspects: set[Digest] = set()
        self.scrub = self._restored()

    def suspect(self, digest: Digest) -> None:
        """Somebody has read what cannot be right."""
        self._suspects.add(digest)

    async def watch(self) -> None:
        """Never ends by itself."""
        try:
            await asyncio.gather(self._mend_for_ever(), self._scrub_for_ever())
        finally:
            self._background.close()

    # -- finding -----------------------------------------------------------------

    async def _scrub_for_ever(self) -> None:
        while True:
            if self._bytes_s and self._due():
                await self.scrub_all()
            await asyncio.sleep(LOOK_S)

    def _due(self) -> bool:
        began_s = self.scrub.began_ms / 1000
        return bool(self.scrub.after) or not 0 <= self._now_s() - began_s < self._interval_s

    async def scrub_all(self) -> None:
        """One pass, or the rest of one."""
        if not self.scrub.after:
            self._note(began_ms=int(self._now_s() * 1000))
        read = self._background.pace(max(self._bytes_s, 1))
        kept_s = self._now_s()
        for digest in await asyncio.to_thread(self._blobs.list):
            if digest.hex <= self.scrub.after:
                continue
            await self._check(digest, read)
            self._note(after=digest.hex)
            if not 0 <= self._now_s() - kept_s < KEPT_EVERY_S:
                kept_s = self._now_s()
                await asyncio.to_thread(self._keep)
        self._note(after="")
        await asyncio.to_thread(self._keep)

    async def _check(self, digest: Digest, read: Callable[[int], None]) -> None:
        try:
            found = await self._background.do(self._blobs.check, digest, read)
        except Unavailable as error:  # told of by `lost`; or the bucket is away
            log.warning("not_whole", blob=str(digest), why=str(error))
        except (NotFound, Stopped):
            return
        else:
            for what in found:
                log.error("blob_damaged", blob=str(digest), what=what, healed=True)
                await self._tell(Damage(digest, what, self._now_ms(), healed=True))

    # -- mending -----------------------------------------------------------------

    async def _mend_for_ever(self) -> None:
        while True:
            await self.mend()
            await asyncio.sleep(LOOK_S)

    async def mend(self) -> None:
        """Take down what was found, and have what is not whole fetched again."""
        suspects, self._suspects = self._suspects, set()
        for digest in suspects:
            await self._check(digest, self._background.pace(2**50))
        for digest in await asyncio.to_thread(self._blobs.lost):
            log.error("blob_damaged", blob=str(digest), what="file", healed=False)
            await self._tell(Damage(digest, "file", self._now_ms()))
        if self.scrub.open:
            whole = {digest for digest in self.scrub.open if self._blobs.has(digest)}
            left = set(self.scrub.open) - whole
            needed = await self._driver.do(lambda node, _: list(_who_need(node, self._blobs, left)))
            for effect, _ in needed:
                self._fetch(effect)
            forgotten = left - {digest for _, digest in needed}
            if whole or forgotten:
                await self._set(self.scrub.heal(whole | forgotten))
                for digest in whole:
                    log.info("blob_healed", blob=str(digest))

    async def _tell(self, damage: Damage) -> None:
        if damage.healed or damage.digest not in self.scrub.open:
            await self._driver.do(lambda node, _: _count(node))
        await self._set(self.scrub.tell(damage))

    async def _set(self, scrub: Scrub) -> None:
        self.scrub = scrub
        await asyncio.to_thread(self._keep)
        await self._driver.do(lambda node, _: _show(node, scrub))

    # -- where it stands ---------------------------------------------------------

    def _note(self, *, began_ms: int | None = None, after: str | None = None) -> None:
        began_ms = self.scrub.began_ms if began_ms is None else began_ms
        after = self.scrub.after if after is None else after
        self.scrub = Scrub(began_ms, after, self.scrub.found)

    def _keep(self) -> None:
        with disk_errors("keep the place of the scrub"):
            write_sealed(self._path, self.scrub.encode())

    def _restored(self) -> Scrub:
        """A damaged note costs a pass: it begins anew, and finds what there is to find."""
        raw = read_sealed(self._path, BYTES_MAX)
        if raw is None and self._path.exists():
            log.error("blob_damaged", what="where the scrub stood", healed=True)
        try:
            return Scrub.decode(raw) if raw is not None else Scrub()
        except Rejected:  # of another version
            return Scrub()

    def _now_ms(self) -> int:
        return int(self._now_s() * 1000)


def _show(node: Node, scrub: Scrub) -> None:
    node.damage = scrub.found


def _count(node: Node) -> None:
    node.counters["blobs_damaged"] += 1


def _who_need(
    node: Node, blobs: Blobs, lost: Iterable[Digest]
) -> Iterable[tuple[FetchRelease, Digest]]:
    """The releases that were here with one of these files; pins outlive a restart."""
    lost = set(lost)
    for view in node.catalog.views.values():
        for release in view.releases:
            for file in release.manifest.files:
                if file.digest in lost and (
                    release.digest in node.region.local
                    or pin_of(release.digest) in blobs.pins(file.digest)
                ):
                    yield FetchRelease(view.model, release.digest), file.digest
