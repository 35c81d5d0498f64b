"""What a daemon needs of a network: streams of frames to members it can name.

There are two implementations, gRPC (`rpc.link`) and memory (`tests/memory_network.py`); both pass
`tests/contracts/test_transport.py`, so what the simulator proves holds for what ships.

Promises: frames arrive in order, each whole and at most once, until the stream ends; then
some that were sent last may be missing. A peer that does not read slows its own stream only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from hanse.core import limits
from hanse.core.errors import Conflict
from hanse.core.gossip.frames import Frame
from hanse.core.ids import MemberId


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How much one link may cost us. Larger values cost memory (queue) or CPU (frames)."""

    frames_per_s: float = limits.FRAMES_PER_S
    frames_burst: int = limits.FRAMES_BURST
    send_queue_max: int = limits.SEND_QUEUE_MAX
    send_queue_bytes_max: int = limits.SEND_QUEUE_BYTES_MAX
    announces_max: int = limits.ANNOUNCES_WAITING_MAX
    idle_s: float = limits.IDLE_READ_S
    open_s: float = 10.0


class PeerStream(Protocol):
    """One link, seen from one end."""

    resync: bool
    """Set when hints were dropped: send full heads next, then clear it. Owned by the driver."""

    @property
    def backlog_bytes(self) -> int:
        """What waits here because the peer does not read it."""
        ...

    @property
    def peer(self) -> MemberId:
        """Whom the certificate at the other end was pinned to."""
        ...

    @property
    def spki(self) -> bytes:
        """SHA-256 of the TLS key at the other end, for `HelloProof`."""
        ...

    def send(self, frame: Frame) -> bool:
        """Queue a frame; never waits. False if it, or the stream, is gone.

        An `Announce` replaces one of the same log that still waits.
        A full queue drops the oldest hint (`Announce`, `Heads`, `Ping`) and sets `resync`;
        without a hint to drop the peer has asked for more than it reads, and the stream ends.
        Raises `TooLarge` or `InvalidSpec` for a frame that no peer would accept.
        """
        ...

    def frames(self) -> AsyncIterator[Frame]:
        """What arrives, until the stream ends. One reader at a time.

        Raises `Rejected` if the peer sent what cannot be read and `Unavailable` if it fell
        silent or the connection broke; either way the stream has ended.
        """
        ...

    async def close(self) -> None:
        """End the stream now, both ways; what is still queued is lost. Idempotent."""
        ...


Accept = Callable[[PeerStream], Awaitable[None]]
Second = Callable[[MemberId, bytes], None]
"""A member dials that we have a link with; the bytes are the boot nonce that it gives."""


class Transport(Protocol):
    async def open_stream(self, member: MemberId) -> PeerStream:
        """Dial a member. Raises `NotPermitted`, `Conflict` (linked already), `Unavailable`."""
        ...

    def accept(self, callback: Accept, second: Second | None = None) -> None:
        """Hand every stream that a member opens to `callback`; it ends when that returns.

        A second stream of one member is refused, and `second` hears of it.
        """
        ...


class Links:
    """At most one link a peer, whoever dialled it (L11).

    When two daemons dial each other at once, the dial of the smaller id stands; without that
    rule each would refuse the other for ever.
    """

    def __init__(self, own: MemberId) -> None:
        self._own = own
        self._dialling: set[MemberId] = set()
        self._open: set[MemberId] = set()

    def dial(self, peer: MemberId) -> None:
        """Raises `Conflict` if there is a link, or a dial under way."""
        if peer in self._open or peer in self._dialling:
            raise Conflict(f"there is a link to {peer} already")
        self._dialling.add(peer)

    def dial_failed(self, peer: MemberId) -> None:
        self._dialling.discard(peer)

    def dialled(self, peer: MemberId) -> None:
        """Raises `Conflict` if the peer's own dial has won meanwhile."""
        self._dialling.discard(peer)
        if peer in self._open:
            raise Conflict(f"{peer} has opened a link meanwhile")
        self._open.add(peer)

    def accepted(self, peer: MemberId) -> None:
        """Raises `Conflict`: the second stream of a peer is refused."""
        if peer in self._open or (peer in self._dialling and self._own < peer):
            raise Conflict(f"{self._own} has a link with {peer} already", fix="use that one")
        self._open.add(peer)

    def ended(self, peer: MemberId) -> None:
        self._open.discard(peer)
