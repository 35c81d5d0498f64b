"""One link as frames, over any pipe that carries bytes.

What bounds a link is decided here and not in a transport, so that the in-memory twin is no
kinder than gRPC: the send queue that drops hints first, the pace of reading, the longest
silence, and the end of the stream at the first frame that cannot be read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from hanse.core.errors import HanseError, Rejected, Unavailable
from hanse.core.gossip.frames import Announce, Fingerprints, Frame, Heads, Ping
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


class SendQueue:
    """Messages that wait for a slow peer; hints give way, answers do not."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._some = asyncio.Event()

    def put(self, raw: bytes, *, hint: bool) -> bool:
        """False if a hint was lost. Raises `Unavailable` if only answers wait here."""
        kept_all = len(self._waiting) < self._size_max
        if not kept_all:
            oldest = next((i for i, (_, droppable) in enumerate(self._waiting) if droppable), None)
            if oldest is not None:
                del self._waiting[oldest]
            elif hint:
                return False
            else:
                raise Unavailable(f"the peer does not read {self._size_max} answers to it")
        self._waiting.append((raw, hint))
        self._some.set()
        return kept_all

    async def get(self) -> bytes:
        while not self._waiting:
            self._some.clear()
            await self._some.wait()
        return self._waiting.popleft()[0]


class TokenBucket:
    """The pace at which we read: a burst, then so many a second (L12).

    Reading pauses and flow control passes that on to the sender. A link that stays at the
    limit is not closed: a daemon that catches up with years of history looks just like that.
    """

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._tokens = self._burst
        self._then_s = asyncio.get_running_loop().time()

    async def take(self) -> None:
        wait_s = self._take(asyncio.get_running_loop().time())
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _take(self, now_s: float) -> float:
        """Seconds until the token that was just taken exists; 0 if it does already."""
        grown = self._tokens + (now_s - self._then_s) * self._per_s
        self._tokens, self._then_s = min(self._burst, grown) - 1, now_s
        return max(0.0, -self._tokens / self._per_s)


HINTS = (Announce, Fingerprints, Heads, Ping)  # what the next ping makes up for


class FrameStream:
    """A `PeerStream` over a `Pipe`; `on_end` is called once, when the stream ends."""

    def __init__(
        self, identity: Peer, pipe: Pipe, options: LinkOptions, on_end: Callable[[], None]
    ) -> None:
        self.identity = identity
        self.resync = False
        self._pipe = pipe
        self._idle_s = options.idle_s
        self._on_end = on_end
        self._ended = False
        self._queue = SendQueue(options.send_queue_max)
        self._bucket = TokenBucket(options.frames_per_s, options.frames_burst)
        self._writer = asyncio.create_task(self._write())

    @property
    def peer(self) -> MemberId:
        return MemberId(self.identity.name)

    @property
    def spki(self) -> bytes:
        return self.identity.spki

    def send(self, frame: Frame) -> bool:
        if self._ended:
            return False
        raw = encode_frame(frame)
        try:
            kept_all = self._queue.put(raw, hint=isinstance(frame, HINTS))
        except Unavailable as error:
            self.end(error)
            return False
        self.resync = self.resync or not kept_all
        return kept_all

    async def frames(self) -> AsyncIterator[Frame]:
        try:
            while (raw := await self._next()) is not None:
                yield decode_frame(raw)
        except (Rejected, Unavailable) as error:
            self.end(error)
            raise
        self.end(None)

    async def _next(self) -> bytes | None:
        await self._bucket.take()
        if self._ended:
            return None
        try:
            async with asyncio.timeout(self._idle_s):
                return await self._pipe.read()
        except TimeoutError:
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
