"""Bytes a second, shared in turns by everybody who sends, or everybody who is sent to."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from hanse.core.limits import BLOB_CHUNK_BYTES
from hanse.core.transfer.turns import Turns

_PIECE_BYTES_MIN = 16 * 1024


class Pace:
    """At most `bytes_per_s`; 0: as fast as they go, without turns. For one event loop."""

    def __init__(self, bytes_per_s: int = 0) -> None:
        self._bytes_per_s = bytes_per_s
        self._turns: Turns | None = None
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def piece_bytes(self) -> int:
        """So much is read and sent at a time, that many who wait all see something move."""
        if not self._bytes_per_s:
            return BLOB_CHUNK_BYTES
        return max(_PIECE_BYTES_MIN, min(BLOB_CHUNK_BYTES, self._bytes_per_s // 4))

    async def take(self, caller: Hashable, size: int) -> None:
        """Wait until this caller may send, or be sent, so many bytes."""
        if not self._bytes_per_s:
            return
        loop = asyncio.get_running_loop()
        turns = self._turns = self._turns or Turns(self._bytes_per_s, loop.time())
        number = turns.ask(caller, size)
        turn = self._waiting[number] = loop.create_future()
        self._go(loop, turns)
        try:
            await turn
        except asyncio.CancelledError:
            turns.drop(caller, number)
            raise
        finally:
            self._waiting.pop(number, None)

    def _go(self, loop: asyncio.AbstractEventLoop, turns: Turns) -> None:
        for number in turns.due(loop.time()):
            turn = self._waiting[number]
            if not turn.done():
                turn.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        wait_s = turns.wait_s(loop.time())
        self._timer = None if wait_s is None else loop.call_later(wait_s, self._go, loop, turns)
