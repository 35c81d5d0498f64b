"""One suite for every event store: what the simulation proves on memory holds on SQLite."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from power.disk import Disk
from power.sqlite import Machine

from hanse.core.errors import Broken
from hanse.core.ids import Origin
from hanse.core.step import (
    AppendEvents,
    DropTrust,
    Head,
    PutIndex,
    PutLocal,
    PutTrust,
    PutView,
    PutWitness,
    Step,
    TruncateLog,
    Write,
)
from hanse.storage.contract import EventStore
from hanse.storage.memory import MemoryEventStore
from hanse.storage.sqlite import SqliteEventStore

OURS = Origin.parse(f"harbour.example/north/{'a' * 32}/i2-0badcafe")
LATER = Origin.parse(f"harbour.example/north/{'a' * 32}/i10-0badcafe")
THEIRS = Origin.parse(f"harbour.example/south/{'b' * 32}/i1")

Reopen = Callable[[EventStore], Awaitable[EventStore]]


class Kind(NamedTuple):
    """One implementation: how it is made, and how the next process finds it."""

    make: Callable[[], Awaitable[EventStore]]
    reopen: Reopen


def sqlite(folder: Path) -> Kind:
    async def reopen(store: EventStore) -> EventStore:
        await store.close()
        return await SqliteEventStore.open(folder)

    return Kind(lambda: SqliteEventStore.open(folder), reopen)


def sqlite_after_a_power_cut(folder: Path) -> Kind:
    """The SQLite that APSW brings, on a disk that loses what was not synced."""
    rng, disk = Random(1), Disk()

    async def reopen(store: EventStore) -> EventStore:
        disk.cut()
        await store.close()
        return await Machine(disk.after_cut(rng), folder, rng).open()

    return Kind(lambda: Machine(disk, folder, rng).open(), reopen)


def memory(_: Path) -> Kind:
    async def make() -> EventStore:
        return MemoryEventStore()

    async def reopen(store: EventStore) -> EventStore:
        assert isinstance(store, MemoryEventStore)
        return store.crash()

    return Kind(make, reopen)


@pytest.fixture(params=[sqlite, sqlite_after_a_power_cut, memory])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    made: Kind = request.param(tmp_path)
    return made


@pytest.fixture
async def reopen(kind: Kind) -> AsyncIterator[Reopen]:
    opened: list[EventStore] = []

    async def noted(store: EventStore) -> EventStore:
        opened.append(await kind.reopen(store))
        return opened[-1]

    yield noted
    for store in opened:
        await store.close()


@pytest.fixture
async def store(kind: Kind) -> AsyncIterator[EventStore]:
    made = await kind.make()
    yield made
    await made.close()


def event(seq: int, size: int = 40) -> bytes:
    return f"event {seq} ".encode().ljust(size, b".")


def append(
    start: int, count: int, origin: Origin = OURS, mark: str = "", size: int = 40
) -> AppendEvents:
    events = tuple(event(seq, size) + mark.encode() for seq in range(start, start + count))
    end = start + count
    root = hashlib.sha256(f"root {end}{mark}".encode()).digest()
    head = Head(origin, end, root, bytes(32 * end.bit_count()), f"note {end}{mark}".encode())
    return AppendEvents(head, start, events)


async def everything(store: EventStore) -> tuple[object, ...]:
    return (
        await store.heads(),
        [await store.events(head.origin, 0, 1000, 2**30) for head in await store.heads()],
        await store.trust(),
        await store.witnessed(),
        await store.local("clock"),
        await store.view("ocr"),
        await store.views(),
        await store.releases("ocr"),
        await store.ancestors("r3"),
    )


async def test_a_new_store_is_empty(store: EventStore) -> None:
    assert await everything(store) == ([], [], [], {}, {}, None, {}, [], [])
    assert await store.events(OURS, 0, 10, 10**6) == []
    assert await store.checkpoint_at_or_before(OURS, 0, 10) is None


async def test_events_come_back_as_the_bytes_they_were(store: EventStore) -> None:
    await store.apply([append(0, 3)])
    await store.apply([append(3, 2)])
    assert await store.events(OURS, 1, 3, 10**6) == [event(1), event(2), event(3)]
    assert await store.events(OURS, 4, 100, 10**6) == [event(4)]
    assert [await store.head(OURS)] == await store.heads()
    assert await store.head(THEIRS) is None
    assert await store.events(OURS, 5, 100, 10**6) == []
    assert await store.events(OURS, 2**64, 100, 10**6) == []
    assert await store.events(THEIRS, 0, 100, 10**6) == []


async def test_an_answer_never_exceeds_its_bytes(store: EventStore) -> None:
    await store.apply([append(0, 5)])
    assert await store.events(OURS, 0, 100, 3 * 40) == [event(0), event(1), event(2)]
    assert await store.events(OURS, 0, 100, 3 * 40 - 1) == [event(0), event(1)]
    assert await store.events(OURS, 0, 0, 10**6) == []


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(append(4, 1), id="gap"),
        pytest.param(append(2, 1), id="duplicate"),
        pytest.param(append(1, 4), id="overlap"),
        pytest.param(append(2, 1, mark="forged"), id="other leaf at a seq"),
        pytest.param(append(1, 1, THEIRS), id="gap at the start of a log"),
        pytest.param(append(3, 0, mark="forged"), id="other root at a size"),
    ],
)
async def test_a_log_only_grows_at_its_end(store: EventStore, wrong: Write) -> None:
    await store.apply([append(0, 3)])
    before = await everything(store)
    with pytest.raises(Broken):
        await store.apply([wrong])
    assert await everything(store) == before
    await store.apply([append(3, 1)])


async def test_a_refused_write_in_the_middle_undoes_the_step(store: EventStore) -> None:
    await store.apply([append(0, 1), PutTrust(1, b"one"), PutLocal("clock", "hlc", b"1")])
    before = await everything(store)
    with pytest.raises(Broken):
        await store.apply(
            [
                PutLocal("clock", "hlc", b"2"),
                append(1, 2),
                append(0, 2, THEIRS),
                PutView("ocr", bytes(32), b"{}"),
                append(9, 1),
                PutTrust(2, b"two"),
            ]
        )
    assert await everything(store) == before


async def test_one_step_may_extend_a_log_twice(store: EventStore) -> None:
    await store.apply([append(0, 2), append(2, 2), append(0, 1, THEIRS)])
    assert [(head.origin, head.size) for head in await store.heads()] == [(OURS, 4), (THEIRS, 1)]


async def test_heads_frontiers_and_checkpoints_survive_reopening(
    store: EventStore, reopen: Reopen
) -> None:
    appends = [append(0, 3), append(3, 4), append(0, 2, THEIRS)]
    for write in appends:
        await store.apply([write])
    again = await reopen(store)
    try:
        assert await again.heads() == [appends[1].head, appends[2].head]
        assert await again.checkpoint_at_or_before(OURS, 0, 6) == b"note 3"
        with pytest.raises(Broken):
            await again.apply([append(6, 1)])
        await again.apply([append(7, 1), append(0, 1, LATER)])
        assert [head.size for head in await again.heads()] == [1, 8, 2]
    finally:
        await again.close()


async def test_every_suffix_is_served_up_to_a_signed_size(store: EventStore) -> None:
    for start, count in ((0, 3), (3, 1), (4, 200), (204, 56)):
        await store.apply([append(start, count, size=900)])
    signed = {f"note {size}".encode(): size for size in (3, 4, 204, 260)}
    for have in range(260):
        run = await store.events(OURS, have, 256, 240 * 1024)
        note = await store.checkpoint_at_or_before(OURS, have, have + len(run))
        assert note is not None
        assert have < signed[note] <= have + len(run)
    assert await store.checkpoint_at_or_before(OURS, 260, 2**64) is None
    assert await store.checkpoint_at_or_before(OURS, 4, 203) is None
    assert await store.checkpoint_at_or_before(OURS, 0, 2**64) == b"note 260"


async def test_more_cosignatures_replace_a_note_at_its_size(store: EventStore) -> None:
    first = append(0, 2)
    await store.apply([first])
    cosigned = Head(OURS, 2, first.head.root, first.head.frontier, b"note 2 cosigned")
    await store.apply([AppendEvents(cosigned, 2, ())])
    assert await store.heads() == [cosigned]
    assert await store.checkpoint_at_or_before(OURS, 0, 2) == b"note 2 cosigned"
    await store.apply([append(2, 1)])
    assert await store.checkpoint_at_or_before(OURS, 0, 2) == b"note 2 cosigned"


async def test_how_far_a_log_is_final_is_kept_and_served_with_its_note(
    store: EventStore, reopen: Reopen
) -> None:
    await store.apply([append(0, 2)])
    head = append(2, 1).head
    final = replace(head, final_size=2, final_note=b"note 2 by a quorum")
    await store.apply([append(2, 1), AppendEvents(final, 3, ())])
    assert await store.checkpoint_at_or_before(OURS, 0, 2) == b"note 2 by a quorum"
    assert await store.checkpoint_at_or_before(OURS, 0, 3) == b"note 3"
    assert await (await reopen(store)).heads() == [final]


async def test_a_branch_that_does_not_count_is_forgotten(store: EventStore, reopen: Reopen) -> None:
    await store.apply([append(0, 2), append(2, 3), append(0, 1, THEIRS)])
    await store.apply([TruncateLog(append(0, 2).head), append(2, 2, mark=" again")])
    store = await reopen(store)
    kept = [event(0), event(1), event(2) + b" again", event(3) + b" again"]
    assert await store.events(OURS, 0, 100, 2**20) == kept
    assert await store.checkpoint_at_or_before(OURS, 2, 5) == b"note 4 again"


async def test_a_log_of_which_nothing_counts_may_begin_again(
    store: EventStore, reopen: Reopen
) -> None:
    await store.apply([append(0, 2), append(0, 1, THEIRS)])
    await store.apply([TruncateLog(Head(OURS, 0, bytes(32), b"", b""))])
    store = await reopen(store)
    assert [head.origin for head in await store.heads()] == [THEIRS]
    assert await store.head(OURS) is None
    await store.apply([append(0, 1)])
    assert await store.events(OURS, 0, 100, 2**20) == [event(0)]


async def test_a_witness_never_contradicts_itself(store: EventStore, reopen: Reopen) -> None:
    seen = PutWitness(str(OURS), 5, bytes(32))
    await store.apply([seen])
    for wrong in (replace(seen, size=4), replace(seen, root=b"x" * 32)):
        with pytest.raises(Broken):
            await store.apply([append(0, 1), wrong])
    with pytest.raises(Broken):
        await store.apply([replace(seen, size=9), replace(seen, size=8)])
    assert await store.heads() == []
    await store.apply([seen, PutWitness(str(THEIRS), 1, bytes(32))])
    again = await reopen(store)
    assert await again.witnessed() == {str(OURS): (5, bytes(32)), str(THEIRS): (1, bytes(32))}
    with pytest.raises(Broken):
        await again.apply([replace(seen, size=4)])


async def test_reads_are_ordered_whatever_the_order_of_writes(store: EventStore) -> None:
    for origin in (THEIRS, OURS, LATER):
        await store.apply([append(0, 2, origin)])
    assert [head.origin for head in await store.heads()] == [LATER, OURS, THEIRS]


async def test_trust_versions_follow_each_other_for_ever(store: EventStore, reopen: Reopen) -> None:
    await store.apply([PutTrust(1, b"one"), PutTrust(2, b"two")])
    for version in (2, 4, 0):
        with pytest.raises(Broken):
            await store.apply([PutTrust(version, b"other")])
    again = await reopen(store)
    try:
        with pytest.raises(Broken):
            await again.apply([PutTrust(2, b"other")])
        await again.apply([PutTrust(3, b"three")])
        assert await again.trust() == [b"one", b"two", b"three"]
    finally:
        await again.close()


async def test_the_line_of_trust_is_replaced_from_a_version_on(
    store: EventStore, reopen: Reopen
) -> None:
    await store.apply([PutTrust(1, b"one"), PutTrust(2, b"two"), PutTrust(3, b"three")])
    for after in (0, 3, 4):
        with pytest.raises(Broken):
            await store.apply([DropTrust(after)])
    await store.apply([DropTrust(1), PutTrust(2, b"other"), PutTrust(3, b"third")])
    again = await reopen(store)
    try:
        assert await again.trust() == [b"one", b"other", b"third"]
        await again.apply([PutTrust(4, b"four")])
    finally:
        await again.close()


async def test_local_state_keeps_the_latest_value(store: EventStore) -> None:
    await store.apply([PutLocal("clock", "b", b"1"), PutLocal("clock", "a", b"2")])
    await store.apply([PutLocal("clock", "b", b"3"), PutLocal("other", "b", b"4")])
    assert list((await store.local("clock")).items()) == [("a", b"2"), ("b", b"3")]
    await store.apply([PutLocal("clock", "b", None), PutLocal("clock", "never", None)])
    await store.apply([PutLocal("clock", "c", None), PutLocal("clock", "c", b"5")])
    await store.apply([PutLocal("clock", "d", b"6"), PutLocal("clock", "d", None)])
    assert await store.local("clock") == {"a": b"2", "c": b"5"}
    assert await store.local("other") == {"b": b"4"}


async def test_views_can_be_dropped_and_rebuilt(store: EventStore) -> None:
    derived: list[Write] = [
        PutView("ocr", b"d" * 32, b"{}"),
        PutView("asr", b"e" * 32, b"[]"),
        PutIndex("r2", "ocr", "2.0", ("r1",)),
        PutIndex("r3", "ocr", "3.0", ("r2",)),
    ]
    await store.apply([append(0, 2), PutTrust(1, b"one"), *derived])
    full = await everything(store)
    assert await store.view("ocr") == (b"d" * 32, b"{}")
    assert list((await store.views()).items()) == [("asr", b"e" * 32), ("ocr", b"d" * 32)]
    await store.drop_views()
    assert (await everything(store))[5:] == (None, {}, [], [])
    assert (await everything(store))[:5] == full[:5]
    await store.apply(derived)
    assert await everything(store) == full


async def test_a_view_is_replaced_by_the_next(store: EventStore) -> None:
    await store.apply([PutView("ocr", b"d" * 32, b"{}"), PutView("ocr", b"f" * 32, b"1")])
    assert await store.view("ocr") == (b"f" * 32, b"1")


async def test_ancestors_are_found_through_merges_and_unknown_parents(store: EventStore) -> None:
    await store.apply(
        [
            PutIndex("merge", "ocr", "4", ("left", "right", "left")),
            PutIndex("left", "ocr", "2", ("base",)),
            PutIndex("right", "ocr", "3", ("base", "elsewhere")),
            PutIndex("base", "ocr", "1", ()),
        ]
    )
    assert await store.ancestors("merge") == ["base", "elsewhere", "left", "right"]
    assert await store.ancestors("base") == []
    assert await store.ancestors("nobody") == []
    assert await store.releases("ocr") == [
        ("1", "base"),
        ("2", "left"),
        ("3", "right"),
        ("4", "merge"),
    ]
    await store.apply([PutIndex("merge", "ocr", "4", ("left",))])
    assert await store.ancestors("merge") == ["base", "left"]


async def test_a_cycle_of_parents_ends(store: EventStore) -> None:
    await store.apply([PutIndex("r1", "ocr", "1", ("r2",)), PutIndex("r2", "ocr", "2", ("r1",))])
    assert await store.ancestors("r1") == ["r2"]


async def test_a_closed_store_refuses_everything(store: EventStore) -> None:
    await store.close()
    with pytest.raises(Broken):
        await store.heads()
    with pytest.raises(Broken):
        await store.apply([PutTrust(1, b"one")])
    await store.close()


async def test_a_crash_loses_what_was_not_applied_and_nothing_else() -> None:
    store = MemoryEventStore()
    await store.apply([append(0, 2)])
    before = store.snapshot()
    await store.apply([append(2, 1), PutLocal("clock", "hlc", b"1")])
    after = store.crash(before)
    with pytest.raises(Broken):
        await store.heads()
    assert [head.size for head in await after.heads()] == [2]
    assert await after.local("clock") == {}
    await after.apply([append(2, 1, mark="again")])
    again = after.crash()
    assert [head.size for head in await again.heads()] == [3]
    kept = await again.events(OURS, 0, 9, 2**30)
    assert kept == [event(0), event(1), event(2) + b"again"]
    assert len(await again.events(OURS, 0, 10, 10**6)) == 3


def test_memory_never_suspends() -> None:
    store = MemoryEventStore()
    with pytest.raises(StopIteration):
        store.apply([append(0, 2)]).send(None)
    with pytest.raises(StopIteration) as read:
        store.events(OURS, 0, 1, 2**30).send(None)
    assert read.value.value == [event(0)]


def test_an_append_that_contradicts_itself_cannot_be_made() -> None:
    good = append(0, 2)
    with pytest.raises(Broken, match="do not end"):
        AppendEvents(good.head, 1, good.events)
    with pytest.raises(Broken, match="chunk"):
        append(0, 257)
    with pytest.raises(Broken, match="chunk"):
        append(0, 16, size=16 * 1024)


def test_added_steps_store_everything_before_they_send_anything() -> None:
    first = Step(store=(PutTrust(1, b"one"),), send=("trust",), effects=("timer",))
    second = Step(store=(PutTrust(2, b"two"),), send=("more",))
    assert first + second == Step(
        (PutTrust(1, b"one"), PutTrust(2, b"two")), ("trust", "more"), ("timer",)
    )
