"""The driver: feeds the node, then does what its step says, in that order.

Everything that happens to the node passes through one queue and one task, so its state needs
no lock. Stimuli that wait are taken together and share one step, one transaction and one
signature: group commit without a timer, because the batch grows exactly while a commit runs.

A failed store ends the process. Nothing of that step has left it (I5).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import structlog

from hanse.core import limits
from hanse.core.effects import (
    Compare,
    Dial,
    Effect,
    FetchRelease,
    HangUp,
    Heal,
    Log,
    PublishAssignment,
    Reread,
    Restart,
    Serve,
    Undial,
)
from hanse.core.errors import Broken, Conflict, HanseError, Rejected, Unavailable
from hanse.core.gossip.budget import Budget
from hanse.core.ids import MemberId
from hanse.core.node import Clock, Node
from hanse.core.recovery import Phase
from hanse.core.step import Step
from hanse.rpc.transport import PeerStream, Transport
from hanse.storage.contract import EventStore
from hanse.storage.serving import chunk_from, weigh, whole

T = TypeVar("T")
Attempted = tuple[asyncio.Future[Any] | None, Any, HanseError | None]
log = structlog.get_logger("hanse.daemon")
QUEUE_MAX = 10_000
DIAL_PAUSE_S, LASTED_S = 0.2, 2.0
DIAL_PAUSE_MAX_S = 3.0  # who comes back must be found soon: it writes nothing until it is
RECOVERED_S = 5.0


class Outside(Protocol):
    """What the driver hands work to beside the store and the links."""

    def fetch(self, effect: FetchRelease) -> None: ...
    def heal(self, effect: Heal) -> None: ...
    def publish(self, effect: PublishAssignment) -> None: ...


class Driver:
    """Owned by the composition root; `failed` holds the error that ended it, if any."""

    def __init__(
        self,
        node: Node,
        store: EventStore,
        transport: Transport,
        *,
        tick_interval_s: float = 0.25,
    ) -> None:
        self.node = node
        self._store = store
        self._transport = transport
        self._tick_s = tick_interval_s
        self._queue: asyncio.Queue[tuple[Callable[[Node, Clock], Any], asyncio.Future[Any] | None]]
        self._queue = asyncio.Queue(QUEUE_MAX)
        self._streams: dict[MemberId, PeerStream] = {}
        self._dialling: dict[MemberId, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._answering: Counter[MemberId] = Counter()
        self._lines: dict[tuple[str, object], Budget] = {}  # of events and members: bounded
        self._serving = asyncio.Semaphore(limits.PULLS_IN_FLIGHT_MAX * 4)
        self._may_answer = asyncio.Event()  # the node has recovered its log, or given up
        self.outside: Outside | None = None

    # -- stimuli ---------------------------------------------------------------

    async def do(self, stimulus: Callable[[Node, Clock], T]) -> T:
        """Run `stimulus` on the node; returns its value once its step is stored."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        await self._queue.put((stimulus, future))
        return await future

    async def tell(self, stimulus: Callable[[Node, Clock], object]) -> None:
        """As `do`, without waiting for the store. Full queue: the caller waits."""
        await self._queue.put((stimulus, None))

    def post(self, stimulus: Callable[[Node, Clock], object]) -> None:
        """As `tell`, from code that cannot wait. A full queue loses it: for hints only."""
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait((stimulus, None))

    async def recovered(self) -> None:
        """Wait a moment for a log that is being recovered; with peers it takes no longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECOVERED_S):
                await self._may_answer.wait()

    def second_link(self, peer: MemberId, boot_nonce: bytes) -> None:
        """The transport has refused a second stream of this member (`Transport.accept`)."""
        self.post(lambda node, clock: node.second_link(peer, boot_nonce, clock))

    async def run(self) -> None:
        """Serve until cancelled. Any error that leaves here must end the process.

        Deciding and storing take turns. Side by side they would be slower: the database
        thread needs the interpreter for every row, and would wait for it each time.
        """
        next_tick = 0.0
        try:
            while True:
                batch = await self._next_batch(next_tick)
                clock = now()
                done = [(future, *_attempt(f, self.node, clock)) for f, future in batch]
                if clock.now_s >= next_tick:
                    self.node.tick(clock)
                    self._resync()
                    next_tick = clock.now_s + self._tick_s
                await self._carry_out(self.node.take(clock))
                _resolve(done)
        finally:
            for task in (*self._tasks, *self._dialling.values()):
                task.cancel()
            for stream in list(self._streams.values()):
                await stream.close()

    def _resync(self) -> None:
        """Tell all heads to whoever has lost hints and reads again."""
        for peer, stream in self._streams.items():
            if stream.resync and not stream.backlog_bytes:
                stream.resync = False
                self.node.resync(peer)

    async def _next_batch(
        self, next_tick: float
    ) -> list[tuple[Callable[[Node, Clock], Any], asyncio.Future[Any] | None]]:
        wait_s = max(0.0, next_tick - time.monotonic())
        batch = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                batch.append(await self._queue.get())
        while not self._queue.empty() and len(batch) < limits.COMMIT_EVENTS_MAX:
            batch.append(self._queue.get_nowait())
        return batch

    # -- the step --------------------------------------------------------------

    async def _carry_out(self, step: Step) -> None:
        if step.store:
            await self._store.apply(step.store)
        for send in step.send:
            stream = self._streams.get(send.peer)
            if stream is not None:
                stream.send(send.frame)
        for effect in step.effects:
            self._effect(effect)
        if self.node.recovery.phase is not Phase.RECOVERING:
            self._may_answer.set()

    def _effect(self, effect: Effect) -> None:
        match effect:
            case Serve() if self._may_ask(effect.peer):
                self._answering[effect.peer] += 1
                self._spawn(self._serve(effect))
            case Serve():
                self.node.counters["pulls_ignored"] += 1
            case Reread():
                self._spawn(self._reread(effect))
            case Compare():
                self._spawn(self._weigh(effect))
            case Dial():
                if effect.member not in self._dialling:
                    task = asyncio.create_task(self._keep_link(effect.member))
                    self._dialling[effect.member] = task
            case Undial():
                task_or_none = self._dialling.pop(effect.member, None)
                if task_or_none is not None:
                    task_or_none.cancel()
            case HangUp():
                self._log(
                    Log("warning", "hung_up", (("peer", effect.member), ("why", effect.reason)))
                )
                stream = self._streams.get(effect.member)
                if stream is not None:
                    self._spawn(stream.close())
            case Log():
                self._log(effect)
            case Restart():
                raise Broken(effect.reason, fix="start the daemon again; nothing is lost by it")
            case FetchRelease() if self.outside:
                self.outside.fetch(effect)
            case Heal() if self.outside:
                self.outside.heal(effect)
            case PublishAssignment() if self.outside:
                self.outside.publish(effect)

    def _may_ask(self, peer: MemberId) -> bool:
        """Whether a pull of this peer is answered: it asks again for what it did not get."""
        stream = self._streams.get(peer)
        return (
            stream is not None
            and self._answering[peer] < limits.PULLS_IN_FLIGHT_MAX
            and stream.backlog_bytes < limits.SEND_QUEUE_BYTES_MAX // 2
        )

    async def _serve(self, effect: Serve) -> None:
        try:
            await self._answer(effect)
        finally:
            self._answering[effect.peer] -= 1
            if not self._answering[effect.peer]:
                del self._answering[effect.peer]

    async def _answer(self, effect: Serve) -> None:
        """Answer a pull with one chunk that ends at a size its author signed."""
        async with self._serving:
            chunk = await chunk_from(self._store, effect.origin, effect.start, effect.end)
            stream = self._streams.get(effect.peer)
            if chunk is not None and stream is not None:
                stream.send(chunk)

    async def _reread(self, effect: Reread) -> None:
        events = await whole(self._store, effect.origin)
        await self.tell(lambda node, clock: node.freezer.reread(effect.origin, events, clock.now_s))

    async def _weigh(self, asked: Compare) -> None:
        with contextlib.suppress(Rejected):  # no member writes it any more
            key = self.node.book.key_of(asked.origin)
            outcome = await weigh(self._store, asked, key)
            await self.tell(lambda node, clock: node.freezer.compared(asked, outcome, clock.now_s))

    def _log(self, said: Log) -> None:
        """Write a line; of what one peer causes only so many (T48: it must not fill a disk)."""
        fields, now_s = dict(said.fields), time.monotonic()
        about = (said.event, fields.get("peer"))
        pace = self._lines.get(about) or Budget(
            limits.LOG_LINES_PER_S, limits.LOG_LINES_BURST, now_s
        )
        self._lines[about] = pace
        if about[1] is None or pace.take(1, now_s):
            log.log(_LEVELS[said.level], said.event, **fields)
        else:
            self.node.counters["log_lines_withheld"] += 1

    # -- links -----------------------------------------------------------------

    async def _keep_link(self, member: MemberId) -> None:
        """Dial, converse, and dial again with jitter for as long as the link is wanted."""
        pause_s = DIAL_PAUSE_S
        while True:
            begun_s = time.monotonic()
            try:
                if member not in self._streams:  # it may have called us: one link is enough
                    await self.converse(await self._transport.open_stream(member))
            except HanseError as error:
                log.debug("link_failed", peer=member, why=str(error))
                if isinstance(error, Conflict):
                    self.post(lambda node, clock: node.link_refused(member, clock))
            # A link that did not last is no better than none: who hangs up at once is not
            # dialled at full pace.
            if time.monotonic() - begun_s > LASTED_S:
                pause_s = DIAL_PAUSE_S
            await asyncio.sleep(pause_s * (0.5 + time.monotonic() % 1.0))
            pause_s = min(pause_s * 2, DIAL_PAUSE_MAX_S)

    async def converse(self, stream: PeerStream) -> None:
        """Carry one link until either side closes it."""
        peer = MemberId(stream.peer)
        older = self._streams.get(peer)
        if older is not None:
            await stream.close()
            raise Unavailable(f"there is a link to {peer} already")
        self._streams[peer] = stream
        try:
            await self.tell(lambda node, clock: node.link_up(peer, stream.spki, clock))
            async for frame in stream.frames():
                await self.tell(lambda node, clock, f=frame: node.frame(peer, f, clock))  # type: ignore[misc]  # binds the loop variable
        except Rejected as error:
            log.warning("link_refused", peer=peer, why=str(error))
            raise
        finally:
            self._streams.pop(peer, None)
            await stream.close()
            await self.tell(lambda node, _: node.link_down(peer))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task_failed", exc_info=task.exception())


_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def now() -> Clock:
    return Clock(time.monotonic(), time.time_ns() // 1_000_000)


def _attempt(
    stimulus: Callable[[Node, Clock], Any], node: Node, clock: Clock
) -> tuple[Any, HanseError | None]:
    try:
        return stimulus(node, clock), None
    except (Rejected, Unavailable) as error:
        return None, error


def _resolve(done: list[Attempted]) -> None:
    for future, value, error in done:
        if future is None:
            if error is not None:
                log.warning("stimulus_rejected", why=str(error))
        elif not future.cancelled():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)
