"""Events from a peer, verified and stored, against bare aiosqlite inserts of the same bytes."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

import aiosqlite

from hanse.core.events import Event, Hold
from hanse.core.ids import Digest, Origin, Segment, member_id
from hanse.core.logbook import Logbook, header
from hanse.core.signing import SigningKey
from hanse.core.step import AppendEvents
from hanse.core.trust import chain as trust
from hanse.core.trust.members import Member, Members, Region
from hanse.rpc.codec import EventCodec
from hanse.storage.sqlite import SqliteEventStore
from measure.table import markdown, spread

EVENTS, REPEATS = 20_000, 5
BATCHES = (1, 10, 100, 256)
PEM = "-----BEGIN CERTIFICATE-----\n"


SIGNED = 2000  # events of the log that has a signature for each


def run() -> str:
    return f"{_against_bare()}\n{_against_a_signature_each()}"


def _against_bare() -> str:
    rows = []
    for batch, judged in (*((batch, False) for batch in BATCHES), (100, True)):
        events = max(500, min(EVENTS, batch * 200))
        pairs = (_pair(batch, events, judged=judged) for _ in range(REPEATS))
        ours, bare, size = zip(*pairs, strict=True)
        ratio = [a / b for a, b in zip(ours, bare, strict=True)]
        name = f"{batch}, bodies judged too" if judged else str(batch)
        rows.append([name, f"{size[0]:.0f}", spread(ours), spread(bare), spread(ratio)])
    return (
        "### Event ingest\n\nA peer's events: headers read and their places judged, leaves hashed "
        "into the tree, the signed head verified, stored at FULL; against `executemany` of the "
        "same bytes through bare aiosqlite at FULL. Bodies are read when what they say is judged "
        f"(decision 0007): the last row includes that. Median (range) of {REPEATS} pairs.\n\n"
        + markdown(["events a batch", "bytes each", "Hanse /s", "bare /s", "ratio"], rows)
    )


def _against_a_signature_each() -> str:
    """The same code on a log whose author signed after every event, one event a group."""
    rows = []
    single, chain, origin = _written(1, SIGNED)
    for batch in BATCHES[1:]:
        whole = _written(batch, EVENTS // 2)
        ratios, ours, each = [], [], []
        for _ in range(REPEATS):
            ours.append(EVENTS // 2 / _timed(*whole, groups=1))
            each.append(SIGNED / _timed(single, chain, origin, groups=batch))
            ratios.append(ours[-1] / each[-1])
        bar = "5" if batch >= 100 else ""
        rows.append([str(batch), spread(ours), spread(each), spread(ratios), bar])
    return (
        "The same verification of a log whose author signed each event by itself, as many of them "
        f"a transaction. Median (range) of {REPEATS} pairs.\n\n"
        + markdown(
            ["events a transaction", "one signature /s", "a signature each /s", "ratio", "bar"],
            rows,
        )
    )


def _timed(chunks: list[AppendEvents], chain: trust.Chain, origin: Origin, *, groups: int) -> float:
    """Seconds to verify and store all of them, so many groups a transaction."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_store(Path(folder), chunks, chain, origin, groups))


async def _store(
    folder: Path, chunks: list[AppendEvents], chain: trust.Chain, origin: Origin, groups: int
) -> float:
    store = await SqliteEventStore.open(folder)
    book = Logbook(EventCodec(), chain)
    began, writes = time.perf_counter(), []
    for chunk in chunks:
        added = book.extend(origin, chunk.start, chunk.events, chunk.head.note)
        assert added is not None
        writes.append(added[0])
        if len(writes) == groups:
            await store.apply(writes)
            writes = []
    await store.apply(writes)
    took = time.perf_counter() - began
    await store.close()
    return took


def _pair(batch: int, events: int, *, judged: bool) -> tuple[float, float, float]:
    chunks, chain, origin = _written(batch, events)
    raws = [raw for append in chunks for raw in append.events]
    with tempfile.TemporaryDirectory() as folder:
        ours = asyncio.run(_ingest(Path(folder), chunks, chain, origin, judged=judged))
        bare = asyncio.run(_insert(Path(folder), [c.events for c in chunks]))
    return events / ours, events / bare, sum(map(len, raws)) / len(raws)


def _written(batch: int, count: int) -> tuple[list[AppendEvents], trust.Chain, Origin]:
    """A log as its author wrote it, one signature a batch."""
    key, root = SigningKey(os.urandom(32)), SigningKey(os.urandom(32))
    region = Segment("eu-north")
    members = Members(
        Segment("bench"),
        1,
        (root.public,),
        1,
        "seed",
        (Region(region, PEM),),
        (Member(region, key.public, PEM, "eu-north:1"),),
        (),
    )
    chain = trust.replay((trust.sign(members, (root,)),))
    origin = Origin(members.federation, region, member_id(key.public), 1)
    book, codec, appends = Logbook(EventCodec(), chain), EventCodec(), []
    for start in range(0, count, batch):
        raws = []
        for seq in range(start, min(start + batch, count)):
            reason = f"load {seq} ".ljust(300, "x")
            body = Hold(Segment("ocr-rec"), region, Digest.of(b"release"), reason)
            raws.append(codec.encode(Event(header(origin, seq, chain, os.urandom(32), seq), body)))
        appends.append(book.author(origin, key, tuple(raws))[0])
    return appends, chain, origin


async def _ingest(
    folder: Path, chunks: list[AppendEvents], chain: trust.Chain, origin: Origin, *, judged: bool
) -> float:
    store = await SqliteEventStore.open(folder / "ours")
    book = Logbook(EventCodec(), chain)
    began = time.perf_counter()
    for chunk in chunks:
        added = book.extend(origin, chunk.start, chunk.events, chunk.head.note)
        assert added is not None
        if judged:
            assert not any(book.judged(entry).void for entry in added[1])
        await store.apply([added[0]])
    took = time.perf_counter() - began
    await store.close()
    return took


async def _insert(folder: Path, batches: list[tuple[bytes, ...]]) -> float:
    async with aiosqlite.connect(folder / "bare.db", isolation_level=None) as db:
        await db.execute("PRAGMA journal_mode=WAL")
        await db.execute("PRAGMA synchronous=FULL")
        await db.execute("CREATE TABLE event (log INT, seq INT, raw BLOB, PRIMARY KEY (log, seq))")
        began, seq = time.perf_counter(), 0
        for batch in batches:
            rows = [(1, seq + i, raw) for i, raw in enumerate(batch)]
            seq += len(batch)
            await db.execute("BEGIN")
            await db.executemany("INSERT INTO event VALUES (?, ?, ?)", rows)
            await db.commit()
        return time.perf_counter() - began
