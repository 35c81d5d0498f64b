"""One scenario of the event store, and what must hold when its n-th call to the disk fails.

Every answer is right or a refusal with a message; after the first refusal of the disk there is
no other answer; what was acknowledged is there at the next start, whether the machine went
down with the process or not.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from hanse.core.errors import Broken, HanseError
from hanse.core.step import Write
from hanse.storage.memory import MemoryEventStore
from hanse.storage.sqlite import MakeRoom, SqliteEventStore
from power.disk import Disk
from power.history import ORIGINS, History, check_roots, shown
from power.sqlite import Machine
from power.vfs import ShortWrite

STEPS = 8
Before = Callable[[int, str], None]


class Life(NamedTuple):
    acknowledged: MemoryEventStore
    under_way: tuple[Write, ...]
    refusal: str


def fails(n: int, how: str) -> Before:
    """`how`: EIO, ENOSPC or SHORT, at call `n`; with a `+`, at every call from there on."""
    for_ever = how.endswith("+")

    def before(change: int, kind: str) -> None:
        if not (change == n or (for_ever and change > n)):
            return
        if how.startswith("EIO"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if kind in ("write", "extend", "truncate"):
            raise ShortWrite if how.startswith("SHORT") else OSError(errno.ENOSPC, "full")

    return before


WAYS = ("EIO", "EIO+", "ENOSPC", "ENOSPC+", "SHORT", "SHORT+")


async def live(disk: Disk, folder: Path, make_room: MakeRoom = lambda: False) -> Life:
    """Start, write, read and stop as a daemon does, as far as the disk lets it."""
    history, acknowledged = History(Random(3)), MemoryEventStore()
    step: tuple[Write, ...] = ()
    try:
        store = await Machine(disk, folder, Random(4), checkpoint_pages=12).open(make_room)
    except HanseError as error:
        return Life(acknowledged, step, str(error))
    try:
        for _ in range(STEPS):
            step = history.step()
            await store.apply(step)
            await acknowledged.apply(step)
            step = ()
            assert await shown(store) == await shown(acknowledged)
    except Broken as error:
        await _check_refuses(store)
        return Life(acknowledged, step, str(error))
    finally:
        with contextlib.suppress(Broken):
            await store.close()
    return Life(acknowledged, (), "")


async def _check_refuses(store: SqliteEventStore) -> None:
    """A store that has failed gives no other answer."""
    for call in (store.heads, lambda: store.apply(History(Random(5)).step()), store.trust):
        try:
            await call()
        except Broken:
            continue
        raise AssertionError("a failed store answered")
    origin = ORIGINS["north"]
    with contextlib.suppress(Broken):
        assert await store.events(origin, 0, 0, 10**6) == []


async def check_one(n: int, how: str, folder: Path, *, reserve: bool = False) -> bool:
    """Whether anything was refused. Raises if anything is lost or wrong.

    With a `reserve`, whatever fails works again once the store has asked for room.
    """
    disk = Disk()
    disk.before = fails(n, how)

    def make_room() -> bool:
        if not reserve or disk.before is None:
            return False
        disk.before = None
        return True

    life = await live(disk, folder, make_room)
    crashed = disk.after_cut(Random(n))
    for found in (disk.after_kill(), crashed):
        store = await Machine(found, folder, Random(n)).open()
        try:
            await _check_kept(store, life)
        finally:
            await store.close()
    return bool(life.refusal)


async def _check_kept(store: SqliteEventStore, life: Life) -> None:
    there = await shown(store)
    if there != await shown(life.acknowledged):
        more = MemoryEventStore().crash(life.acknowledged.snapshot())
        await more.apply(life.under_way)
        assert there == await shown(more), f"lost after: {life.refusal}"
    await check_roots(store)


async def count_calls(folder: Path) -> int:
    disk = Disk()
    life = await live(disk, folder)
    assert life.refusal == ""
    return disk.changes
