"""How much room is left on the daemon's disk, and what may still be written (T48, L22).

Reading, serving and what undoes harm go on to the last byte: holds, kills, rollbacks, a word
that stops a rollout, and what a region reports of itself. Everything that begins something new
waits while room is low. When less is left than the reserve holds, events of others wait as
well, so that nobody but this daemon's own holds can use up what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hanse.core.errors import Unavailable
from hanse.core.events import (
    Body,
    FloorRaise,
    Hold,
    Kill,
    LogOpen,
    Rollback,
    RolloutControl,
    RolloutReport,
)
from hanse.core.limits import DISK_FREE_SHARE_MIN

_FIX = "free some space or enlarge the disk of the daemon, then ask again"
_URGENT = (Hold, Kill, FloorRaise, Rollback, RolloutReport, LogOpen)


class Level(StrEnum):
    ENOUGH = "enough"
    LOW = "low"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Room:
    """One measurement. `reserve_bytes` is what the reserve should have, whether kept or not."""

    free_bytes: int
    total_bytes: int
    reserve_bytes: int
    reserve_kept: bool

    @property
    def level(self) -> Level:
        if self.free_bytes < self.reserve_bytes:
            return Level.FULL
        low = self.free_bytes < self.total_bytes * DISK_FREE_SHARE_MIN
        return Level.LOW if low else Level.ENOUGH


def check_intake(room: Room | None) -> None:
    """Raises `Unavailable` where events of others have to wait until there is room."""
    if room is not None and room.level is Level.FULL:
        raise Unavailable(
            f"the disk is full: {room.free_bytes} of {room.total_bytes} bytes are free, so no "
            "events of others are taken in",
            fix=_FIX,
        )


def check_room(room: Room | None, body: Body) -> None:
    """Raises `Unavailable` for an event that has to wait until there is room."""
    if room is None or room.level is Level.ENOUGH or _urgent(body):
        return
    raise Unavailable(
        f"the disk is nearly full: {room.free_bytes} of {room.total_bytes} bytes are free, "
        "so nothing new is begun; holds and rollbacks are still taken",
        fix=_FIX,
    )


def _urgent(body: Body) -> bool:
    if isinstance(body, RolloutControl):
        return body.action != "resume"
    return isinstance(body, _URGENT)
