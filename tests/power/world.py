"""Whole federations of the simulator, each daemon's registry on a disk that loses what it may.

The daemons of a simulation never wait; the store here answers each call before it returns,
because it runs the event loop in which the real one works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from hanse.core.errors import Broken
from hanse.core.step import PutLocal, PutTrust
from hanse.core.trust.freshness import SPACE as TRUST_SPACE
from hanse.sim.process import done
from hanse.sim.run import Outcome, build, play
from hanse.storage.contract import EventStore
from power.disk import Disk
from power.sqlite import Machine

REGIONS = 3


class Registry:
    """A `SqliteEventStore` behind the face of the simulator's store; a crash is a power cut."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, folder: Path, disk: Disk, rng: Random
    ) -> None:
        self._loop, self._folder, self._disk, self._rng = loop, folder, disk, rng
        machine = Machine(disk, folder, rng, checkpoint_pages=rng.choice((8, 30, 1000)))
        self._store: EventStore = loop.run_until_complete(machine.open())

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def answer(*args: Any) -> Any:
            return self._loop.run_until_complete(getattr(self._store, name)(*args))

        return answer

    def snapshot(self) -> None:
        """Asked for when the power fails before the step: nothing of it was written."""

    def crash(self, _: None = None) -> Registry:
        self._disk.cut()
        self.close()
        return Registry(self._loop, self._folder, self._disk.after_cut(self._rng), self._rng)

    def close(self) -> None:
        try:
            self._loop.run_until_complete(self._store.close())
        except Broken:
            assert self._disk.off


def play_on_disks(seed: int, folder: Path) -> Outcome:
    """As `hanse.sim.run.run` with crashes. Raises `Violated` if a promise is broken."""
    world = build(seed, REGIONS, "crashes")
    with closing(asyncio.new_event_loop()) as loop:
        try:
            for name, process in world.processes.items():
                store: Any = Registry(loop, folder / name, Disk(), Random(f"disk/{seed}/{name}"))
                trust = enumerate(done(process.store.trust()), start=1)
                done(store.apply([PutTrust(version, raw) for version, raw in trust]))
                stamp = done(process.store.local(TRUST_SPACE))
                done(store.apply([PutLocal(TRUST_SPACE, key, raw) for key, raw in stamp.items()]))
                process.store = store
            return play(world)
        finally:
            for process in world.processes.values():
                if isinstance(process.store, Registry):
                    process.store.close()
