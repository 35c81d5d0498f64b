"""The newest assignment, to every node that watches.

Only the newest counts, so nothing is queued for a node but the fact that it is behind. A few
writers walk the nodes that are; each writes what is newest at that moment and never begins
the next before the last was taken. Thousands of nodes therefore cost no wake-up each, and
other calls go on in between (waking 10,000 handlers at once held them up by 0.5 s).
"""

from __future__ import annotations

import asyncio
from collections import deque

from hanse.core.errors import Unavailable
from hanse.rpc.status import Context, reraise_if_ours

WRITERS = 16
WRITE_S = 2.0


class Watcher:
    """One node's stream. Owned by the feed while registered; its handler waits for `over`."""

    __slots__ = ("behind", "context", "error", "over", "version")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.over = asyncio.Event()
        self.error: Unavailable | None = None
        self.version = 0  # last written
        self.behind = False  # waits for a writer, or is being written to

    def end(self, error: Unavailable | None = None) -> None:
        self.error = self.error or error
        self.over.set()


class AssignmentFeed:
    """Holds the newest assignment as its message's bytes, built once for all nodes."""

    def __init__(self) -> None:
        self.version = 0
        self._message = b""
        self._watchers: set[Watcher] = set()
        self._behind: deque[Watcher] = deque()
        self._work = asyncio.Event()
        self._closed = False
        self._writers: list[asyncio.Task[None]] = []

    def publish(self, message: bytes) -> None:
        """Replace the newest; nodes that have not got the one before never will."""
        self.version += 1
        self._message = message
        for watcher in self._watchers:
            self._queue(watcher)

    def register(self, watcher: Watcher) -> None:
        if self._closed:  # it came while the streams were being ended
            watcher.end(Unavailable("this daemon is stopping"))
            return
        self._watchers.add(watcher)
        self._queue(watcher)
        if not self._writers:
            self._writers = [asyncio.create_task(self._write()) for _ in range(WRITERS)]

    def unregister(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    async def close(self) -> None:
        """End every stream, also those that come later, and the writers."""
        self._closed = True
        for watcher in self._watchers:
            watcher.end(Unavailable("this daemon is stopping"))
        for writer in self._writers:
            writer.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)
        self._writers = []

    def _queue(self, watcher: Watcher) -> None:
        if not watcher.behind and watcher.version != self.version:
            watcher.behind = True
            self._behind.append(watcher)
            self._work.set()

    async def _write(self) -> None:
        while True:
            while not self._behind:
                self._work.clear()
                await self._work.wait()
            watcher = self._behind.popleft()
            if watcher in self._watchers:
                await self._write_newest(watcher)

    async def _write_newest(self, watcher: Watcher) -> None:
        version = self.version
        try:
            # A write waits only behind megabytes that the node has not read: it is dead.
            async with asyncio.timeout(WRITE_S):
                await watcher.context.write(self._message)
        except TimeoutError:
            watcher.end(Unavailable("the node does not read", fix="watch again"))
            return
        except asyncio.CancelledError:
            reraise_if_ours()
            watcher.end()
            return
        except Exception:  # grpc raises private classes for a call that has ended
            watcher.end()
            return
        watcher.version, watcher.behind = version, False
        self._queue(watcher)
