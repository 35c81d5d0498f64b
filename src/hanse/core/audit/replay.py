"""A federation's logs verified again from files alone, by whoever trusts nobody.

It begins with the bootstrap root that the auditor brought along and believes nothing else:

1. the trust chain is replayed from it;
2. each log's head is signed by its author, and cosigned as the witness policy says;
3. its events are those whose hashes stand in its tiles, every tile is folded from the one
   below, and the events give the root that was signed;
4. every event is judged by the trust version that it names, and folded as a daemon folds it.

Whatever does not stand is refused with the file and the place in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from hanse.core import events
from hanse.core.audit.paths import (
    TIMESTAMP,
    Index,
    evidence_path,
    log_path,
    parse_index,
    trust_path,
)
from hanse.core.catalog.catalog import Catalog
from hanse.core.catalog.finals import Finals
from hanse.core.errors import HanseError, InvalidProof, Rejected
from hanse.core.events import Codec
from hanse.core.ids import EventId, Origin
from hanse.core.log.checkpoint import Checkpoint, verify_cosignature
from hanse.core.log.fork import Fork, open_fork
from hanse.core.log.merkle import Frontier, leaf_hash, root_of
from hanse.core.log.note import Note, VerifierKey
from hanse.core.log.tiles import ENTRIES, WIDTH, Tile, entries_of, hashes_of, tiles_of
from hanse.core.logbook import Entry, Logbook
from hanse.core.quorum import policies, quorum, read_policy, witness_keys
from hanse.core.step import Head
from hanse.core.trust.authority import demand, signed_by
from hanse.core.trust.chain import Chain, extend, start
from hanse.core.trust.timestamp import open_stamp

Read = Callable[[str], bytes]
"""The file at a path of the auditor's door. Raises `NotFound`."""


@dataclass(frozen=True, slots=True)
class Final:
    """A head that a quorum of witnesses has cosigned."""

    head: Checkpoint
    witnesses: tuple[VerifierKey, ...]


class Judged(NamedTuple):
    """What was found out about one event. The event itself is let go: a log may be long."""

    id: EventId
    seq: int
    type: str
    at_ms: int
    trust_version: int
    role: str
    """Whose signature it needs; `daemon` where its author's own word is enough."""
    signed_by: tuple[str, ...]
    void: str
    """Why it has no effect; empty if it counts."""
    text: str
    """Of a note: what its daemon wants auditors to read."""


@dataclass(slots=True)
class LogAudit:
    """One log that stands."""

    origin: Origin
    key: bytes
    head: Checkpoint
    final: Final | None
    events: list[Judged] = field(repr=False)
    leaves: tuple[bytes, ...] = field(repr=False)


@dataclass(slots=True)
class Audit:
    """All that follows from the files; equal inputs give equal state digests."""

    chain: Chain
    catalog: Catalog
    logs: dict[Origin, LogAudit]
    forks: dict[Origin, Fork]
    """Evidence that stands, of logs that are here and of others."""
    heads_digest: bytes
    """Of all heads and the trust: two audits of equal digest had equal inputs."""
    timestamp: bytes | None = None

    @property
    def state_digest(self) -> bytes:
        return self.catalog.state_digest


def audit(read: Read, bootstrap: bytes, codec: Codec) -> Audit:
    """Verify everything that `logs` names. Raises `Rejected` naming the place that fails."""
    with at("logs"):
        index = parse_index(read("logs"))
    chain = replay_trust(read, index, bootstrap)
    book = Logbook(codec, chain)
    required = not read_policy(chain.current.witness_policy).requires_nothing
    now = chain.current
    catalog = Catalog(now.quarantine_quorum, Finals(required), now.all_floors, chain.labels_at)
    for origin in index.forked:
        with at(evidence_path(origin)):
            fork = open_fork(read(evidence_path(origin)), book.key_of)
            if fork.origin != origin:
                raise InvalidProof(f"it is evidence about {fork.origin}")
            book.forks[origin] = fork
    logs = {}
    for origin in index.logs:
        logs[origin] = _log(read, index, origin, book, catalog)
    catalog.refold()
    return Audit(chain, catalog, logs, book.forks, book.digest, _timestamp(read, index, chain))


def _timestamp(read: Read, index: Index, chain: Chain) -> bytes | None:
    """The timestamp, if there is one that its keys signed. It may have expired."""
    if not index.timestamp:
        return None
    with at(TIMESTAMP):
        return open_stamp(read(TIMESTAMP), chain.current).raw


def replay_trust(read: Read, index: Index, bootstrap: bytes) -> Chain:
    """The chain from the auditor's own root on; what the files say of themselves is no proof."""
    chain: Chain | None = None
    for path in map(trust_path, index.trust_versions):
        with at(path):
            raw = read(path)
            if chain is None and raw != bootstrap:
                raise InvalidProof(
                    "this is not the trust root that was given",
                    fix="ask where these files come from: they begin with another root",
                )
            chain = extend(chain, raw) if chain else start(raw)
    if chain is None or chain.current.federation != index.federation:
        raise InvalidProof("logs: its trust chain is missing, or of another federation")
    return chain


def _log(read: Read, index: Index, origin: Origin, book: Logbook, catalog: Catalog) -> LogAudit:
    size, final = index.logs[origin], None
    place = log_path(origin, "checkpoint")
    with at(place):
        note = read(place)
        head = _sized(book.open_head(origin, note), size)
    raws = _entries(read, origin, size)
    leaves = tuple(map(leaf_hash, raws))
    _check_tiles(read, origin, size, leaves)
    frontier = Frontier.empty().append(leaves)
    if frontier.root() != head.root:
        raise InvalidProof(f"{place}: the events do not give the root that was signed")
    with at(f"log/{origin}"):
        stored = Head(origin, size, head.root, frontier.encode(), note)
        entries = book.restore(stored, raws)
    if origin in index.final:
        with at(place := log_path(origin, "final")):
            cited = (e.event.header.trust_version for e in entries[: index.final[origin]])
            note = read(place)
            final = open_final(note, origin, book, max(cited))
            if root_of(leaves[: _sized(final.head, index.final[origin]).size]) != final.head.root:
                raise InvalidProof("the events do not give the root that was signed")
        catalog.finalise({origin: final.head.size})
        # Only now: what is final counts, also beyond a fork.
        book.settle(replace(stored, final_size=final.head.size, final_note=note), leaves)
    judged = []
    with at(f"log/{origin}"):
        for entry in map(book.judged, entries):
            catalog.add(entry)
            judged.append(judge_entry(entry, book.chain))
    return LogAudit(origin, book.key_of(origin), head, final, judged, leaves)


def open_final(note: bytes, origin: Origin, book: Logbook, trust: int) -> Final:
    """A head with a quorum of cosignatures, by the rule that daemons go by.

    `trust` is the version that its last event was written under. Raises `InvalidProof`.
    """
    head, asked = book.open_head(origin, note), policies(book.chain, trust)
    lines = cosigners(note, [key for policy in asked for key in policy.keys])
    found = quorum(asked, witness_keys(book.chain, origin.region), lines)
    if not found:
        raise InvalidProof(
            "the witnesses that cosigned it are no quorum",
            fix="export again: it may have become final since",
        )
    return Final(head, found)


def _sized(head: Checkpoint, size: int) -> Checkpoint:
    if head.size != size:
        raise InvalidProof(f"size {head.size} was signed, logs says {size}")
    return head


def _entries(read: Read, origin: Origin, size: int) -> list[bytes]:
    raws: list[bytes] = []
    for tile in tiles_of(size):
        if tile.level != ENTRIES:
            break
        with at(place := log_path(origin, tile.path)):
            raws += entries_of(tile, read(place))
    return raws


def _check_tiles(read: Read, origin: Origin, size: int, leaves: tuple[bytes, ...]) -> None:
    """Every tile there is must hold what folding the one below gives."""
    expected, level = leaves, 0
    for tile in tiles_of(size):
        if tile.level == ENTRIES:
            continue
        if tile.level != level:
            level = tile.level
            whole = range(0, len(expected) // WIDTH * WIDTH, WIDTH)
            expected = tuple(root_of(expected[i : i + WIDTH]) for i in whole)
        with at(place := log_path(origin, tile.path)):
            _compare(tile, hashes_of(tile, read(place)), expected[tile.start : tile.stop])


def _compare(tile: Tile, found: tuple[bytes, ...], expected: tuple[bytes, ...]) -> None:
    for i, (one, other) in enumerate(zip(found, expected, strict=True), tile.start):
        if one != other:
            what = f"subtree {i} of level {tile.level}" if tile.level else f"event {i}"
            raise InvalidProof(f"{what} has another hash")


def cosigners(note: bytes, keys: Iterable[VerifierKey]) -> frozenset[VerifierKey]:
    """Those of these witnesses whose cosignatures stand on this note.

    Raises `InvalidSignature` if a line claims to be one of theirs and is not.
    """
    parsed = Note.parse(note)
    named = {key for key in keys if any(line.is_by(key) for line in parsed.signatures)}
    for key in named:
        verify_cosignature(parsed, key)
    return frozenset(named)


def judge_entry(entry: Entry, chain: Chain) -> Judged:
    """Who wrote this event, in which role, and whether it counts."""
    header, members = entry.event.header, chain.at(entry.event.header.trust_version)
    role, signers, text = "daemon", frozenset({entry.origin.member}), ""
    try:
        kind = type(entry.event.body).__name__
        text = entry.event.body.text if isinstance(entry.event.body, events.Note) else ""
        asked = demand(entry.event.body, entry.origin, members) if members else None
        if asked is not None and members is not None:
            role, signers = asked.role, signed_by(entry.event, entry.origin, members)
    except Rejected:
        kind = "unreadable"
    names = tuple(sorted(map(members.name_of, signers))) if members else ()
    place = (header.seq, kind, header.hlc_ms, header.trust_version)
    return Judged(entry.id, *place, role, names, entry.void, text)


@contextmanager
def at(place: str) -> Iterator[None]:
    """Say of every refusal inside where it happened."""
    try:
        yield
    except HanseError as error:
        raise InvalidProof(f"{place}: {error.message}", fix=error.fix) from None
