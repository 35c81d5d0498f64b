"""`hanse gc`: removing what nothing reaches, and the pins that keep what a person wants kept.

    1. the release is forgotten and buried: nobody is offered it, the tombstone is durable
    2. its files are unpinned and unlinked, a batch at a time

Whatever is decided is decided inside a stimulus, where no release is published, fetched to its
end or started meanwhile, and is decided anew for every batch: what became needed since then
stays. Readers that have a file open go on. Killed between any two deeds, a daemon finds either
a whole release, which is here again, or a tombstone and leftovers that the next run removes; what
a tombstone names is fetched when it is needed again (`Region.advance`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import structlog

from hanse.core.catalog.residency import may_lie
from hanse.core.errors import Conflict, HanseError, InvalidSpec, NotFound, NotPermitted, Unavailable
from hanse.core.events import BlobDrop, check_text
from hanse.core.ids import Digest
from hanse.core.keeping import Note
from hanse.core.limits import SHOWN_MS_MAX
from hanse.core.node import Clock, Node
from hanse.core.retention import Plan, ReleaseFate, Rules, Stored, decide, pin_of
from hanse.daemon.commands import Answer, Args, named_release, text_of
from hanse.daemon.control import Progress
from hanse.daemon.driver import Driver
from hanse.storage.blobs import Blobs

log = structlog.get_logger("hanse.retention")
BATCH = 16
SIGN_OF_LIFE_S = 5.0


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes as they lie: a blob that leans on another, or that others need too, takes fewer."""

    freed: int
    kept: int


class Retention:
    """One run at a time; owned by the composition root."""

    def __init__(
        self,
        driver: Driver,
        blobs: Blobs,
        under_way: Callable[[], frozenset[Digest]],
        now_s: Callable[[], float] = time.time,
        *,
        still: asyncio.Lock | None = None,
    ) -> None:
        self._driver, self._blobs = driver, blobs
        self._under_way, self._now_s = under_way, now_s
        self._still = still or asyncio.Lock()  # nothing is folded meanwhile
        self._running = asyncio.Lock()

    async def asked(self, args: Mapping[str, Any], progress: Progress) -> Mapping[str, Any]:
        """gc {grace_s, dry_run?, unused?}"""
        grace_s = args.get("grace_s")
        if not isinstance(grace_s, int | float) or not 0 < grace_s <= SHOWN_MS_MAX:
            raise InvalidSpec("grace_s: expected seconds", fix="say --grace 1d")
        rules = Rules(float(grace_s), origin=args.get("unused") is not True)
        work = asyncio.create_task(self.collect(rules, dry_run=args.get("dry_run") is True))
        while not (await asyncio.wait({work}, timeout=SIGN_OF_LIFE_S))[0]:
            await progress({"removing": True})
        return work.result()

    async def collect(self, rules: Rules, *, dry_run: bool) -> Mapping[str, Any]:
        if self._running.locked():
            raise Conflict("a collection is under way", fix="wait for it")
        async with self._running, self._still:
            stored = await asyncio.to_thread(self._stored)
            plan = await self._driver.do(lambda node, _: self._decide(node, stored, rules))
            room = await asyncio.to_thread(self._room, plan)
            removed = 0
            if not dry_run and plan.going:
                going = [blob.digest for blob in plan.going]
                await self._driver.do(lambda node, clock: self._bury(node, clock, going, rules))
                removed -= await asyncio.to_thread(self._blobs.stand_alone, going)
                for batch in (going[at : at + BATCH] for at in range(0, len(going), BATCH)):
                    removed += await self._driver.do(
                        lambda node, _, batch=batch: self._remove(node, batch, rules)  # type: ignore[misc]  # binds the loop variable
                    )
                await asyncio.to_thread(self._blobs.settle)
                log.info("collected", bytes=removed, releases=len(leaving(plan)))
        return _answer(plan, room if dry_run else replace(room, freed=removed), dry_run=dry_run)

    def _room(self, plan: Plan) -> Room:
        """Of what has gone by itself meanwhile, nothing is said."""
        kept, here = 0, []
        for blob in plan.blobs:
            with contextlib.suppress(NotFound):
                size = self._blobs.occupied(blob.digest)
                if blob.why:
                    kept += size
                else:
                    here.append(blob.digest)
        return Room(self._blobs.room(here), kept)

    def _stored(self, among: Iterable[Digest] | None = None) -> list[Stored]:
        found = []
        for digest in self._blobs.list() if among is None else among:
            with contextlib.suppress(NotFound, FileNotFoundError):  # set aside as damaged meanwhile
                size, age_s = self._blobs.size(digest), self._now_s() - self._blobs.came_s(digest)
                found.append(Stored(digest, size, age_s, self._blobs.pins(digest)))
        return found

    def _decide(self, node: Node, stored: Sequence[Stored], rules: Rules) -> Plan:
        beside = node.region.beside
        beside = replace(beside, arriving=beside.arriving | self._under_way())
        return decide(node.catalog.views, beside, stored, rules)

    def _bury(self, node: Node, clock: Clock, digests: Sequence[Digest], rules: Rules) -> None:
        plan = self._decide(node, self._stored(digests), rules)
        going = {blob.digest for blob in plan.going}
        for fate in leaving(plan):
            why = f"nothing in {node.me.region} reached it"
            node.region.forget(fate.release)
            node.region.keeping.bury(fate.release, Note(fate.model, why, clock.wall_ms))
            release = node.catalog.views[fate.model].release(fate.release)
            files = release.manifest.files if release else ()
            gone = tuple(f.digest for f in files if f.digest in going)
            with contextlib.suppress(HanseError):  # a hint for others; a full disk has no room
                node.propose(BlobDrop(fate.model, gone))
            log.info("release_removed", model=fate.model, version=fate.version, why=why)

    def _remove(self, node: Node, digests: Sequence[Digest], rules: Rules) -> int:
        """How many bytes went. Only unlinks: no more than a moment of the driver's time."""
        plan = self._decide(node, self._stored(digests), rules)
        ours = {pin_of(release) for release in node.region.keeping.tombstones}
        size = 0
        for blob in plan.going:
            for pin in self._blobs.pins(blob.digest):
                if pin in ours:
                    self._blobs.unpin(blob.digest, pin)
            # Somebody else's word; damaged; no room to make whole what has come to lean on it.
            with contextlib.suppress(Conflict, NotFound, Unavailable):
                size += self._blobs.delete(blob.digest)
        return size


def leaving(plan: Plan) -> list[ReleaseFate]:
    """Those of which a file goes; what a kept one shares with them stays and counts for it."""
    return [fate for fate in plan.releases if not fate.why and fate.goes]


def pin(node: Node, args: Args) -> Answer:
    """Keep a release here whatever reaches it; it is fetched if it is not here."""
    view, release = named_release(node, args)
    digest = release.digest
    if not may_lie(release, node.me.region, node.book.chain.current):
        raise NotPermitted(
            f"residency keeps {release.version} out of {node.me.region}",
            fix="pin it in a region where it may lie",
        )
    why = check_text(f"{text_of(args, 'reason')} (by {args.get('by') or 'operator'})", "reason")
    at_ms = args.get("at_ms")
    note = Note(view.model, why, at_ms if type(at_ms) is int and at_ms >= 0 else 0)
    node.region.keeping.pin(digest, note)
    node.region.bring(view.model, digest)
    return lambda: {
        "release": str(digest),
        "reason": why,
        "undo": f"hanse release unpin {view.model}@{digest}",
    }


def unpin(node: Node, args: Args) -> Answer:
    """Keep it no longer for a person's sake."""
    model, digest = text_of(args, "model"), Digest.parse(text_of(args, "release"))
    if digest not in node.region.keeping.pins:
        raise Conflict(f"{digest.short} of {model} is not pinned here", fix="nothing to do")
    node.region.keeping.pin(digest, None)
    return lambda: {
        "release": str(digest),
        "undo": f"hanse release pin {model}@{digest} --reason ...",
    }


def _answer(plan: Plan, room: Room, *, dry_run: bool) -> Mapping[str, Any]:
    return {
        "dry_run": dry_run,
        "bytes": room.freed,
        "kept_bytes": room.kept,
        "releases": [
            {
                **asdict(fate),
                "release": str(fate.release),
                "why": list(fate.why),
            }
            for fate in plan.releases
        ],
        "blobs": [
            {"digest": str(b.digest), "size": b.size, "why": list(b.why)} for b in plan.blobs
        ],
    }
