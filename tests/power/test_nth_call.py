"""Whichever call to the disk fails: a refusal, never a wrong answer or a lost row (F04, F05)."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

import pytest

from hanse.core.step import PutLocal
from power.calls import WAYS, check_one, count_calls
from power.disk import Disk, File
from power.sqlite import Machine

MIB = 2**20

EVERY = 37
"""The complete sweep is `scripts/campaign calls`."""


@pytest.mark.parametrize("how", WAYS)
async def test_whichever_call_fails_nothing_acknowledged_is_lost(how: str, tmp_path: Path) -> None:
    calls = await count_calls(tmp_path)
    assert calls > 150
    start = WAYS.index(how) % EVERY + 1
    refused = [await check_one(n, how, tmp_path) for n in range(start, calls + 1, EVERY)]
    # A disk that is full only once refuses nothing: SQLite's log gives its own space back.
    assert sum(refused) > len(refused) // 4 or how in ("ENOSPC", "SHORT")


@pytest.mark.parametrize("how", ["ENOSPC+", "SHORT+"])
async def test_a_full_disk_refuses_nothing_while_there_is_a_reserve(
    how: str, tmp_path: Path
) -> None:
    calls = await count_calls(tmp_path)
    for n in range(1, calls + 1, EVERY):
        assert not await check_one(n, how, tmp_path, reserve=True)


async def test_without_a_reserve_the_log_of_sqlite_gives_its_own_space_back(tmp_path: Path) -> None:
    """What is stored does not grow here; only the log would, up to a thousand pages."""
    disk = Disk()

    def before(_: int, kind: str) -> None:
        used = sum(len(file.now) for _, file in disk.walk() if isinstance(file, File))
        if kind == "extend" and used > MIB:
            raise OSError(errno.ENOSPC, "full")

    store = await Machine(disk, tmp_path, Random(1)).open()
    await store.apply([PutLocal("duty", "last", bytes(20_000))])
    await store.close()  # and so it is in the database
    disk.before = before
    store = await Machine(disk, tmp_path, Random(1)).open()
    for number in range(100):
        await store.apply([PutLocal("duty", "last", bytes([number]) * 20_000)])
    assert await store.local("duty") == {"last": bytes([99]) * 20_000}
    await store.close()


async def test_a_reserve_is_not_spent_on_a_sync_that_failed(tmp_path: Path) -> None:
    calls = await count_calls(tmp_path)
    refused = [await check_one(n, "EIO+", tmp_path, reserve=True) for n in range(60, calls, EVERY)]
    assert all(refused)
