"""The schema, as numbered steps that are never edited once released.

`PRAGMA user_version` counts the steps a database has been through. Each step and its number
are one transaction, so a crash in the middle leaves the database at the step before. A
database from a newer Hanse is refused: reading it by halves could drop facts.
"""

from __future__ import annotations

import aiosqlite

from hanse.core.errors import Unavailable

# Logs and releases are keyed by small integers: an origin's text has about 80 bytes, and
# ancestor queries are four times as fast over integers as over digests.
# The tables of facts come first; `view`, `release` and `parent` can be dropped and rebuilt.
_FIRST = """
CREATE TABLE head (
    id INTEGER PRIMARY KEY,
    origin TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL CHECK (size >= 0),
    root BLOB NOT NULL CHECK (length(root) = 32),
    frontier BLOB NOT NULL,
    note BLOB NOT NULL
) STRICT;

CREATE TABLE event (
    log INTEGER NOT NULL REFERENCES head (id),
    seq INTEGER NOT NULL CHECK (seq >= 0),
    raw BLOB NOT NULL,
    PRIMARY KEY (log, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoint (
    log INTEGER NOT NULL REFERENCES head (id),
    size INTEGER NOT NULL,
    note BLOB NOT NULL,
    PRIMARY KEY (log, size)
) STRICT, WITHOUT ROWID;

CREATE TABLE trust_file (
    version INTEGER PRIMARY KEY CHECK (version >= 1),
    raw BLOB NOT NULL
) STRICT;

CREATE TABLE local (
    space TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (space, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE view (
    model TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    document BLOB NOT NULL
) STRICT;

CREATE TABLE release (
    id INTEGER PRIMARY KEY,
    release TEXT NOT NULL UNIQUE,
    model TEXT,
    version TEXT
) STRICT;
CREATE INDEX release_by_model ON release (model, version, release);

CREATE TABLE parent (
    child INTEGER NOT NULL REFERENCES release (id),
    parent INTEGER NOT NULL REFERENCES release (id),
    PRIMARY KEY (child, parent)
) STRICT, WITHOUT ROWID;
"""

_FINALITY = """
ALTER TABLE head ADD COLUMN final_size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE head ADD COLUMN final_note BLOB NOT NULL DEFAULT x'';

CREATE TABLE witness (
    origin TEXT PRIMARY KEY,
    size INTEGER NOT NULL CHECK (size >= 0),
    root BLOB NOT NULL CHECK (length(root) = 32)
) STRICT, WITHOUT ROWID;
"""

MIGRATIONS = (_FIRST, _FINALITY)


async def migrate(connection: aiosqlite.Connection) -> None:
    """Bring the database to the newest step. Raises `Unavailable` for a newer one."""
    ((found,),) = await connection.execute_fetchall("PRAGMA user_version")
    if found > len(MIGRATIONS):
        raise Unavailable(
            f"this registry was written by a newer Hanse: its schema is {found}, "
            f"this program knows up to {len(MIGRATIONS)}",
            fix="start the newer version again; do not downgrade the data folder",
        )
    for number, script in enumerate(MIGRATIONS[found:], start=found + 1):
        await connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;"
        )
