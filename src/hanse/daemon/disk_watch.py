"""Looks at the room on the disk every few seconds and tells the node (T48)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from hanse.core.limits import DISK_LOOK_S
from hanse.core.room import Level, Room
from hanse.daemon.driver import Driver
from hanse.storage.reserve import Reserve

log = structlog.get_logger("hanse.daemon")


@asynccontextmanager
async def watching(driver: Driver, reserve: Reserve) -> AsyncIterator[None]:
    """The node knows how much room there is when this is entered, and while it is open."""
    driver.node.set_room(await asyncio.to_thread(reserve.measure))
    task = asyncio.create_task(_watch(driver, reserve))
    try:
        yield
    finally:
        task.cancel()


async def _watch(driver: Driver, reserve: Reserve) -> None:
    told = Level.ENOUGH
    while True:
        room = await asyncio.to_thread(reserve.measure)
        if room.level is not told:
            told = room.level
            _say(room)
        await driver.tell(lambda node, _, room=room: node.set_room(room))  # type: ignore[misc]  # binds the loop variable
        await asyncio.sleep(DISK_LOOK_S)


def _say(room: Room) -> None:
    kept = "kept" if room.reserve_kept else "used"
    fields = {"free_bytes": room.free_bytes, "total_bytes": room.total_bytes, "reserve": kept}
    match room.level:
        case Level.ENOUGH:
            log.info("disk_has_room", **fields)
        case Level.LOW:
            log.warning("disk_low", **fields)
        case Level.FULL:
            log.error("disk_full", **fields)
