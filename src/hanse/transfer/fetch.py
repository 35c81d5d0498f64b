"""One file into the store: what `core.transfer.download` decides, carried out.

    1. what came of it before is held against the recipe that a source tells
    2. parts of files that are here are copied, if they are right
    3. the rest comes from several sources at once, each part opened, hashed and written
    4. the whole is hashed, and only then has its name

Where nothing is here to build on and only one source is near, the file is streamed, which takes
the least of everybody's time; if that breaks off, it goes on with 1. A recipe is not believed
either: if its parts do not make up the file, whoever told it is named in the log, another recipe
is tried, and in the end the file is streamed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

from hanse.core.errors import Rejected, Unavailable
from hanse.core.ids import Digest
from hanse.core.transfer.download import scattered
from hanse.parts.recipe import Part, Recipe
from hanse.rpc import blob_client
from hanse.rpc.pacing import Pace
from hanse.storage.blobs import Blobs
from hanse.transfer.held import Held, Rotten
from hanse.transfer.job import Job, Ours
from hanse.transfer.landing import Ground
from hanse.transfer.parts import Parts
from hanse.transfer.places import Places
from hanse.transfer.threads import Behind, finished
from hanse.transfer.underway import Coming, Underway
from hanse.transfer.wish import ChannelTo, Progress, Source, Wish

STREAMED_BYTES_MAX = 256 * 1024
"""Of files up to this size parts are not worth the question."""
SLICE_BYTES = 32 * 1024**2


async def fetch_file(
    blobs: Blobs,
    wish: Wish,
    sources: Sequence[Source],
    chance: Random,
    *,
    progress: Progress | None = None,
    neighbour: ChannelTo | None = None,
    underway: Underway | None = None,
    on_damage: Callable[[Digest], None] = lambda _: None,
    line: Pace = blob_client.AS_IT_COMES,
) -> None:
    """Raises `Unavailable` if nobody serves it, or there is no room; what came stays."""
    opening = asyncio.ensure_future(
        asyncio.to_thread(blobs.unfinished, wish.size, wish.file.digest)
    )
    try:
        coming = await asyncio.shield(opening)
    except asyncio.CancelledError:
        (await opening).close()
        raise
    try:
        job = Job(
            blobs,
            coming,
            wish,
            sorted(sources, key=lambda source: source.rtt_s),
            chance,
            progress or Progress(wish),
            neighbour,
            underway or Underway(),
            on_damage,
            line,
        )
        await _Fetch(job).run()
    except Ours as ours:
        raise ours.error from None
    finally:
        await finished(coming.close)


class _Fetch:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._begun = job.coming.begun  # whether anything may have come before

    async def run(self) -> None:
        job = self._job
        alone = len(job.near()) == 1 and not job.wish.like and job.neighbour is None
        small = job.wish.size <= STREAMED_BYTES_MAX
        at_once = job.sources[:1] if not self._begun and (alone or small) else []
        for source in at_once:
            if await self._served(self._stream, source):
                return
        tried = dict[Digest, bool]()
        for source in job.sources:
            if await self._served(self._by_recipe, source, tried):
                return
        for source in job.sources if False in tried.values() else ():
            if await self._served(self._stream, source):
                return
        said = "; ".join(f"{name}: {why}" for name, why in job.refusals.items())
        raise Unavailable(f"no source served {job.wish.name}: {said or 'none is known'}")

    async def _served(
        self, way: Callable[..., Awaitable[None]], source: Source, *args: Any
    ) -> bool:
        try:
            await way(source, *args)
        except (Rejected, Unavailable) as error:
            self._job.refused(source.name, error)
            return False
        return True

    async def _stream(self, source: Source) -> None:
        job, file, done = self._job, self._job.wish.file, 0
        self._begun = True
        job.progress.peers.add(source.name)
        job.progress.done = 0
        pieces = blob_client.fetch(
            source.channel(), file.digest, file.release, bytes_max=job.wish.size, line=job.line
        )
        async with Behind() as behind:
            async for piece in pieces:
                await behind.write(self._put, done, piece)
                done += len(piece)
                job.count(len(piece), came=len(piece))
                if len(job.sources) > 1 and job.progress.slow:
                    raise Unavailable(f"it brings {job.progress.rate:.0f} bytes a second")
            await behind.done()
        await finished(job.commit)

    def _put(self, start: int, data: bytes | memoryview) -> None:
        self._job.put(start, data)
        self._job.coming.kept(start, data)

    # -- by parts ----------------------------------------------------------------

    async def _by_recipe(self, source: Source, tried: dict[Digest, bool]) -> None:
        """`tried`: recipes, and whether their parts made up the file, as far as they came."""
        job = self._job
        recipe, named = await blob_client.recipe(source.channel(), job.wish.file, job.wish.size)
        if named in tried:
            raise Unavailable("it has the same recipe as others")
        tried[named] = True
        with job.underway.coming(recipe, job.coming) as coming:
            await self._by_parts(recipe, named, coming)
            tried[named] = False
            await finished(job.commit)

    async def _by_parts(self, recipe: Recipe, named: Digest, coming: Coming) -> None:
        job = self._job
        held = await finished(Held, job.blobs, recipe, job.wish.like)
        job.progress.done = 0
        places = Places(recipe)
        missing = await self._take_stock(places, held)
        for number in set(places.first).difference(missing):
            coming.came(number)
        self._begun = True
        ground = Ground(job, places, missing)
        if len(job.sources) > 1 or job.neighbour:
            missing = scattered(missing, places.sizes, job.chance)
        await Parts(job, places, named, held, ground, coming).bring(missing)

    async def _take_stock(self, places: Places, held: Held) -> list[int]:
        """What neither came before nor is here; in slices, so that one can stop in between."""
        missing, room = list[int](), 0
        batch = list[int]()
        for number in places.first:
            batch.append(number)
            room += places.sizes[number]
            if room >= SLICE_BYTES:
                missing += await finished(self._missing_of, places, held, batch)
                batch, room = [], 0
        return missing + await finished(self._missing_of, places, held, batch)

    def _missing_of(self, places: Places, held: Held, numbers: Sequence[int]) -> list[int]:
        return [n for n in numbers if not self._is_here(places, held, n)]

    def _is_here(self, places: Places, held: Held, number: int) -> bool:
        part = places.parts[number]
        if self._begun and self._came_before(places, number, part):
            return True
        try:
            data = held.read(part.digest)
        except Rotten as rotten:
            self._job.rotten(held, rotten.file)
            return False
        if data is None:
            return False
        self._job.put_part(places, number, data)
        self._keep(places, number, data)
        return True

    def _came_before(self, places: Places, number: int, part: Part) -> bool:
        """In every place, or it is fetched again and written to all of them."""
        for start in places.starts_of(number):
            data = self._job.coming.read(start, part.size)
            if Digest.of(data) != part.digest:
                return False
        self._keep(places, number, data)
        return True

    def _keep(self, places: Places, number: int, data: bytes) -> None:
        starts = places.starts_of(number)
        for start in starts:
            self._job.coming.kept(start, data)
        self._job.count(len(data) * len(starts))
