"""The proof of one event: made from any source of a log's files, judged from itself alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hanse.core.audit.paths import log_path, parse_index
from hanse.core.audit.replay import Final, Judged, Read, at, judge_entry, open_final
from hanse.core.errors import Conflict, InvalidName, InvalidProof, NotFound
from hanse.core.events import Codec
from hanse.core.ids import Origin
from hanse.core.log.checkpoint import Checkpoint
from hanse.core.log.merkle import leaf_hash
from hanse.core.log.note import Note
from hanse.core.log.proofs import inclusion_path
from hanse.core.log.tiles import ENTRIES, WIDTH, Tile, entries_of, hashes_of, subtrees, tile_at
from hanse.core.log.tlog_proof import TlogProof
from hanse.core.logbook import Entry, Logbook
from hanse.core.trust.authority import Stall, judge
from hanse.core.trust.chain import replay

_ID = re.compile(r"(?:ev_)?([0-9a-f]{12}|[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Proven:
    """An event that stands in its log; whether it also counts is another matter."""

    origin: Origin
    event: Judged
    head: Checkpoint
    final: Final | None


def find(read: Read, event: str) -> tuple[Origin, int]:
    """Which log has that event, and where. Raises `NotFound`, or `Conflict` if several have."""
    named = _ID.fullmatch(event)
    if named is None:
        raise InvalidName(f"{event[:80]!r} is not an event", fix="write ev_ and its 12 hex digits")
    found = []
    for origin, size in parse_index(read("logs")).logs.items():
        for index in range(-(-size // WIDTH)):
            tile = tile_at(0, index, size)
            hashes = hashes_of(tile, read(log_path(origin, tile.path)))
            found += [
                (origin, tile.start + i)
                for i, leaf in enumerate(hashes)
                if leaf.hex().startswith(named[1])
            ]
    if not found:
        raise NotFound(f"no log has an event {event}", fix="see the ids in hanse why")
    if len(found) > 1:
        raise Conflict(f"{len(found)} events begin with {event}", fix="give all 64 hex digits")
    return found[0]


def prove(read: Read, origin: Origin, seq: int) -> TlogProof:
    """The proof under the final head of that log, or under the latest one if it is not final.

    Nothing that `read` gives is verified here.
    """
    final = parse_index(read("logs")).final.get(origin, 0)
    note = read(log_path(origin, "final" if seq < final else "checkpoint"))
    size = Checkpoint.parse(Note.parse(note).text).size
    kept: dict[Tile, tuple[bytes, ...]] = {}

    def hashes(tile: Tile) -> tuple[bytes, ...]:
        if tile not in kept:
            kept[tile] = hashes_of(tile, read(log_path(origin, tile.path)))
        return kept[tile]

    bundle = tile_at(ENTRIES, seq // WIDTH, size)
    event = entries_of(bundle, read(log_path(origin, bundle.path)))[seq % WIDTH]
    return TlogProof(seq, inclusion_path(subtrees(size, hashes), size, seq), note, event)


def verify_proof(raw: bytes, bootstrap: bytes, files: Sequence[bytes], codec: Codec) -> Proven:
    """Judge a proof by the trust chain alone. Raises `Rejected` if it does not stand."""
    if not files or files[0] != bootstrap:
        raise InvalidProof("the trust chain does not begin with the trust root that was given")
    chain = replay(tuple(files))
    proof = TlogProof.parse(raw)
    origin = Origin.parse(proof.checkpoint.origin)
    with at("checkpoint"):
        book = Logbook(codec, chain)
        head = book.open_head(origin, proof.note)
    proof.verify(head)
    with at("event"):
        event = codec.decode(proof.event)
        if (event.header.seq, event.header.origin_hash) != (proof.index, origin.hash):
            raise InvalidProof("it was written for another place")
    verdict = judge(event, origin, 0, chain)
    if isinstance(verdict, Stall):
        raise InvalidProof(
            f"the event cannot be judged: {verdict.reason}", fix="give the newer trust chain"
        )
    entry = Entry(leaf_hash(proof.event), origin, event, verdict.reason if verdict else "")
    return Proven(
        origin,
        judge_entry(entry, chain),
        head,
        _final(proof, origin, book, event.header.trust_version),
    )


def _final(proof: TlogProof, origin: Origin, book: Logbook, trust: int) -> Final | None:
    try:
        return open_final(proof.note, origin, book, trust)
    except InvalidProof:
        return None  # not yet: a fact about the event, and no fault of the proof
