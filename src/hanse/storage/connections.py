"""Connections to SQLite that cannot lose what was acknowledged.

- **FULL**: losing an acknowledged own row and writing another at its seq would be equivocation,
  so every commit reaches the disk before it is answered (T46, F01).
- **One writer**: SQLite 3.7.0 to 3.51.2 can corrupt a WAL when two connections write or
  checkpoint at once (the WAL-reset bug, T47; fixed in 3.51.3). Here one connection does both,
  the reader is opened read-only and can do neither, and a lock on the folder keeps other
  processes out. Then every version from 3.37 on is safe.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import aiosqlite

from hanse.core.errors import Unavailable
from hanse.storage.incoming import sync_folder

SQLITE_MIN = (3, 37, 0)  # STRICT tables
LOCK = "daemon.lock"

_WRITER_PRAGMAS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
PRAGMA trusted_schema = OFF;
PRAGMA cell_size_check = ON;
PRAGMA journal_size_limit = 67108864;
"""
_READER_PRAGMAS = """
PRAGMA query_only = ON;
PRAGMA trusted_schema = OFF;
PRAGMA cell_size_check = ON;
"""


_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_CANTOPEN}
"""What SQLite says when there is no room for data, for the index of the log, for a new file."""

Work = Sequence[tuple[str, Collection[tuple[Any, ...]]]]
"""Statements, each with the rows to run it for."""

Factory = Callable[..., sqlite3.Connection]
"""Connects as `sqlite3.connect` does. Tests put a SQLite here whose disk loses what it may."""

_STANDS = "SELECT 1 FROM head WHERE id = ? AND size = ? AND root = ?"


class DefensiveConnection(sqlite3.Connection):
    """Defensive mode, where Python can set it: no statement can write raw pages or the schema."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if sys.version_info >= (3, 12):
            self.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)


def check_sqlite_version(version: tuple[int, ...]) -> None:
    """Raises `Unavailable` for a SQLite without STRICT tables."""
    if version < SQLITE_MIN:
        raise Unavailable(
            f"SQLite {'.'.join(map(str, version))} is too old, Hanse needs 3.37",
            fix="install a Python that is built with SQLite 3.37 or newer",
        )


def lock_folder(folder: Path) -> int:
    """Hold the folder until the descriptor is closed; the kernel does so if the process dies."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.parent)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Unavailable(
            f"cannot use the data folder {folder}: {error.strerror}",
            fix="give the daemon a folder of its own that it may write to",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Unavailable(
            f"another daemon runs on this folder: {folder}",
            fix="stop it, or give this daemon a data folder of its own",
        ) from error
    return lock


async def connect_writer(
    path: Path, factory: Factory = DefensiveConnection
) -> aiosqlite.Connection:
    """The one connection that writes and checkpoints. The caller closes it last.

    Raises `Unavailable` where the file system cannot carry a WAL.
    """
    connection = await _connect(path.absolute().as_uri(), _WRITER_PRAGMAS, factory)
    ((journal,),) = await connection.execute_fetchall("PRAGMA journal_mode")
    if journal != "wal":
        await connection.close()
        raise Unavailable(
            f"SQLite cannot keep a write-ahead log at {path}",
            fix="put the data folder on a local disk, not on a network file system",
        )
    return connection


async def connect_reader(
    path: Path, factory: Factory = DefensiveConnection
) -> aiosqlite.Connection:
    """A connection that sees committed rows only and can change nothing."""
    return await _connect(f"{path.absolute().as_uri()}?mode=ro", _READER_PRAGMAS, factory)


async def in_one_hop(
    connection: aiosqlite.Connection,
    work: Work,
    make_room: Callable[[], object],
    heads: Collection[tuple[int, int, bytes]] = (),
) -> None:
    """One transaction in a single visit to the database thread; raises as sqlite3 does.

    It begins by reading back (id, size, root) of every log that it extends: nothing is written,
    and so nothing leaves, on top of a disk that does not hold what this process has written.

    When the disk is full, all of it is tried once more, after `make_room` and after the log was
    emptied into the database, which gives its space back. No sync has failed then.

    Statement by statement, the visits cost as much as the rows. aiosqlite has no public way
    to run a function in its thread, so this uses the one that its own methods use.
    """

    def transact(database: sqlite3.Connection) -> None:
        try:
            _transact(database, work, heads)
        except sqlite3.OperationalError as error:
            if not may_be_full(error):
                raise
            make_room()  # SQLite has rolled back by itself
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            _transact(database, work, heads)

    visit: Any = connection._execute
    await visit(transact, connection._conn)


def may_be_full(error: BaseException) -> bool:
    """Whether the disk may be full, and nothing worse is said."""
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode in _FULL


def _transact(
    database: sqlite3.Connection, work: Work, heads: Collection[tuple[int, int, bytes]]
) -> None:
    database.execute("BEGIN IMMEDIATE")
    for head in heads:
        if not database.execute(_STANDS, head).fetchall():
            raise sqlite3.DatabaseError("the stored head of a log is not the one that was written")
    for sql, rows in work:
        database.executemany(sql, rows)
    database.execute("COMMIT")


async def _connect(uri: str, pragmas: str, factory: Factory) -> aiosqlite.Connection:
    # Without isolation level Python begins no transactions of its own.
    opening = aiosqlite.connect(uri, uri=True, isolation_level=None, factory=factory)
    # A process that ends because something is broken must not wait for a thread that nobody
    # will close; SQLite needs no farewell. (Before 0.22 the connection was itself the thread.)
    thread: Any = getattr(opening, "_thread", opening)
    thread.daemon = True
    connection = await opening
    try:
        await connection.executescript(pragmas)
    except BaseException:
        await connection.close()
        raise
    return connection
