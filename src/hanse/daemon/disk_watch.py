"""Looks at the room on the disk every few seconds and tells the node (T48)."""

from __future__ import annotations

import asyncio

import structlog

from hanse.core.limits import DISK_LOOK_S
from hanse.core.room import Level, Room
from hanse.daemon.driver import Driver
from hanse.storage.reserve import Reserve

log = structlog.get_logger("hanse.daemon")


async def watch(driver: Driver, reserve: Reserve) -> None:
    """Never ends by itself. Raises `Broken` when the disk does not even say how large it is."""
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
