"""The parts that are missing, from whoever has them: what `core.transfer.download` decides, done.

A part that comes as it is goes to its place piece by piece and is hashed on the way, so that no
part is ever whole in memory; what must be opened first is gathered. A source brings one part at a
time, however many were asked for, so that a kill costs one of each source. While parts come, what
lies at the beginning of the file without a hole is hashed for the digest of the whole.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

import structlog

from hanse.core.errors import Rejected, Unavailable
from hanse.core.ids import Digest
from hanse.core.transfer.download import Ask, Download, Drop
from hanse.core.transfer.wanted import Wanted
from hanse.parts import payload
from hanse.rpc import blob_client
from hanse.rpc.blob_client import Arriving, Pointed
from hanse.transfer.held import Held, Rotten
from hanse.transfer.job import LIES, Job
from hanse.transfer.landing import Ground, Landing
from hanse.transfer.places import Places
from hanse.transfer.threads import Behind, finished
from hanse.transfer.underway import Coming
from hanse.transfer.wish import Source

ASKED_MAX = 36
"""Sources and neighbours together, of one file."""
LOOK_S = 0.25
OPENERS = 2
log = structlog.get_logger("hanse.transfer")


class Parts:
    """`named` is the digest of the recipe."""

    def __init__(
        self, job: Job, places: Places, named: Digest, held: Held, ground: Ground, coming: Coming
    ) -> None:
        self._job, self._places, self._named = job, places, named
        self._held, self._ground, self._coming = held, ground, coming
        self._sources: dict[str, Source] = {}
        self._lanes: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._openers = asyncio.Semaphore(OPENERS)
        self._loop = asyncio.get_running_loop()

    async def bring(self, missing: Sequence[int]) -> None:
        """All of these, in about this order. Raises `Unavailable` if nobody has them."""
        self._download = Download(self._places.sizes, missing)
        for source in self._job.near():
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
                if self._job.progress.slow:
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
            await self._ground.still()

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
        left = [s for s in self._job.sources if s.name not in self._sources]
        for source in left if all_of_them else left[:1]:
            self._join(source)
        return bool(left)

    def _join(self, source: Source, only: Sequence[int] | None = None) -> None:
        self._sources[source.name] = source
        self._download.join(source.name, source.rtt_s, only)

    async def _ask(self, ask: Ask) -> None:
        source, download, job = self._sources[ask.source], self._download, self._job
        job.progress.peers.add(source.name)
        wanted = Wanted(
            job.wish.file,
            self._named,
            ask.parts,
            base=self._held.base,
            packed=job.progress.slow,
            insist=ask.insist,
            ticket=source.ticket,
        )
        sizes = [self._places.sizes[part] for part in ask.parts]
        try:
            async for answer in blob_client.parts(source.channel(), wanted, sizes, job.line):
                if isinstance(answer, Pointed):
                    self._pointed(ask.batch, source, answer)
                else:
                    async with self._lanes[source.name]:
                        await self._take(ask.batch, answer)
                self._news.set()
        except Rejected as error:  # it lies, or has nothing for us
            job.refused(source.name, error)
            if source.ticket and not isinstance(error, LIES):  # too early or too late: ask anew
                for part in ask.parts:
                    download.lacks(ask.batch, part)
            else:
                download.out(source.name)
            download.ended(ask.batch)
        except Unavailable as error:
            job.refused(source.name, error)
            if download.failed(ask.batch, self._loop.time()):
                log.warning("source_failed", source=source.name, why=str(error))
        except BaseException:
            download.ended(ask.batch)
            raise
        else:
            download.ended(ask.batch)

    async def _take(self, batch: int, answer: Arriving) -> None:
        number, pieces = answer.part, self._counted(answer.pieces)
        first = await anext(pieces)
        as_it_is = first[: len(payload.RAW)] == payload.RAW
        landing = self._ground.begin(number) if as_it_is else None
        if landing is not None:
            await self._write(landing, first[len(payload.RAW) :], pieces)
        elif not await self._gather(batch, number, first, pieces):
            return
        if self._download.came(batch, number, self._loop.time()):
            starts = self._places.starts_of(number)
            self._job.count(self._places.sizes[number] * len(starts))
            self._coming.came(number)
            self._ground.hash_on()

    async def _counted(self, pieces: AsyncIterator[memoryview]) -> AsyncIterator[memoryview]:
        async for piece in pieces:
            self._job.count(0, came=len(piece))
            yield piece

    async def _write(
        self, landing: Landing, first: memoryview, rest: AsyncIterator[memoryview]
    ) -> None:
        try:
            async with Behind() as behind:
                await behind.write(self._ground.write, landing, first)
                async for piece in rest:
                    await behind.write(self._ground.write, landing, piece)
                await behind.done()
            self._ground.check(landing)
        finally:
            self._ground.give_up(landing)

    async def _gather(
        self, batch: int, number: int, first: memoryview, rest: AsyncIterator[memoryview]
    ) -> bool:
        """Whether it is here now."""
        raw = b"".join([first, *[piece async for piece in rest]])
        if not self._download.needs(number):  # somebody else was faster
            return False
        part = self._places.parts[number]
        try:
            async with self._openers:
                data = await finished(payload.decode, part, raw, self._held.base_of)
        except Rotten as rotten:
            self._job.rotten(self._held, rotten.file)
            self._download.again(batch, number)
            return False
        await finished(self._ground.put, number, data)
        return True

    def _pointed(self, batch: int, source: Source, pointed: Pointed) -> None:
        """By a neighbour, to others: nobody said that it may."""
        named = () if source.ticket else pointed.elsewhere.neighbours
        if channel_to := self._job.neighbour:
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
