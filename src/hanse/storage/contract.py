"""What every event store promises, and the refusals that all of them share.

Facts (events, heads, trust) are only ever appended; views are derived and may be dropped.
`apply` is one transaction: when it returns, everything in it is durable; when it raises,
nothing of it is there. `tests/contracts/test_event_store.py` holds every store to this page.

Serving in chunks: each `AppendEvents` leaves its note in the `checkpoint` table. A peer that
has `start` events is sent `events(...)` cut at the size of
`checkpoint_at_or_before(origin, start, start + len(events))`. There always is one: no append is
larger than a chunk, so the end of the append that holds `start` is within reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

from hanse.core.errors import Broken
from hanse.core.ids import Origin
from hanse.core.step import AppendEvents, DropTrust, Head, PutTrust, PutWitness, TruncateLog, Write


class Tail(NamedTuple):
    """Where a log ends: what the next append must continue."""

    size: int
    root: bytes


EMPTY = Tail(0, b"")


class EventStore(Protocol):
    """Stores what a `Step` asks for. One writer; any number of concurrent readers.

    Every method raises `Broken` when the disk or the database fails, and from then on for
    every call: after a failed write nobody knows what is stored until the process restarts.
    """

    async def apply(self, writes: Sequence[Write]) -> None:
        """All of it, durably, or nothing. Not interrupted by cancelling the caller.

        Raises `Broken`, with nothing changed, for a gap, for a seq that is already stored
        (whether its leaf is the same or another: the caller filters), a trust version
        that is not the next one, or a witnessed head that contradicts the one before it.
        """

    async def heads(self) -> list[Head]:
        """Every log that is stored, in the order of the origin's text."""

    async def head(self, origin: Origin) -> Head | None:
        """One of them."""

    async def witnessed(self) -> dict[str, tuple[int, bytes]]:
        """Size and root of the largest head of each log that this daemon has cosigned."""

    async def events(self, origin: Origin, start: int, limit: int, bytes_max: int) -> list[bytes]:
        """Events from seq `start` on: at most `limit`, together at most `bytes_max` bytes.

        Empty at the end of the log and for an unknown origin. A `bytes_max` of at least
        `EVENT_BYTES_MAX` never comes back empty while there are more.
        """

    async def checkpoint_at_or_before(self, origin: Origin, start: int, end: int) -> bytes | None:
        """The stored note with the largest size in `(start, end]`."""

    async def trust(self) -> list[bytes]:
        """Every trust file, version 1 first."""

    async def local(self, space: str) -> dict[str, bytes]:
        """The latest values of one space, sorted by key."""

    async def view(self, model: str) -> tuple[bytes, bytes] | None:
        """Digest and document of one model's folded state."""

    async def views(self) -> dict[str, bytes]:
        """The digest of each stored view, sorted by model."""

    async def drop_views(self) -> None:
        """Forget all that is derived: views and the lineage index. Facts stay."""

    async def releases(self, model: str) -> list[tuple[str, str]]:
        """(version, release) pairs of one model, sorted; two may claim the same version."""

    async def ancestors(self, release: str) -> list[str]:
        """Everything the release descends from, sorted, without itself."""

    async def close(self) -> None:
        """Wait for the write that is under way, then let go of the folder."""


def within(raws: Sequence[bytes], bytes_max: int) -> list[bytes]:
    """The first of these that together have at most so many bytes."""
    ends = accumulate(map(len, raws))
    return [raw for raw, end in zip(raws, ends, strict=True) if end <= bytes_max]


def check_writes(
    writes: Sequence[Write],
    tail: Callable[[Origin], Tail],
    trust_version: int,
    witnessed: Mapping[str, tuple[int, bytes]],
) -> int:
    """Refuse what no store may take, before any of it is written. Raises `Broken`.

    Returns the trust version that stands after them.
    """
    tails: dict[Origin, Tail] = {}
    vouched = dict(witnessed)
    for write in writes:
        match write:
            case AppendEvents(head=head):
                _check_append(write, tails.get(head.origin) or tail(head.origin))
                tails[head.origin] = Tail(head.size, head.root)
            case TruncateLog(head=head):
                tails[head.origin] = Tail(head.size, head.root) if head.size else EMPTY
            case PutTrust(version=version):
                if version != trust_version + 1:
                    raise Broken(f"trust version {version} does not follow {trust_version}")
                trust_version = version
            case DropTrust(after=after):
                if not 1 <= after < trust_version:
                    raise Broken(f"trust of {trust_version} versions has none above {after}")
                trust_version = after
            case PutWitness(origin=name, size=size, root=root):
                before = vouched.get(name, (0, root))
                if size < before[0] or (size == before[0] and root != before[1]):
                    raise Broken(f"{name}: a head of {size} contradicts that of {before[0]}")
                vouched[name] = (size, root)
    return trust_version


def _check_append(write: AppendEvents, tail: Tail) -> None:
    origin = write.head.origin
    if write.start > tail.size:
        raise Broken(f"{origin}: seq {write.start} leaves a gap after {tail.size} events")
    if write.start < tail.size:
        raise Broken(f"{origin}: seq {write.start} is already stored, the log has {tail.size}")
    if not write.events and tail is not EMPTY and write.head.root != tail.root:
        raise Broken(f"{origin}: another root at size {tail.size}")
