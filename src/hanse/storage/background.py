"""Work on stored files that nobody waits for: in one thread of its own that gives way to others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_NICE = 15


class Stopped(Exception):
    """The process ends."""


class Background:
    """Owned by whoever closes it."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, f"hanse-{name}", initializer=_give_way)
        self._stop = threading.Event()

    async def do(self, work: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    def pace(self, bytes_s: float) -> Callable[[int], None]:
        """To be told of bytes as they are read: waits, so that no more are read in a second."""

        def read(count: int) -> None:
            if self._stop.wait(count / bytes_s):
                raise Stopped

        return read

    def close(self) -> None:
        """What is under way ends by itself, at its next piece if it is paced."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _give_way() -> None:
    with contextlib.suppress(OSError):  # Linux knows threads by their own ids
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
