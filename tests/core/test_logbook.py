"""A log grows only by whole suffixes that its author signed, and otherwise not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from federation import CHAIN, CODEC, ROOT, Author, Reader, key, members, origin

from hanse.core import limits
from hanse.core.errors import Broken, Conflict, InvalidProof, NotPermitted, Rejected, TooLarge
from hanse.core.events import Event, LogOpen, Note
from hanse.core.ids import INCARNATION_MAX, Origin
from hanse.core.log.checkpoint import Checkpoint, sign_checkpoint
from hanse.core.log.merkle import Frontier, leaf_hash
from hanse.core.logbook import Logbook, Stalled, header
from hanse.core.trust import chain

EU = origin("eu")


def author(count: int = 4) -> Author:
    eu = Author("eu")
    for i in range(count):
        eu.write(Note(f"note {i}"))
    return eu


def raws(eu: Author) -> tuple[bytes, ...]:
    return tuple(raw for append in eu.appends for raw in append.events)


def signed(events: tuple[bytes, ...], by: str = "eu", size: int | None = None) -> bytes:
    root = Frontier.empty().append(map(leaf_hash, events)).root()
    return sign_checkpoint(Checkpoint(str(EU), size or len(events), root), key(by))


def test_a_suffix_enters_whole() -> None:
    eu, book = author(), Logbook(CODEC, CHAIN)
    added = book.extend(EU, 0, raws(eu), eu.appends[-1].head.note)
    assert added is not None
    assert book.heads[EU] == eu.book.heads[EU]
    assert [entry.event.header.seq for entry in added[1]] == [0, 1, 2, 3]


def test_what_we_have_already_is_not_added_again() -> None:
    eu, book = author(), Logbook(CODEC, CHAIN)
    book.extend(EU, 0, raws(eu)[:2], eu.appends[1].head.note)
    added = book.extend(EU, 0, raws(eu), eu.appends[-1].head.note)
    assert added is not None
    assert (added[0].start, len(added[1])) == (2, 2)
    assert book.extend(EU, 1, raws(eu)[1:], eu.appends[-1].head.note) is None


def refuse(
    book: Logbook, kind: type[Rejected], start: int, events: tuple[bytes, ...], note: bytes
) -> None:
    before = dict(book.heads)
    with pytest.raises(kind):
        book.extend(EU, start, events, note)
    assert book.heads == before, "what was refused changes nothing"


def test_a_gap_is_refused() -> None:
    eu = author()
    refuse(Logbook(CODEC, CHAIN), Conflict, 1, raws(eu)[1:], eu.appends[-1].head.note)


def test_events_that_do_not_give_the_signed_root_are_refused() -> None:
    eu, other = author(), author()
    other.hlc_ms = 9
    other.write(Note("instead"))
    refuse(
        Logbook(CODEC, CHAIN),
        InvalidProof,
        0,
        (*raws(eu)[:3], raws(other)[-1]),
        eu.appends[-1].head.note,
    )


def test_a_suffix_that_ends_elsewhere_than_the_signed_size_is_refused() -> None:
    eu = author()
    refuse(Logbook(CODEC, CHAIN), InvalidProof, 0, raws(eu)[:3], eu.appends[-1].head.note)


def test_a_head_of_another_key_or_federation_is_refused() -> None:
    eu, book = author(), Logbook(CODEC, CHAIN)
    refuse(book, Rejected, 0, raws(eu), signed(raws(eu), by="us"))
    stranger = replace(EU, member=origin("nobody").member)
    with pytest.raises(NotPermitted):
        book.extend(stranger, 0, raws(eu), eu.appends[-1].head.note)
    foreign = replace(EU, federation="other")
    with pytest.raises(NotPermitted):
        book.extend(foreign, 0, raws(eu), eu.appends[-1].head.note)
    assert not book.knows(stranger)
    assert not book.knows(foreign)
    assert book.knows(EU)


def test_a_second_branch_never_enters() -> None:
    """The same author, the same size, another event: whoever came first stays."""
    eu, fork = author(), author(3)
    fork.write(Note("another fourth"))
    book = Logbook(CODEC, CHAIN)
    book.extend(EU, 0, raws(eu), eu.appends[-1].head.note)
    fork.write(Note("and a fifth"))
    refuse(book, InvalidProof, 4, raws(fork)[4:], fork.appends[-1].head.note)


def test_an_event_written_for_another_place_is_refused() -> None:
    head = header(EU, 7, CHAIN, bytes(32), 0)
    for wrong in (head, head._replace(seq=0, origin_hash=origin("us").hash)):
        events = (CODEC.encode(Event(wrong, Note("lost"))),)
        refuse(Logbook(CODEC, CHAIN), InvalidProof, 0, events, signed(events))


def test_unreadable_bytes_are_refused() -> None:
    refuse(Logbook(CODEC, CHAIN), Rejected, 0, (b"\xff",), signed((b"\xff",)))


def test_more_than_a_chunk_is_refused() -> None:
    events = (b"x",) * (limits.CHUNK_EVENTS_MAX + 1)
    refuse(Logbook(CODEC, CHAIN), TooLarge, 0, events, signed(events))


def test_an_author_ahead_of_our_trust_stalls_until_the_file_arrives() -> None:
    raw = chain.sign(members(version=2), (ROOT,), CHAIN)
    eu = author(2)
    eu.book.chain = chain.extend(CHAIN, raw)
    eu.write(Note("under the new trust"))
    reader = Reader()
    for append in eu.appends[:2]:
        reader.take(append)
    with pytest.raises(Stalled):
        reader.take(eu.appends[2])
    assert reader.book.stalled == {EU: "trust version 2 has not reached us"}
    assert reader.book.size(EU) == 2
    reader.book.chain = chain.extend(reader.book.chain, raw)
    reader.take(eu.appends[2])
    assert reader.book.stalled == {}
    assert reader.book.size(EU) == 3


def test_a_refused_suffix_leaves_the_authors_trust_version_as_it_was() -> None:
    raw = chain.sign(members(version=2), (ROOT,), CHAIN)
    eu = author(1)
    eu.book.chain = chain.extend(CHAIN, raw)
    later = CODEC.encode(Event(header(EU, 1, eu.book.chain, bytes(32), 0), Note("a")))
    events = (*raws(eu), later, b"\xff")
    reader = Reader()
    reader.book.chain = eu.book.chain
    refuse(reader.book, Rejected, 0, events, signed(events))
    reader.take(eu.appends[0])
    fresh = CODEC.encode(Event(header(EU, 1, CHAIN, bytes(32), 0), Note("old trust")))
    added = reader.book.extend(EU, 1, (fresh,), signed((*raws(eu), fresh)))
    assert added is not None
    assert added[1][0].void == ""


def test_a_stored_log_that_was_altered_ends_the_process() -> None:
    eu, longer = author(), author(3)
    longer.write(Note("not what was signed"))
    for events in (raws(eu)[:3], raws(longer)):
        with pytest.raises(Broken):
            Logbook(CODEC, CHAIN).restore(eu.appends[-1].head, events)


def test_a_stored_head_that_its_author_did_not_sign_ends_the_process() -> None:
    """What we would sign next must follow from what we signed, not from what a disk says."""
    eu, other = author(), author(3)
    head = replace(eu.appends[-1].head, note=other.appends[-1].head.note)
    with pytest.raises(Broken, match="signed"):
        Logbook(CODEC, CHAIN).restore(head, raws(eu))


def test_a_stored_log_is_taken_back_whole() -> None:
    eu, book = author(), Logbook(CODEC, CHAIN)
    assert len(book.restore(eu.appends[-1].head, raws(eu))) == 4
    assert book.digest == eu.book.digest


def test_the_digest_covers_logs_and_trust() -> None:
    eu, book = author(), Logbook(CODEC, CHAIN)
    empty = book.digest
    book.extend(EU, 0, raws(eu), eu.appends[-1].head.note)
    held = book.digest
    book.chain = chain.extend(CHAIN, chain.sign(members(version=2), (ROOT,), CHAIN))
    assert len({empty, held, book.digest}) == 3


def opening(log: Origin, **changes: object) -> bytes:
    body = LogOpen(log.incarnation, str(EU), 4, bytes(32))
    return CODEC.encode(Event(header(log, 0, CHAIN, bytes(32), 0), replace(body, **changes)))


def take(log: Origin, raw: bytes) -> None:
    note = sign_checkpoint(Checkpoint(str(log), 1, leaf_hash(raw)), key("eu"))
    book = Logbook(CODEC, CHAIN)
    book.extend(log, 0, (raw,), note)
    assert book.size(log) == 1


def test_a_later_incarnation_enters_if_it_names_the_one_before() -> None:
    """Whether we hold that one does not matter: a lost log may never have left its disk."""
    second = EU.next(b"\1\2\3\4")
    take(second, opening(second))
    last = replace(EU, incarnation=INCARNATION_MAX, salt="0000000a")
    again = last.next(b"\0\0\0\1")
    take(again, opening(again, prev_origin=str(last)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"prev_origin": ""},
        {"prev_origin": str(origin("us"))},
        {"prev_origin": str(EU.next(b"1234"))},
        {"incarnation": 3},
    ],
    ids=["none", "another's", "not the one before", "another number"],
)
def test_a_later_incarnation_that_does_not_follow_is_refused(wrong: dict[str, object]) -> None:
    second = EU.next(b"\1\2\3\4")
    with pytest.raises(InvalidProof):
        take(second, opening(second, **wrong))


def test_a_later_incarnation_begins_with_nothing_else() -> None:
    second = EU.next(b"\1\2\3\4")
    with pytest.raises(InvalidProof):
        take(second, CODEC.encode(Event(header(second, 0, CHAIN, bytes(32), 0), Note("first"))))


def test_a_member_may_not_open_logs_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMBER_LOGS_MAX", 2)
    book, log = Logbook(CODEC, CHAIN), EU
    book.extend(EU, 0, raws(author(1)), author(1).appends[0].head.note)
    for salt in (b"1111", b"2222"):
        log, before = log.next(salt), log
        raw = opening(log, prev_origin=str(before))
        note = sign_checkpoint(Checkpoint(str(log), 1, leaf_hash(raw)), key("eu"))
        if salt == b"2222":
            with pytest.raises(TooLarge, match="replace the member"):
                book.extend(log, 0, (raw,), note)
        else:
            book.extend(log, 0, (raw,), note)
    assert [o.incarnation for o in book.heads] == [1, 2]
