"""One link as frames, over any pipe that carries bytes.

What bounds a link is decided here and not in a transport, so that the in-memory twin is no
kinder than gRPC: the send queue that drops hints first, the pace of reading, the longest
silence, and the end of the stream at the first frame that cannot be read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from hanse.core.counters import Counters
from hanse.core.errors import HanseError, Rejected, TooLarge, Unavailable
from hanse.core.gossip.budget import Budget
from hanse.core.gossip.frames import Announce, Fingerprints, Frame, Heads, Ping, Status
from hanse.core.ids import MemberId
from hanse.rpc.codec import decode_frame, encode_frame
from hanse.rpc.tls import Peer
from hanse.rpc.transport import Accept, LinkOptions


class Pipe(Protocol):
    """Whole messages both ways; the transport's half of a stream."""

    async def read(self) -> bytes | None:
        """The next message; None once the stream has ended. Raises `Unavailable`."""
        ...

    async def write(self, raw: bytes) -> None:
        """Returns when the transport has taken the message. Raises `Unavailable`."""
        ...

    def abort(self, error: HanseError | None) -> None:
        """End both directions at once; the other side may learn why. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    raw: bytes
    hint: bool
    about: str  # what an announce is of; empty for every other frame


class SendQueue:
    """Messages that wait for a slow peer; hints give way, answers do not.

    Of each log only the newest announce waits, and at most `announces_max` in all (L10): a
    peer learns of the rest by the next ping.
    """

    def __init__(self, size_max: int, bytes_max: int, announces_max: int) -> None:
        self._size_max, self._bytes_max = size_max, bytes_max
        self._announces_max = announces_max
        self._waiting: deque[_Waiting] = deque()
        self._some = asyncio.Event()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, raw: bytes, *, hint: bool, about: str = "") -> bool:
        """False if a hint was lost. Raises `Unavailable` if only answers wait here."""
        if about:
            self._drop_oldest(lambda w: w.about == about)
        kept_all = not (about and self._announces() >= self._announces_max)
        if not kept_all:
            self._drop_oldest(lambda w: bool(w.about))
        while self._is_full(len(raw)):
            kept_all = False
            if self._drop_oldest(lambda w: w.hint):
                continue
            if hint:
                return False
            raise Unavailable(f"the peer does not read {len(self)} answers to it")
        self._waiting.append(_Waiting(raw, hint, about))
        self.bytes += len(raw)
        self._some.set()
        return kept_all

    def _announces(self) -> int:
        return sum(1 for each in self._waiting if each.about)

    def _is_full(self, more: int) -> bool:
        full = len(self) >= self._size_max or self.bytes + more > self._bytes_max
        return full and bool(self._waiting)

    def _drop_oldest(self, which: Callable[[_Waiting], bool]) -> bool:
        found = next((i for i, each in enumerate(self._waiting) if which(each)), None)
        if found is None:
            return False
        self.bytes -= len(self._waiting[found].raw)
        del self._waiting[found]
        return True

    async def get(self) -> bytes:
        while not self._waiting:
            self._some.clear()
            await self._some.wait()
        raw = self._waiting.popleft().raw
        self.bytes -= len(raw)
        return raw


def about(news: Announce) -> str:
    """What a newer announce makes this one needless for.

    Without events it may bring cosignatures of an older head: it replaces its like only.
    """
    return str(news.origin) if news.events else f"{news.origin} {news.start}"


HINTS = (Announce, Fingerprints, Heads, Ping, Status)  # what the next one makes up for


class FrameStream:
    """A `PeerStream` over a `Pipe`; `on_end` is called once, when the stream ends."""

    def __init__(
        self,
        identity: Peer,
        pipe: Pipe,
        options: LinkOptions,
        counters: Counters,
        on_end: Callable[[], None],
    ) -> None:
        self.identity = identity
        self.resync = False
        self._pipe = pipe
        self._idle_s = options.idle_s
        self._counters = counters
        self._on_end = on_end
        self._ended = False
        self._queue = SendQueue(
            options.send_queue_max, options.send_queue_bytes_max, options.announces_max
        )
        self._pace = Budget(options.frames_per_s, options.frames_burst, _now_s())
        self._writer = asyncio.create_task(self._write())

    @property
    def peer(self) -> MemberId:
        return MemberId(self.identity.name)

    @property
    def spki(self) -> bytes:
        return self.identity.spki

    @property
    def backlog_bytes(self) -> int:
        return self._queue.bytes

    def send(self, frame: Frame) -> bool:
        if self._ended:
            return False
        raw = encode_frame(frame)
        subject = about(frame) if isinstance(frame, Announce) else ""
        try:
            kept_all = self._queue.put(raw, hint=isinstance(frame, HINTS), about=subject)
        except Unavailable as error:
            self._counters["links_unread"] += 1
            self.end(error)
            return False
        if not kept_all:
            self._counters["hints_dropped"] += 1
            self.resync = True
        return kept_all

    async def frames(self) -> AsyncIterator[Frame]:
        try:
            while (raw := await self._next()) is not None:
                yield self._decode(raw)
        except (Rejected, Unavailable) as error:
            self.end(error)
            raise
        self.end(None)

    def _decode(self, raw: bytes) -> Frame:
        try:
            return decode_frame(raw)
        except Rejected as error:
            large = isinstance(error, TooLarge)
            self._counters["frames_too_large" if large else "frames_unreadable"] += 1
            raise

    async def _next(self) -> bytes | None:
        """The next message, at the pace of L12.

        Reading pauses and flow control passes that on to the sender. A link that stays at the
        limit is not closed: a daemon that catches up with years of history looks just like that.
        """
        self._pace.spend(1, _now_s())
        if (wait_s := self._pace.wait_s(_now_s())) > 0:
            self._counters["reads_paused"] += 1
            await asyncio.sleep(wait_s)
        if self._ended:
            return None
        try:
            async with asyncio.timeout(self._idle_s):
                return await self._pipe.read()
        except TimeoutError:
            self._counters["links_silent"] += 1
            raise Unavailable(f"{self.peer} was silent for {self._idle_s:g} s") from None

    async def _write(self) -> None:
        try:
            while True:
                await self._pipe.write(await self._queue.get())
        except Unavailable as error:
            self.end(error)

    def end(self, error: HanseError | None) -> None:
        """As `close`, without waiting; `error` is what the other side may be told."""
        if self._ended:
            return
        self._ended = True
        if asyncio.current_task() is not self._writer:
            self._writer.cancel()
        self._pipe.abort(error)
        self._on_end()

    async def close(self) -> None:
        self.end(None)
        await asyncio.wait([self._writer])


async def carry(accept: Accept, stream: FrameStream) -> None:
    """Serve one stream that a peer has opened; an error of ours or theirs ends just that."""
    try:
        await accept(stream)
    except (Rejected, Unavailable) as error:
        stream.end(error)
    finally:
        stream.end(None)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
