"""Work on the disk that has an end, whatever becomes of whoever asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self, TypeVar

T = TypeVar("T")


async def finished(function: Callable[..., T], *args: Any) -> T:
    """Run it in a thread and wait for its end even if cancelled: the next call may follow it."""
    return await _ended(asyncio.get_running_loop().run_in_executor(None, function, *args))


class Behind:
    """Writes one piece while the next one comes. A context: nothing is under way after it."""

    def __init__(self) -> None:
        self._writing: asyncio.Future[None] | None = None

    async def write(self, put: Callable[..., None], *args: Any) -> None:
        """Raises what the one before raised."""
        await self.done()
        self._writing = asyncio.get_running_loop().run_in_executor(None, put, *args)

    async def done(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await _ended(writing)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writing is not None:
            await asyncio.wait([self._writing])


async def _ended(running: asyncio.Future[T]) -> T:
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
