"""An APSW connection with as much of `sqlite3.Connection` as the event store uses.

APSW brings a newer SQLite than Python may have, so the contract suite runs on both. Without
shared memory one connection is all that a write-ahead log allows: the store's reader is handed
the writer's, and its settings are left out, because they would be the writer's too.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import apsw

from hanse.storage.sqlite import MakeRoom, SqliteEventStore
from power.disk import Disk
from power.vfs import Files

_numbers = itertools.count()
_ERRORS = {
    apsw.ConstraintError: sqlite3.IntegrityError,
    apsw.CorruptError: sqlite3.DatabaseError,
    apsw.NotADBError: sqlite3.DatabaseError,
}


class Machine:
    """A computer with one disk. `open` starts the store on it; `lock` is a real folder."""

    def __init__(self, disk: Disk, lock: Path, rng: Random, *, checkpoint_pages: int = 1000):
        self._files = Files(f"power-{next(_numbers)}", disk, rng)
        self._lock = lock
        self._settings = (
            "PRAGMA locking_mode = EXCLUSIVE",
            # Few pages, so that reads reach the disk and a large step is written before its end.
            "PRAGMA cache_size = 10",
        )
        self._checkpoint_pages = checkpoint_pages
        self._connection: apsw.Connection | None = None

    async def open(self, make_room: MakeRoom = lambda: False) -> SqliteEventStore:
        return await SqliteEventStore.open(self._lock, make_room, factory=self._connect)

    def _connect(self, path: str, **_: Any) -> Any:
        if "?mode=ro" in path:
            assert self._connection is not None
            return Reader(self._connection)
        with _errors():
            made = apsw.Connection(path.rpartition("/")[2], vfs=self._files.name)
            try:
                for sql in self._settings:
                    made.execute(sql).fetchall()
            except apsw.Error:
                made.close(True)
                raise
            made.set_wal_hook(self._committed)
        self._connection = made
        return Writer(made)

    def _committed(self, connection: apsw.Connection, _: str, pages: int) -> int:
        """As SQLite's own hook: a checkpoint that fails is no failure of the commit before it.

        APSW would raise it from the commit, which SQLite does not.
        """
        if pages >= self._checkpoint_pages:
            with contextlib.suppress(apsw.Error):
                connection.wal_checkpoint()
        return apsw.SQLITE_OK


class Reader:
    def __init__(self, connection: apsw.Connection) -> None:
        self._apsw = connection

    def execute(self, sql: str, parameters: Iterable[Any] = ()) -> Rows:
        with _errors():
            return Rows(self._apsw.execute(sql, tuple(parameters)).fetchall())

    def executescript(self, sql: str) -> None:
        """See above."""

    def close(self) -> None:
        """The writer closes."""


class Writer(Reader):
    def executemany(self, sql: str, rows: Iterable[Iterable[Any]]) -> None:
        with _errors():
            self._apsw.executemany(sql, [tuple(row) for row in rows]).fetchall()

    def executescript(self, sql: str) -> None:
        with _errors():
            self._apsw.execute(sql).fetchall()

    def close(self) -> None:
        # As in the standard library: closing reports nothing.
        with contextlib.suppress(apsw.Error):
            self._apsw.close()


class Rows:
    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """APSW's errors as those of the standard library, with SQLite's code."""
    try:
        yield
    except apsw.Error as error:
        found = _ERRORS.get(type(error), sqlite3.OperationalError)(str(error))
        found.sqlite_errorcode = error.result
        raise found from error
