"""The daemon's event store, running until the power fails: again and again, on one disk.

After every cut the store must show what was acknowledged, or that and the whole step that was
under way: nothing less (I5), nothing by halves, and every root as it was signed (I6). Then it
goes on from there; what was lost unacknowledged is written anew, and differs.
"""

from __future__ import annotations

import contextlib
from copy import copy
from dataclasses import astuple, dataclass, field
from pathlib import Path
from random import Random

from hanse.core.errors import Broken
from hanse.core.step import Write
from hanse.storage.memory import MemoryEventStore
from hanse.storage.sqlite import SqliteEventStore
from power.disk import Disk
from power.history import History, check_roots, shown
from power.sqlite import Machine


class Lost(AssertionError):
    """What the disk shows is neither what was acknowledged nor that and one step more."""


@dataclass
class Counts:
    cuts: int = 0
    in_a_write: int = 0  # the rest came while nothing was written, or while it opened
    in_an_open: int = 0
    survived: int = 0  # cut before the answer, and yet it is all there
    steps: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass
class Daemon:
    """One seed. `folder` holds only the lock; the files are on `disk`."""

    seed: int
    folder: Path
    disk: Disk = field(default_factory=Disk)
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self._rng = Random(self.seed)
        self._history = History(self._rng)
        self._acknowledged = MemoryEventStore()

    async def run(self, cuts: int) -> Counts:
        """Live through so many power cuts. Raises `Lost`, or whatever else is wrong."""
        for _ in range(cuts):
            if self._rng.random() < 0.3:
                await self._cut_while_opening()
            store = await self._machine().open()
            under_way, before = await self._until_cut(store)
            self.disk = self.disk.after_cut(self._rng)
            await self._check(under_way, before)
        return self.counts

    async def _until_cut(self, store: SqliteEventStore) -> tuple[tuple[Write, ...], History]:
        """Write until the power fails; the step that was not answered, and the past without it."""
        self._arm(self._rng.randrange(1, 150))
        while True:
            before, step = copy(self._history), self._history.step()
            try:
                await store.apply(step)
            except Broken:
                self.counts.in_a_write += 1
                break
            await self._acknowledged.apply(step)
            self.counts.steps += 1
            if self._rng.random() < 0.05:
                before, step = copy(self._history), ()
                break
        # Closing writes too, when it moves the log into the database.
        if self._rng.random() < 0.3:
            await _let_go(store)
        self.disk.cut()
        await _let_go(store)
        return step, before

    async def _cut_while_opening(self) -> None:
        self._arm(self._rng.randrange(1, 12))
        try:
            store = await self._machine().open()
        except Broken:
            assert self.disk.off
            self.counts.in_an_open += 1
        else:
            self.disk.cut()
            await _let_go(store)
        self.disk = self.disk.after_cut(self._rng)

    async def _check(self, under_way: tuple[Write, ...], before: History) -> None:
        store = await self._machine().open()
        try:
            await self._compare(store, under_way, before)
            await check_roots(store)
            self.disk.before = None
        finally:
            await store.close()

    async def _compare(
        self, store: SqliteEventStore, under_way: tuple[Write, ...], before: History
    ) -> None:
        found, expected = await shown(store), await shown(self._acknowledged)
        if found != expected:
            more = MemoryEventStore().crash(self._acknowledged.snapshot())
            await more.apply(under_way)
            if found != await shown(more):
                raise Lost(f"seed {self.seed}, after {self.counts}")
            self._acknowledged = more
            self.counts.survived += 1
        elif under_way:
            self._history = before

    def _arm(self, calls: int) -> None:
        """Cut the power after so many calls, often when data is about to be called durable."""
        last, wanted = self.disk.changes + calls, self._rng.choice(("", "", "sync"))

        def before(change: int, kind: str) -> None:
            if change >= last and wanted in ("", kind):
                raise self.disk.cut()

        self.disk.before = before
        self.counts.cuts += 1

    def _machine(self) -> Machine:
        pages = self._rng.choice((8, 30, 1000))
        return Machine(self.disk, self.folder, self._rng, checkpoint_pages=pages)


async def _let_go(store: SqliteEventStore) -> None:
    with contextlib.suppress(Broken):
        await store.close()
