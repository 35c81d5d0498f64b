"""The event store on SQLite: one connection that writes, one that only reads.

Durable when `apply` returns, all or nothing; `connections` says why that holds. Besides:

- **The first I/O error is the last**: SQLite reports a failed fsync once and then goes on, with
  holes (T46). This store does not: after an error every call raises `Broken`.
- A full disk is the exception: nothing was synced yet, so after `make_room` it is tried again.
- Readers see committed rows only, since they have a connection of their own.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiosqlite

from hanse.core.errors import Broken
from hanse.core.ids import Origin
from hanse.core.step import AppendEvents, Head, PutWitness, TruncateLog, Write
from hanse.storage.connections import (
    DefensiveConnection,
    Factory,
    check_sqlite_version,
    connect_reader,
    connect_writer,
    in_one_hop,
    lock_folder,
    may_be_full,
)
from hanse.storage.contract import EMPTY, Tail, check_writes, within
from hanse.storage.migrations import migrate
from hanse.storage.statements import DROP_VIEWS, Statement, statements

DATABASE = "registry.sqlite3"

_HEADS = "SELECT origin, size, root, frontier, note, final_size, final_note FROM head"
_ANCESTORS = """
WITH RECURSIVE ancestor (id) AS (
    SELECT parent FROM parent
    WHERE child = (SELECT id FROM release WHERE release = ?1)
    UNION
    SELECT parent.parent FROM ancestor JOIN parent ON parent.child = ancestor.id
)
SELECT release FROM ancestor JOIN release USING (id) WHERE release <> ?1 ORDER BY release
"""


MakeRoom = Callable[[], bool]


def _nothing() -> bool:
    return False


class _Log(NamedTuple):
    id: int
    tail: Tail


class SqliteEventStore:
    """`EventStore` in `<folder>/registry.sqlite3`. Make one with `open`."""

    def __init__(
        self,
        lock: int,
        writer: aiosqlite.Connection,
        reader: aiosqlite.Connection,
        make_room: MakeRoom,
    ) -> None:
        self._lock = lock
        self._make_room = make_room
        self._writer = writer
        self._reader = reader
        self._turn = asyncio.Lock()  # held for one transaction at a time
        self._logs: dict[Origin, _Log] = {}  # as committed; changed by `_apply` alone
        self._trust_version = 0  # the same
        self._witnessed: dict[str, tuple[int, bytes]] = {}  # the same
        self._refusal = ""  # why nothing works any more, once something failed
        self._closed = False

    @classmethod
    async def open(
        cls, folder: Path, make_room: MakeRoom = _nothing, *, factory: Factory = DefensiveConnection
    ) -> Self:
        """Open or create the registry in `folder` and bring its schema up to date.

        `make_room` is called when the disk is full: it frees what was set aside for that, and
        says whether there was any.

        Raises `Unavailable` when another daemon has it, when SQLite is too old or the database
        too new, and `Broken` when the file cannot be read.
        """
        check_sqlite_version(sqlite3.sqlite_version_info)
        lock = lock_folder(folder)
        opened: list[aiosqlite.Connection] = []
        try:
            opened.append(await connect_writer(folder / DATABASE, factory))
            await migrate(opened[0])
            opened.append(await connect_reader(folder / DATABASE, factory))
            store = cls(lock, opened[0], opened[1], make_room)
            await store._load()
        except BaseException as error:
            try:
                for connection in reversed(opened):
                    await connection.close()
            finally:
                os.close(lock)
            if not isinstance(error, sqlite3.Error):
                raise
            if not (may_be_full(error) and make_room()):
                raise _broken("open", str(error)) from error
            return await cls.open(folder, make_room, factory=factory)
        return store

    async def apply(self, writes: Sequence[Write]) -> None:
        # Shielded: a caller that is cancelled must not leave half a transaction behind for
        # the next one to commit.
        if writes:
            await asyncio.shield(self._apply(tuple(writes)))

    async def _apply(self, writes: tuple[Write, ...]) -> None:
        async with self._turn:
            self._check_usable()
            trust = check_writes(writes, self._tail, self._trust_version, self._witnessed)
            logs = self._extended(writes)
            ids = {origin: log.id for origin, log in logs.items()}
            stored = [self._logs[origin] for origin in logs if origin in self._logs]
            heads = [(log.id, log.tail.size, log.tail.root) for log in stored if log.tail.size]
            await self._transact(statements(writes, ids), heads)
            self._logs.update(logs)
            self._trust_version = trust
            for write in writes:
                if isinstance(write, PutWitness):
                    self._witnessed[write.origin] = (write.size, write.root)

    async def drop_views(self) -> None:
        await asyncio.shield(self._drop_views())

    async def _drop_views(self) -> None:
        async with self._turn:
            self._check_usable()
            await self._transact(DROP_VIEWS)

    async def _transact(
        self, work: Sequence[Statement], heads: Collection[tuple[int, int, bytes]] = ()
    ) -> None:
        """One durable transaction; the caller holds `_turn`. Any error ends the store."""
        try:
            await in_one_hop(self._writer, work, self._make_room, heads)
        except BaseException as error:
            # No retry: a failed fsync may have dropped pages, so only a restart can tell.
            self._refusal = f"{type(error).__name__}: {error}"
            if isinstance(error, Exception):
                raise _broken("write", self._refusal) from error
            raise

    def _tail(self, origin: Origin) -> Tail:
        return self._logs[origin].tail if origin in self._logs else EMPTY

    def _extended(self, writes: tuple[Write, ...]) -> dict[Origin, _Log]:
        """The logs that `writes` touch, as they will be; new ones get the next free id."""
        logs: dict[Origin, _Log] = {}
        fresh = len(self._logs)
        for write in writes:
            if isinstance(write, AppendEvents | TruncateLog):
                head = write.head
                known = logs.get(head.origin) or self._logs.get(head.origin)
                if known is None:
                    fresh += 1  # ids are 1, 2, 3 …: one that is dropped keeps its own
                logs[head.origin] = _Log(known.id if known else fresh, Tail(head.size, head.root))
        return logs

    async def heads(self) -> list[Head]:
        rows = await self._rows(f"{_HEADS} WHERE size > 0 ORDER BY origin")
        return [Head(Origin.parse(origin), *rest) for origin, *rest in rows]

    async def head(self, origin: Origin) -> Head | None:
        rows = await self._rows(f"{_HEADS} WHERE size > 0 AND origin = ?", (str(origin),))
        return Head(origin, *rows[0][1:]) if rows else None

    async def witnessed(self) -> dict[str, tuple[int, bytes]]:
        return dict(self._witnessed)

    async def events(self, origin: Origin, start: int, limit: int, bytes_max: int) -> list[bytes]:
        # A log and its id are known only once committed, so the lookup needs no query.
        log = self._logs.get(origin)
        if log is None:
            return []
        return within(await self._run(log, start, min(limit, log.tail.size - start)), bytes_max)

    async def _run(self, log: _Log, start: int, count: int) -> list[bytes]:
        """Exactly `count` events from `start`; a missing row is a damaged database (F06)."""
        if count <= 0:
            return []
        rows = await self._rows(
            "SELECT seq, raw FROM event WHERE log = ? AND seq >= ? ORDER BY seq LIMIT ?",
            (log.id, start, count),
        )
        if [seq for seq, _ in rows] != list(range(start, start + count)):
            self._refusal = f"events are missing between seq {start} and {start + count}"
            raise _broken("read", self._refusal)
        return [raw for _, raw in rows]

    async def checkpoint_at_or_before(self, origin: Origin, start: int, end: int) -> bytes | None:
        log = self._logs.get(origin)
        if log is None or start >= log.tail.size:
            return None
        rows = await self._rows(
            "SELECT note FROM checkpoint WHERE log = ? AND size > ? AND size <= ?"
            " ORDER BY size DESC LIMIT 1",
            (log.id, start, min(end, log.tail.size)),
        )
        return rows[0][0] if rows else None

    async def trust(self) -> list[bytes]:
        return [raw for (raw,) in await self._rows("SELECT raw FROM trust_file ORDER BY version")]

    async def local(self, space: str) -> dict[str, bytes]:
        return dict(
            await self._rows("SELECT key, value FROM local WHERE space = ? ORDER BY key", (space,))
        )

    async def view(self, model: str) -> tuple[bytes, bytes] | None:
        rows = await self._rows("SELECT digest, document FROM view WHERE model = ?", (model,))
        return (rows[0][0], rows[0][1]) if rows else None

    async def views(self) -> dict[str, bytes]:
        return dict(await self._rows("SELECT model, digest FROM view ORDER BY model"))

    async def releases(self, model: str) -> list[tuple[str, str]]:
        return await self._rows(
            "SELECT version, release FROM release WHERE model = ? ORDER BY version, release",
            (model,),
        )

    async def ancestors(self, release: str) -> list[str]:
        return [name for (name,) in await self._rows(_ANCESTORS, (release,))]

    async def close(self) -> None:
        async with self._turn:
            if self._closed:
                return
            self._closed = True
            try:
                # The reader first: the last connection to close checkpoints, and only the
                # writer may.
                await self._reader.close()
                await self._writer.close()
            except sqlite3.Error as error:
                raise _broken("close", str(error)) from error
            finally:
                os.close(self._lock)

    async def _load(self) -> None:
        rows = await self._rows("SELECT origin, id, size, root FROM head ORDER BY id")
        self._logs = {Origin.parse(row[0]): _Log(row[1], Tail(row[2], row[3])) for row in rows}
        ((last,),) = await self._rows("SELECT coalesce(max(version), 0) FROM trust_file")
        self._trust_version = last
        rows = await self._rows("SELECT origin, size, root FROM witness")
        self._witnessed = {origin: (size, root) for origin, size, root in rows}

    async def _rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        self._check_usable()
        try:
            return [tuple(row) for row in await self._reader.execute_fetchall(sql, parameters)]
        except sqlite3.Error as error:
            self._refusal = str(error)
            raise _broken("read", self._refusal) from error

    def _check_usable(self) -> None:
        if self._refusal:
            raise _broken("use", f"it failed before: {self._refusal}")
        if self._closed:
            raise _broken("use", "it is closed")


def _broken(deed: str, why: str) -> Broken:
    return Broken(
        f"cannot {deed} the registry: {why}",
        fix="stop the daemon, check the disk, then start it again: it verifies its log at start",
    )
