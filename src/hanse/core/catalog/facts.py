"""The facts about one model: what its events say, with nothing concluded from them yet.

Adding facts is a set union: order, repetition and batching do not matter, because each
record is keyed by its event id and, of the reports that replace one another, the author's
own latest one stays. Memory therefore follows the decisions that are still of interest and
not the length of history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from hanse.core.events import Body, Event, RolloutReport
from hanse.core.ids import EventId, Origin

B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class Record:
    """One valid event. `key` orders records the same way on every daemon."""

    id: EventId
    origin: Origin
    event: Event

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        log = self.origin
        return (log.region, log.member, log.incarnation, log.salt, self.event.header.seq)


@dataclass(slots=True)
class ModelFacts:
    """Owned by the catalog; everybody else reads views."""

    records: dict[EventId, Record] = field(default_factory=dict)
    _latest: dict[tuple[object, ...], EventId] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        slot = _slot(record)
        if slot is not None:
            older = self.records.get(self._latest.get(slot, record.id))
            if older is not None and older.key > record.key:
                return
            if older is not None:
                self.records.pop(older.id, None)
            self._latest[slot] = record.id
        self.records[record.id] = record

    def remove(self, origin: Origin) -> bool:
        """Forget the records of one log; whether there were any."""
        gone = [id_ for id_, record in self.records.items() if record.origin == origin]
        for id_ in gone:
            del self.records[id_]
        for slot in [slot for slot in self._latest if slot[0] == origin]:
            del self._latest[slot]
        return bool(gone)

    def of(self, kind: type[B]) -> Iterator[tuple[Record, B]]:
        """Records of one kind in the order that all daemons share."""
        found = [r for r in self.records.values() if isinstance(r.event.body, kind)]
        for record in sorted(found, key=lambda r: r.key):
            body = record.event.body
            assert isinstance(body, kind)
            yield record, body


def _slot(record: Record) -> tuple[object, ...] | None:
    """A report replaces the author's earlier one of the same state and step; nothing else does.

    So every place that a region has been in stays known, and going to and fro costs nothing.
    """
    body = record.event.body
    if isinstance(body, RolloutReport):
        return (record.origin, body.rollout, body.generation, body.region, body.state, body.step)
    return None
