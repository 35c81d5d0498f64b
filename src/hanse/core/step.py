"""What the core asks the outside to do: store first, then send, then the rest.

The rule: **nothing is sent before it is stored.** The core never writes or sends; it returns a
`Step`. The driver applies `store` in one durable transaction and only then looks at `send` and
`effects`. A store that fails ends the process, so what a peer has seen is always on disk.

Whoever builds one of these values has verified what is in it: a value that cannot be right is
our own mistake and raises `Broken`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hanse.core import limits
from hanse.core.effects import Effect, Send
from hanse.core.errors import Broken
from hanse.core.ids import Origin

FRONTIER_BYTES_MAX = 8 + 64 * 32


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a log ends for good: at a fork that is proven, or at a cut of the trust file.

    Events from `void_from` on count nowhere. The first `held` have the RFC 6962 root `root`: so
    much of it all daemons must have alike. `fork` is the index of the fork, and one; 0: a cut.
    """

    void_from: int
    held: int
    root: bytes
    fork: int


@dataclass(frozen=True, slots=True)
class Head:
    """How far one log is stored here: enough to extend it without reading its events.

    `size` events have the RFC 6962 root `root`; `frontier` is an encoded `merkle.Frontier`;
    `note` is the signed note that says so. Of them the first `final_size` are final: as far as
    `final_note` carries the cosignatures of a quorum of witnesses.
    """

    origin: Origin
    size: int
    root: bytes
    frontier: bytes
    note: bytes
    final_size: int = 0
    final_note: bytes = b""
    stop: Stop | None = field(default=None, compare=False)
    """Follows from evidence and trust, and is not stored."""

    def __post_init__(self) -> None:
        _require(0 <= self.final_size <= self.size, "a log is final no further than it is held")
        _require(len(self.root) == 32, "a root has 32 bytes")
        _require(len(self.frontier) <= FRONTIER_BYTES_MAX, "a frontier is too long")
        _require(
            max(len(self.note), len(self.final_note)) <= limits.NOTE_BYTES_MAX, "a note is too long"
        )


@dataclass(frozen=True, slots=True)
class AppendEvents:
    """Events `start .. start + len(events) - 1` of one log, after which its head is `head`.

    No larger than one chunk (`CHUNK_EVENTS_MAX`, `CHUNK_BYTES_MAX`): the store keeps one
    checkpoint for each append, and only so can every suffix be served in chunks that end at a
    signed size. With no events it replaces the note, say by one with more cosignatures, and says
    how far the log is final now.
    """

    head: Head
    start: int
    events: tuple[bytes, ...]

    def __post_init__(self) -> None:
        count = len(self.events)
        _require(
            self.start >= 0 and self.head.size == self.start + count,
            f"{count} events from {self.start} do not end at size {self.head.size}",
        )
        _require(count <= limits.CHUNK_EVENTS_MAX, f"{count} events are more than one chunk")
        _require(
            sum(map(len, self.events)) <= limits.CHUNK_BYTES_MAX, "the events exceed one chunk"
        )


@dataclass(frozen=True, slots=True)
class TruncateLog:
    """Forget the events beyond `head`: another branch of this log is the one that counts."""

    head: Head


@dataclass(frozen=True, slots=True)
class PutTrust:
    """The next trust version, exactly one above the last; the first is 1. Kept for ever."""

    version: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class PutWitness:
    """The largest head of a log that this daemon has cosigned. It never shrinks or changes.

    Stored before the cosignature leaves, so that no crash makes a witness contradict itself.
    """

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class DropTrust:
    """The root chose others in place of the versions above `after`; they follow."""

    after: int


@dataclass(frozen=True, slots=True)
class PutView:
    """The folded state of one model; derived, so it can be dropped and rebuilt."""

    model: str
    digest: bytes
    document: bytes


@dataclass(frozen=True, slots=True)
class PutIndex:
    """One release in the lineage index; derived. Parents need not be known here yet."""

    release: str
    model: str
    version: str
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PutLocal:
    """The latest value of something that is this daemon's own; `None` deletes it."""

    space: str
    key: str
    value: bytes | None


Write = (
    AppendEvents | TruncateLog | PutTrust | DropTrust | PutWitness | PutView | PutIndex | PutLocal
)


@dataclass(frozen=True, slots=True)
class Step:
    """Store, then send, then effects; the order of the fields is the order of the deeds.

    All of `store` is one transaction. Nothing in `send` leaves before `store` is durable, and
    nothing in `effects` (timers, fetches, metrics) starts before that either. Adding two steps
    keeps the promise: both stores become one transaction ahead of everything that is sent.
    """

    store: tuple[Write, ...] = ()
    send: tuple[Send, ...] = ()
    effects: tuple[Effect, ...] = ()

    def __add__(self, other: Step) -> Step:
        return Step(self.store + other.store, self.send + other.send, self.effects + other.effects)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise, fix="this is a defect in Hanse: report it with the log")
