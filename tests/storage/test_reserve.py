"""Space that is there when there is none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from hanse.core.room import Level
from hanse.storage.reserve import NAME, Reserve

SIZE = 100_000


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_the_reserve_takes_real_space_and_gives_it_back(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, SIZE)
    room = reserve.measure()
    assert room.reserve_kept
    assert room.free_bytes <= shutil.disk_usage(tmp_path).free + SIZE
    assert (tmp_path / NAME).stat().st_blocks * 512 >= SIZE
    assert reserve.release()
    assert not (tmp_path / NAME).exists()
    assert not reserve.release()


def test_a_reserve_is_made_anew_only_when_there_is_room_for_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = Reserve(tmp_path, SIZE)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 0, 2 * SIZE - 1))
    assert not reserve.measure().reserve_kept
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 0, 2 * SIZE))
    assert reserve.measure().reserve_kept


def test_a_reserve_of_another_size_is_made_anew(tmp_path: Path) -> None:
    Reserve(tmp_path, 2 * SIZE).measure()
    Reserve(tmp_path, SIZE).measure()
    assert (tmp_path / NAME).stat().st_size == SIZE


def test_without_a_reserve_nothing_is_kept_and_nothing_is_full(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 0)
    room = reserve.measure()
    assert not room.reserve_kept
    assert room.level is not Level.FULL
    assert list(tmp_path.iterdir()) == []
