"""A suffix of a stored log, cut where its author signed: what peers and bundles are given."""

from __future__ import annotations

from hanse.core import limits
from hanse.core.gossip.frames import Chunk
from hanse.core.ids import Origin
from hanse.core.log.checkpoint import Checkpoint
from hanse.core.log.note import Note
from hanse.storage.contract import EventStore


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
