"""Which release ran where, from when to when, who published it and who approved it.

Read from the events that count. Times are the authors' own clocks: good for reading, decided
by nobody. What counts, and what replaced what, is decided by the fold alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hanse.core.catalog.catalog import Catalog
from hanse.core.catalog.facts import Record
from hanse.core.catalog.fold import replaces
from hanse.core.events import Promote, RolloutIntent
from hanse.core.ids import Digest, EventId, Segment
from hanse.core.trust.authority import signed_by
from hanse.core.trust.chain import Chain


@dataclass(frozen=True, slots=True)
class Run:
    """One activation that counts. `until_ms` is None while nothing has replaced it."""

    model: Segment
    region: Segment
    release: Digest
    version: str
    cause: str  # promote | rollback
    event: EventId
    author: str
    since_ms: int
    until_ms: int | None
    standing: bool
    rollout: str
    published_by: tuple[str, ...]
    approved_by: tuple[str, ...]


def runs(catalog: Catalog, chain: Chain, model: Segment) -> Iterator[Run]:
    """By region, then by the author's clock."""
    view, moves = catalog.views[model], catalog.activations(model)
    records = {record.id: record for record in catalog.records(model)}
    standing = {activation.id for activation in view.heads}
    ended: dict[EventId, int] = {}
    for record, _ in moves.values():
        for old in replaces(record):
            at_ms = record.event.header.hlc_ms
            ended[old] = min(at_ms, ended.get(old, at_ms))
    for record, move in sorted(
        moves.values(), key=lambda m: (m[1].region, m[0].event.header.hlc_ms, m[0].key)
    ):
        release = view.release(move.release)
        yield Run(
            model,
            move.region,
            move.release,
            release.version if release else "",
            move.cause,
            record.id,
            str(record.origin),
            record.event.header.hlc_ms,
            ended.get(record.id),
            record.id in standing,
            _rollout(record),
            people(records[release.recorded], chain) if release else (),
            _approvers(record, list(records.values()), chain),
        )


def people(record: Record, chain: Chain) -> tuple[str, ...]:
    """Names of those whose demanded signature the event carries."""
    members = chain.at(record.event.header.trust_version)
    if members is None:
        return ()
    found = signed_by(record.event, record.origin, members)
    return tuple(sorted(members.name_of(member) for member in found))


def _rollout(record: Record) -> str:
    body = record.event.body
    return body.rollout if isinstance(body, Promote) else ""


def _approvers(record: Record, records: list[Record], chain: Chain) -> tuple[str, ...]:
    """Whoever signed the plan under which it was promoted; a region rolls back by itself."""
    body = record.event.body
    if not isinstance(body, Promote):
        return ()
    named = (body.rollout, body.generation, body.release)
    signed: set[str] = set()
    for plan in records:
        said = plan.event.body
        if (
            isinstance(said, RolloutIntent)
            and (said.rollout, said.generation, said.release) == named
        ):
            signed.update(people(plan, chain))
    return tuple(sorted(signed))
