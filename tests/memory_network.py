"""The transport's twin in memory, for tests and measurements.

It is no kinder than the network: a window of bytes fills up and makes the sender wait, a
close loses what was under way, and a cut is silent: nothing arrives any more, not even the
news of a close, while the sender goes on writing until the window is full (half-open).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from weakref import WeakSet

from hanse.core import limits
from hanse.core.counters import zeros
from hanse.core.errors import Conflict, HanseError, Unavailable
from hanse.core.ids import MemberId
from hanse.rpc.stream import FrameStream, carry
from hanse.rpc.tls import Peer
from hanse.rpc.transport import Accept, LinkOptions, Links, Second

WINDOW_BYTES = 4 * limits.FRAME_BYTES_MAX


class MemoryNetwork:
    """Who can reach whom. Owns the cuts."""

    def __init__(self) -> None:
        self._daemons: dict[MemberId, MemoryTransport] = {}
        self._cut: set[tuple[MemberId, MemberId]] = set()
        self._wires: WeakSet[_Wire] = WeakSet()
        self._mended = asyncio.Event()

    def join(
        self,
        identity: Peer,
        *,
        admit: Callable[[Peer], object] = lambda peer: None,
        options: LinkOptions | None = None,
        boot_nonce: bytes = b"",
    ) -> MemoryTransport:
        """A daemon by this identity. `admit` raises `NotPermitted` for whom it refuses."""
        joined = MemoryTransport(self, identity, admit, options or LinkOptions(), boot_nonce)
        self._daemons[joined.own] = joined
        return joined

    def daemon(self, member: MemberId) -> MemoryTransport | None:
        return self._daemons.get(member)

    def cut(self, source: MemberId, target: MemberId) -> None:
        """Nothing passes from `source` to `target` any more; the other way is untouched."""
        self._cut.add((source, target))

    def mend(self, source: MemberId, target: MemberId) -> None:
        """What waited arrives now, as TCP would send it again."""
        self._cut.discard((source, target))
        self._mended.set()
        for wire in self._wires:
            wire.changed.set()

    def is_cut(self, source: MemberId, target: MemberId) -> bool:
        return (source, target) in self._cut

    async def reachable(self, one: MemberId, other: MemberId) -> None:
        """Returns when both directions are whole."""
        while self.is_cut(one, other) or self.is_cut(other, one):
            self._mended.clear()
            await self._mended.wait()

    def wire(self, source: MemberId, target: MemberId) -> _Wire:
        wire = _Wire(self, source, target)
        self._wires.add(wire)
        return wire


class _Wire:
    """One direction of one stream."""

    def __init__(self, network: MemoryNetwork, source: MemberId, target: MemberId) -> None:
        self.changed = asyncio.Event()
        self._network = network
        self._source = source
        self._target = target
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._writer_left = False
        self._reader_left = False

    async def put(self, raw: bytes) -> None:
        while not self._refused() and not self._has_room(len(raw)):
            await self._change()
        if self._refused():
            raise Unavailable(f"{self._target} has closed the stream")
        self._waiting.append(raw)
        self._waiting_bytes += len(raw)
        self.changed.set()

    async def get(self) -> bytes | None:
        while not self._reader_left:
            if not self._network.is_cut(self._source, self._target):
                if self._writer_left:
                    return None
                if self._waiting:
                    return self._take()
            await self._change()
        return None

    def leave(self, *, reader: bool) -> None:
        self._reader_left |= reader
        self._writer_left |= not reader
        self.changed.set()

    def _refused(self) -> bool:
        # The news that the reader left travels the other way, and a cut stops it too.
        return self._reader_left and not self._network.is_cut(self._target, self._source)

    def _has_room(self, size: int) -> bool:
        return not self._waiting or self._waiting_bytes + size <= WINDOW_BYTES

    def _take(self) -> bytes:
        raw = self._waiting.popleft()
        self._waiting_bytes -= len(raw)
        self.changed.set()
        return raw

    async def _change(self) -> None:
        self.changed.clear()
        await self.changed.wait()


class MemoryPipe:
    """One end of two wires."""

    def __init__(self, outward: _Wire, inward: _Wire) -> None:
        self._outward = outward
        self._inward = inward

    async def read(self) -> bytes | None:
        return await self._inward.get()

    async def write(self, raw: bytes) -> None:
        await self._outward.put(raw)

    def abort(self, error: HanseError | None) -> None:
        self._outward.leave(reader=False)
        self._inward.leave(reader=True)


class MemoryTransport:
    """`rpc.transport.Transport` within one process."""

    def __init__(
        self,
        network: MemoryNetwork,
        identity: Peer,
        admit: Callable[[Peer], object],
        options: LinkOptions,
        boot_nonce: bytes,
    ) -> None:
        self.own = MemberId(identity.name)
        self.boot_nonce = boot_nonce
        self._second: Second | None = None
        self._network = network
        self._identity = identity
        self._admit = admit
        self._options = options
        self._counters = zeros()
        self._links = Links(self.own)
        self._accept: Accept | None = None
        self._carried: set[asyncio.Task[None]] = set()

    def accept(self, callback: Accept, second: Second | None = None) -> None:
        self._accept, self._second = callback, second

    async def open_stream(self, member: MemberId) -> FrameStream:
        self._links.dial(member)
        try:
            remote = await self._reach(member)
            out, back = (
                self._network.wire(self.own, member),
                self._network.wire(member, self.own),
            )
            remote.opened(self._identity, MemoryPipe(back, out), self.boot_nonce)
        finally:
            self._links.dial_failed(member)
        self._links.dialled(member)
        return self._stream(remote._identity, MemoryPipe(out, back))

    def opened(self, caller: Peer, pipe: MemoryPipe, boot_nonce: bytes) -> None:
        """A stream that `caller` has opened. Raises `NotPermitted`, `Conflict`, `Unavailable`."""
        self._admit(caller)
        if self._accept is None:
            raise Unavailable(f"{self.own} does not listen")
        try:
            self._links.accepted(MemberId(caller.name))
        except Conflict:
            if self._second is not None:
                self._second(MemberId(caller.name), boot_nonce)
            raise
        task = asyncio.create_task(carry(self._accept, self._stream(caller, pipe)))
        self._carried.add(task)
        task.add_done_callback(self._carried.discard)

    async def _reach(self, member: MemberId) -> MemoryTransport:
        try:
            async with asyncio.timeout(self._options.open_s):
                await self._network.reachable(self.own, member)
        except TimeoutError:
            raise Unavailable(f"{member} does not answer") from None
        remote = self._network.daemon(member)
        if remote is None:
            raise Unavailable(f"{member} does not listen")
        return remote

    def _stream(self, peer: Peer, pipe: MemoryPipe) -> FrameStream:
        name = MemberId(peer.name)
        return FrameStream(
            peer, pipe, self._options, self._counters, lambda: self._links.ended(name)
        )
