"""What only the SQLite store can get wrong: settings, versions, processes, disks."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import aiosqlite
import pytest

from hanse.core.errors import Broken, Unavailable
from hanse.core.ids import Origin
from hanse.core.step import AppendEvents, Head, PutLocal, PutTrust, PutView
from hanse.storage.connections import check_sqlite_version, connect_reader, connect_writer
from hanse.storage.migrations import MIGRATIONS
from hanse.storage.sqlite import DATABASE, SqliteEventStore

ORIGIN = Origin.parse(f"harbour.example/north/{'a' * 32}/i1")


def append(start: int, count: int, size: int = 600) -> AppendEvents:
    events = tuple(
        f"event {seq} ".encode().ljust(size, b".") for seq in range(start, start + count)
    )
    head = Head(ORIGIN, start + count, bytes(32), b"", f"note {start + count}".encode())
    return AppendEvents(head, start, events)


async def pragma(connection: aiosqlite.Connection, name: str) -> object:
    ((value,),) = await connection.execute_fetchall(f"PRAGMA {name}")
    return value


async def test_commits_reach_the_disk_and_readers_cannot_write(tmp_path: Path) -> None:
    writer = await connect_writer(tmp_path / "db")
    reader = await connect_reader(tmp_path / "db")
    try:
        found = {
            name: await pragma(writer, name)
            for name in (
                "journal_mode",
                "synchronous",
                "foreign_keys",
                "trusted_schema",
                "cell_size_check",
            )
        }
        assert found == {
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "trusted_schema": 0,
            "cell_size_check": 1,
        }
        assert await pragma(reader, "query_only") == 1
        for _ in range(2):
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                await reader.execute("CREATE TABLE t (a)")
            await reader.execute("PRAGMA query_only = OFF")  # the file itself is read-only too
    finally:
        await reader.close()
        await writer.close()


async def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    await (await SqliteEventStore.open(tmp_path)).close()
    newer = sqlite3.connect(tmp_path / DATABASE)
    newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    newer.close()
    for _ in range(2):  # the first refusal lets go of the folder
        with pytest.raises(Unavailable, match="newer Hanse"):
            await SqliteEventStore.open(tmp_path)


def test_a_sqlite_without_strict_tables_is_refused() -> None:
    check_sqlite_version((3, 37, 0))
    with pytest.raises(Unavailable, match=r"3\.36\.9 is too old"):
        check_sqlite_version((3, 36, 9))


async def test_a_migration_is_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await SqliteEventStore.open(tmp_path)).close()
    steps = (*MIGRATIONS, "CREATE TABLE half (a); CREATE TABLE head (a)")
    monkeypatch.setattr("hanse.storage.migrations.MIGRATIONS", steps)
    with pytest.raises(Broken):
        await SqliteEventStore.open(tmp_path)
    monkeypatch.undo()
    await (await SqliteEventStore.open(tmp_path)).close()
    database = sqlite3.connect(tmp_path / DATABASE)
    assert database.execute("SELECT name FROM sqlite_schema WHERE name = 'half'").fetchall() == []
    database.close()


async def test_what_is_not_a_database_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"not a database, though long enough" * 100)
    with pytest.raises(Broken, match="cannot open"):
        await SqliteEventStore.open(tmp_path)
    assert (tmp_path / DATABASE).read_bytes().startswith(b"not a database")


SECOND = """
import asyncio, sys
from pathlib import Path
from hanse.core.errors import Unavailable
from hanse.storage.sqlite import SqliteEventStore
try:
    asyncio.run(SqliteEventStore.open(Path(sys.argv[1])))
except Unavailable as error:
    print(error)
"""


@pytest.mark.system
async def test_a_second_daemon_on_the_folder_is_refused(tmp_path: Path) -> None:
    store = await SqliteEventStore.open(tmp_path)
    answer = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", SECOND, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "another daemon runs on this folder" in answer.stdout
    with pytest.raises(Unavailable):
        await SqliteEventStore.open(tmp_path)
    await store.close()
    await (await SqliteEventStore.open(tmp_path)).close()


async def test_a_full_disk_undoes_the_step_and_ends_the_store(tmp_path: Path) -> None:
    store = await SqliteEventStore.open(tmp_path)
    await store.apply([append(0, 5), PutLocal("clock", "hlc", b"1")])
    await store._writer.execute_fetchall("PRAGMA max_page_count = 30")
    with pytest.raises(Broken, match="full"):
        await store.apply(
            [append(5, 5), PutLocal("clock", "hlc", b"2"), PutView("ocr", b"", bytes(200_000))]
        )
    for _ in range(2):
        with pytest.raises(Broken, match="failed before"):
            await store.apply([append(5, 1)])
        with pytest.raises(Broken, match="failed before"):
            await store.heads()
    await store.close()
    again = await SqliteEventStore.open(tmp_path)
    assert [head.size for head in await again.heads()] == [5]
    assert await again.local("clock") == {"hlc": b"1"}
    await again.apply([append(5, 5)])
    await again.close()


async def test_a_cancelled_caller_leaves_no_half_transaction(tmp_path: Path) -> None:
    store = await SqliteEventStore.open(tmp_path)
    for steps in range(1, 13):
        write = append(100 * (steps - 1), 100)
        task = asyncio.ensure_future(store.apply([write, PutTrust(steps, b"trust")]))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.apply([PutLocal("clock", "hlc", b"1")])  # waits for its turn
        assert len(await store.trust()) == steps
        assert await store.heads() == [write.head]
    await store.close()


async def test_concurrent_steps_take_turns(tmp_path: Path) -> None:
    store = await SqliteEventStore.open(tmp_path)
    await asyncio.gather(*(store.apply([append(start, 10)]) for start in range(0, 500, 10)))
    assert [head.size for head in await store.heads()] == [500]
    assert len(await store.events(append(0, 1).head.origin, 0, 1000, 2**30)) == 500
    await store.close()


async def test_a_missing_event_is_found_when_it_is_read(tmp_path: Path) -> None:
    store = await SqliteEventStore.open(tmp_path)
    await store.apply([append(0, 5)])
    await store.close()
    database = sqlite3.connect(tmp_path / DATABASE)
    database.execute("DELETE FROM event WHERE seq = 3")
    database.commit()
    database.close()
    store = await SqliteEventStore.open(tmp_path)
    with pytest.raises(Broken, match="missing"):
        await store.events(ORIGIN, 0, 10, 10**6)
    await store.close()


BROKEN = """
import asyncio, sys
from pathlib import Path
from hanse.core.step import PutTrust
from hanse.storage.sqlite import SqliteEventStore

async def main():
    store = await SqliteEventStore.open(Path(sys.argv[1]))
    await store.apply([PutTrust(7, b"broken")])

asyncio.run(main())
"""


@pytest.mark.system
def test_a_broken_process_ends_without_a_farewell(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", BROKEN, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert ended.returncode == 1
    assert "trust version 7 does not follow 0" in ended.stderr


KILLED = """
import asyncio, hashlib, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_sqlite import append
from hanse.storage.sqlite import SqliteEventStore

async def main():
    store = await SqliteEventStore.open(Path(sys.argv[1]))
    size = sum([head.size for head in await store.heads()])
    while True:
        count = size % 7 + 1
        await store.apply([append(size, count)])
        size += count
        print(size, flush=True)

asyncio.run(main())
"""


@pytest.mark.system
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged = 0
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout
        for _ in range(60):
            acknowledged = int(child.stdout.readline())
        child.kill()
        rest = child.stdout.read().split("\n")[:-1]  # the last line may be cut off
        acknowledged = int(rest[-1]) if rest else acknowledged
        child.wait()
        child.stdout.close()
        asyncio.run(_check_whole(tmp_path, acknowledged))


async def _check_whole(folder: Path, acknowledged: int) -> None:
    store = await SqliteEventStore.open(folder)
    (head,) = await store.heads()
    assert acknowledged <= head.size <= acknowledged + 7
    rows = await store.events(head.origin, 0, head.size, 2**30)
    assert rows == [append(seq, 1).events[0] for seq in range(head.size)]
    assert head.note == f"note {head.size}".encode()
    await store.close()


@pytest.mark.parametrize(
    "change", ["size = 1", "root = CAST(x'01' || zeroblob(31) AS BLOB)", "id = 7"]
)
async def test_nothing_is_written_on_top_of_a_head_that_has_changed(
    tmp_path: Path, change: str
) -> None:
    """A log goes on from what is on the disk; memory alone could sign a second history."""
    store = await SqliteEventStore.open(tmp_path)
    await store.apply([append(0, 2)])
    other = sqlite3.connect(tmp_path / DATABASE)
    other.execute(f"UPDATE head SET {change}")
    other.commit()
    with pytest.raises(Broken, match="not the one that was written"):
        await store.apply([append(2, 1)])
    await store.close()
    assert other.execute("SELECT count(*) FROM event").fetchone() == (2,)
    other.close()
