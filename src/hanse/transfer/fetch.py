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
from typing import Any, TypeVar

import structlog

from hanse.core.errors import HanseError, InvalidProof, InvalidSpec, Rejected, TooLarge, Unavailable
from hanse.core.ids import Digest
from hanse.core.transfer.download import Ask, Download, Drop, scattered
from hanse.core.transfer.wanted import File, Wanted
from hanse.parts.recipe import Part, Recipe
from hanse.rpc import blob_client
from hanse.rpc.blob_client import Came, Pointed
from hanse.rpc.pacing import Pace
from hanse.storage.blobs import Arriving, Blobs
from hanse.transfer.held import Held, Rotten, opened
from hanse.transfer.places import Places
from hanse.transfer.underway import Coming, Underway
from hanse.transfer.wish import ChannelTo, Progress, Source, Wish

STREAMED_BYTES_MAX = 256 * 1024
"""Of files up to this size parts are not worth the question."""
SOURCES_MAX = 4
ASKED_MAX = 36
"""Sources and neighbours together, of one file."""
NEAR_TIMES, NEAR_S = 3.0, 0.02
LOOK_S = 0.25
SLICE_BYTES = 32 * 1024**2
OPENERS = 2
REFUSAL_CHARS = 200
LIES = (InvalidProof, TooLarge, InvalidSpec)
T = TypeVar("T")
log = structlog.get_logger("hanse.transfer")


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
        fetch = _Fetch(blobs, coming, wish, sources, chance, progress or Progress(wish))
        fetch.neighbour, fetch.on_damage, fetch.line = neighbour, on_damage, line
        fetch.underway = underway or fetch.underway
        await fetch.run()
    except Ours as ours:
        raise ours.error from None
    finally:
        await finished(coming.close)


class Ours(Exception):
    """It is our own store that says no: nobody else is to be asked, or blamed."""

    def __init__(self, error: Unavailable) -> None:
        super().__init__(error.message)
        self.error = error


class _Fetch:
    def __init__(
        self,
        blobs: Blobs,
        coming: Arriving,
        wish: Wish,
        sources: Sequence[Source],
        chance: Random,
        progress: Progress,
    ) -> None:
        self._blobs, self._coming, self.wish = blobs, coming, wish
        self.sources = sorted(sources, key=lambda source: source.rtt_s)
        self._chance, self.progress = chance, progress
        self._begun = coming.begun  # whether anything may have come before
        self._refusals: dict[str, str] = {}
        self._rotten: set[File] = set()
        self.writing = asyncio.Lock()
        self.neighbour: ChannelTo | None = None
        self.underway = Underway()
        self.line = blob_client.AS_IT_COMES
        self.on_damage: Callable[[Digest], None] = lambda _: None

    async def run(self) -> None:
        alone = len(self.near()) == 1 and not self.wish.like and self.neighbour is None
        small = self.wish.size <= STREAMED_BYTES_MAX
        at_once = self.sources[:1] if not self._begun and (alone or small) else []
        for source in at_once:
            if await self._served(self._stream, source):
                return
        tried = dict[Digest, bool]()
        for source in self.sources:
            if await self._served(self._by_recipe, source, tried):
                return
        for source in self.sources if False in tried.values() else ():
            if await self._served(self._stream, source):
                return
        said = "; ".join(f"{name}: {why}" for name, why in self._refusals.items())
        raise Unavailable(f"no source served {self.wish.name}: {said or 'none is known'}")

    async def _served(
        self, way: Callable[..., Awaitable[None]], source: Source, *args: Any
    ) -> bool:
        try:
            await way(source, *args)
        except (Rejected, Unavailable) as error:
            self.refused(source.name, error)
            return False
        return True

    async def _by_recipe(self, source: Source, tried: dict[Digest, bool]) -> None:
        """`tried`: recipes, and whether their parts made up the file, as far as they came."""
        recipe, named = await blob_client.recipe(source.channel(), self.wish.file, self.wish.size)
        if named in tried:
            raise Unavailable("it has the same recipe as others")
        tried[named] = True
        with self.underway.coming(recipe, self._coming) as coming:
            await self._by_parts(recipe, named, coming)
            tried[named] = False
            await finished(self._commit)

    def near(self) -> list[Source]:
        """Those that are about as near as the nearest."""
        if not self.sources:
            return []
        reach_s = max(self.sources[0].rtt_s * NEAR_TIMES, self.sources[0].rtt_s + NEAR_S)
        return [source for source in self.sources if source.rtt_s <= reach_s][:SOURCES_MAX]

    def refused(self, name: str, error: HanseError) -> None:
        self._refusals.setdefault(name, error.message[:REFUSAL_CHARS])
        if isinstance(error, LIES):
            log.warning("source_lied", source=name, why=str(error))

    async def _stream(self, source: Source) -> None:
        file, size, done = self.wish.file, self.wish.size, 0
        loop = asyncio.get_running_loop()
        self._begun = True
        self.progress.peers.add(source.name)
        self.progress.done = 0
        pieces = blob_client.fetch(
            source.channel(), file.digest, file.release, bytes_max=size, line=self.line
        )
        writing: asyncio.Future[None] | None = None  # of the piece before, while the next comes
        try:
            async for piece in pieces:
                if writing is not None:
                    await asyncio.shield(writing)
                writing = loop.run_in_executor(None, self._put, done, piece)
                done += len(piece)
                self.count(len(piece), came=len(piece))
                if len(self.sources) > 1 and self.progress.slow:
                    raise Unavailable(f"it brings {self.progress.rate:.0f} bytes a second")
        finally:
            if writing is not None:
                await asyncio.wait([writing])
        if writing is not None:
            writing.result()
        await finished(self._commit)

    def count(self, done: int, came: int = 0) -> None:
        self.progress.done += done
        self.progress.came += came

    # -- by parts ----------------------------------------------------------------

    async def _by_parts(self, recipe: Recipe, named: Digest, coming: Coming) -> None:
        held = await finished(Held, self._blobs, recipe, self.wish.like)
        self.progress.done = 0
        places = Places(recipe)
        missing = await self._take_stock(places, held)
        for number in set(places.first).difference(missing):
            coming.came(number)
        self._begun = True
        if len(self.sources) > 1 or self.neighbour:
            missing = scattered(missing, places.sizes, self._chance)
        await _Parts(self, places, named, held, Download(places.sizes, missing), coming).run()

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
            self.rotten(held, rotten.file)
            return False
        if data is None:
            return False
        self.write(places, number, data)
        return True

    def _came_before(self, places: Places, number: int, part: Part) -> bool:
        """In every place, or it is fetched again and written to all of them."""
        for start in places.starts_of(number):
            data = self._coming.read(start, part.size)
            if Digest.of(data) != part.digest:
                return False
            self._coming.kept(start, data)
        self.count(part.size * len(places.starts_of(number)))
        return True

    def write(self, places: Places, number: int, data: bytes | memoryview) -> None:
        for start in places.starts_of(number):
            self._put(start, data)
        self.count(len(data) * len(places.starts_of(number)))

    def _put(self, start: int, data: bytes | memoryview) -> None:
        try:
            self._coming.write(start, data)
        except Unavailable as error:
            raise Ours(error) from error

    def _commit(self) -> None:
        try:
            self._coming.commit()
        except Unavailable as error:
            raise Ours(error) from error

    def rotten(self, held: Held, file: File) -> None:
        if file in self._rotten:
            return
        self._rotten.add(file)
        log.error("blob_damaged", blob=str(file.digest), what="a part that was to be built on")
        held.forget(file)
        self.on_damage(file.digest)


class _Parts:
    """The parts that are missing, from whoever has them."""

    def __init__(
        self,
        fetch: _Fetch,
        places: Places,
        named: Digest,
        held: Held,
        download: Download,
        coming: Coming,
    ) -> None:
        self._fetch, self._places, self._named = fetch, places, named
        self._held, self._download, self._coming = held, download, coming
        self._sources: dict[str, Source] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._openers = asyncio.Semaphore(OPENERS)
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        for source in self._fetch.near():
            self._join(source)
        try:
            while not self._download.done:
                self._news.clear()
                self._step()
                if self._download.stuck and not self._widen(all_of_them=True):
                    raise Unavailable("no source has what is missing")
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._news.wait()
                except TimeoutError:
                    pass
                if self._fetch.progress.slow:
                    self._widen()
                for number, task in list(self._tasks.items()):
                    if task.done():
                        del self._tasks[number]
                        if not task.cancelled():
                            task.result()  # a defect, or our own disk
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _step(self) -> None:
        for step in self._download.step(self._loop.time()):
            match step:
                case Ask():
                    task = asyncio.create_task(self._ask(step))
                    task.add_done_callback(lambda _: self._news.set())
                    self._tasks[step.batch] = task
                case Drop():
                    if step.batch in self._tasks:
                        self._tasks[step.batch].cancel()

    def _widen(self, *, all_of_them: bool = False) -> bool:
        """Ask also those that are farther away: the next one, or all; whether there was any."""
        left = [s for s in self._fetch.sources if s.name not in self._sources]
        for source in left if all_of_them else left[:1]:
            self._join(source)
        return bool(left)

    def _join(self, source: Source, only: Sequence[int] | None = None) -> None:
        self._sources[source.name] = source
        self._download.join(source.name, source.rtt_s, only)

    async def _ask(self, ask: Ask) -> None:
        source, download = self._sources[ask.source], self._download
        self._fetch.progress.peers.add(source.name)
        wanted = Wanted(
            self._fetch.wish.file,
            self._named,
            ask.parts,
            base=self._held.base,
            packed=self._fetch.progress.slow,
            insist=ask.insist,
            ticket=source.ticket,
        )
        sizes = [self._places.sizes[part] for part in ask.parts]
        try:
            line = self._fetch.line
            async for answer in blob_client.parts(source.channel(), wanted, sizes, line):
                if not isinstance(answer, Came):
                    self._pointed(ask.batch, source, answer)
                elif download.needs(answer.part):
                    await self._take(ask.batch, answer)
                self._news.set()
        except Rejected as error:  # it lies, or has nothing for us
            self._fetch.refused(source.name, error)
            if source.ticket and not isinstance(error, LIES):  # too early or too late: ask anew
                for part in ask.parts:
                    download.lacks(ask.batch, part)
            else:
                download.out(source.name)
            download.ended(ask.batch)
        except Unavailable as error:
            self._fetch.refused(source.name, error)
            if download.failed(ask.batch, self._loop.time()):
                log.warning("source_failed", source=source.name, why=str(error))
        except BaseException:
            download.ended(ask.batch)
            raise
        else:
            download.ended(ask.batch)

    async def _take(self, batch: int, came: Came) -> None:
        part = self._places.parts[came.part]
        try:
            async with self._openers:
                data = await finished(opened, part, came.payload, self._held)
        except Rotten as rotten:
            self._fetch.rotten(self._held, rotten.file)
            self._download.again(batch, came.part)
            return
        async with self._fetch.writing:
            if not self._download.needs(came.part):  # somebody else was faster
                return
            await finished(self._fetch.write, self._places, came.part, data)
        self._fetch.count(0, came=len(came.payload))
        self._download.came(batch, came.part, self._loop.time())
        self._coming.came(came.part)

    def _pointed(self, batch: int, source: Source, pointed: Pointed) -> None:
        """By a neighbour, to others: nobody said that it may."""
        named = () if source.ticket else pointed.elsewhere.neighbours
        if channel_to := self._fetch.neighbour:
            for each in named:
                name = f"{each.node}@{each.address}"
                if name not in self._sources and len(self._sources) >= ASKED_MAX:
                    continue
                near = Source(
                    name,
                    lambda each=each: channel_to(each),  # type: ignore[misc]  # binds the loop variable
                    0.0,
                    pointed.elsewhere.ticket,
                )
                self._join(near, [pointed.part])
        self._download.lacks(batch, pointed.part, elsewhere=bool(named))


async def finished(function: Callable[..., T], *args: Any) -> T:
    """Run it in a thread and wait for its end even if cancelled: the next call may follow it."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
