"""A stored log for others: suffixes cut where its author signed, and what a fork is weighed by."""

from __future__ import annotations

from hanse.core import limits
from hanse.core.effects import Compare
from hanse.core.errors import Broken
from hanse.core.gossip.frames import Chunk
from hanse.core.ids import Origin
from hanse.core.log.checkpoint import Checkpoint
from hanse.core.log.fork import Outcome, compare
from hanse.core.log.merkle import leaf_hash
from hanse.core.log.note import Note
from hanse.storage.contract import EventStore


async def weigh(store: EventStore, asked: Compare, key: bytes) -> Outcome:
    """Compare what a peer sent with the log that is stored (`log.fork.compare`)."""
    head = await store.head(asked.origin)
    if head is None:
        return None
    leaves = tuple(map(leaf_hash, await whole(store, asked.origin, head.size)))
    ours, theirs = (head.note, leaves), (asked.note, asked.events)
    return compare(asked.origin, key, ours, theirs, asked.start)


async def whole(store: EventStore, origin: Origin, size: int | None = None) -> list[bytes]:
    """Every event of a stored log, or the first `size`."""
    if size is None:
        head = await store.head(origin)
        size = head.size if head else 0
    events: list[bytes] = []
    while len(events) < size:
        left = min(size - len(events), limits.CHUNK_EVENTS_MAX)
        batch = await store.events(origin, len(events), left, limits.CHUNK_BYTES_MAX)
        if not batch:
            raise Broken(
                f"the stored log {origin} ends at {len(events)}, its head says {size}",
                fix="treat the disk as lost: docs/operating.md, Backup and restore",
            )
        events += batch
    return events


async def chunk_from(store: EventStore, origin: Origin, start: int, end: int) -> Chunk | None:
    """The events from `start` on, up to `end`, that fit into one chunk; None if there are none.

    A chunk that ends where the log is final brings the proof of that along.
    """
    events = await store.events(origin, start, limits.CHUNK_EVENTS_MAX, limits.CHUNK_BYTES_MAX)
    end = min(start + len(events), end)
    note = await store.checkpoint_at_or_before(origin, start, end)
    if note is None:
        return None
    size = Checkpoint.parse(Note.parse(note).text).size
    return Chunk(origin, start, tuple(events[: size - start]), note)
