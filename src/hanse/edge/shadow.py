"""Asking a candidate the same question beside the answer, without the caller noticing.

A shadow waits in a queue bounded in number and bytes, and runs on a thread of its own. When the
queue is full the oldest is dropped and counted: a comparison on a sample is still one, a slow
answer is not undone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hanse.edge.comparators import Answer, Comparator
from hanse.edge.served import Feeds, Run, Served, run_model
from hanse.edge.telemetry import Key, Telemetry

SHADOWS_MAX = 256
SHADOW_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Shadow:
    """`answer` is what the caller got, if it can be compared, and `comparator` compares it."""

    served: Served
    key: Key
    slow_s: float | None
    feeds: Feeds
    request_id: str
    answer: Answer | None
    comparator: Comparator | None

    @property
    def size(self) -> int:
        return sum(array.nbytes for array in self.feeds.values())


class ShadowQueue:
    """Use from one event loop; `judge` is called on it with every run."""

    def __init__(
        self,
        telemetry: Telemetry,
        judge: Callable[[Shadow, Run], None],
        count_max: int = SHADOWS_MAX,
    ) -> None:
        self._telemetry, self._judge, self._count_max = telemetry, judge, count_max
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._waiting: deque[Shadow] = deque()
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None

    def offer(self, shadow: Shadow) -> None:
        if shadow.size > SHADOW_BYTES_MAX:
            self._telemetry.dropped(shadow.key)
            return
        while len(self._waiting) >= self._count_max or self._bytes + shadow.size > SHADOW_BYTES_MAX:
            self._telemetry.dropped(self._next().key)
        self._bytes += shadow.size
        self._waiting.append(shadow)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="shadow")

    async def done(self) -> None:
        """Wait until nothing waits and nothing runs."""
        while self._task is not None and not self._task.done():
            await self._task

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(self._pool.shutdown)

    def _next(self) -> Shadow:
        shadow = self._waiting.popleft()
        self._bytes -= shadow.size
        return shadow

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            shadow = self._next()
            run = await loop.run_in_executor(
                self._pool, run_model, shadow.served.model, shadow.feeds
            )
            self._telemetry.tally(shadow.key).shadow.answered(run, shadow.slow_s)
            if shadow.comparator and shadow.answer and run.answer:
                self._telemetry.shadowed(
                    shadow.key, shadow.request_id, shadow.comparator, shadow.answer, run.answer
                )
            self._judge(shadow, run)
