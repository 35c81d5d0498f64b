"""The disk of these tests is as bad as it says, and no worse."""

from __future__ import annotations

from random import Random

from power.disk import SECTOR, Disk, File

SEEDS = range(200)


def content(disk: Disk, path: str) -> bytes | None:
    found = disk.find(path)
    return bytes(found.now) if isinstance(found, File) else None


def test_what_was_synced_survives_every_cut() -> None:
    for seed in SEEDS:
        rng, disk = Random(seed), Disk()
        file = disk.create("a")
        for _ in range(rng.randrange(1, 20)):
            if rng.random() < 0.3:
                file.truncate(rng.randrange(3 * SECTOR))
            else:
                file.write(rng.randrange(4 * SECTOR), rng.randbytes(rng.randrange(1, 3 * SECTOR)))
            if rng.random() < 0.3:
                file.sync()
        file.sync()
        disk.sync_folder("")
        assert content(disk.after_cut(rng), "a") == file.now


def test_of_what_was_not_synced_each_sector_is_new_or_old() -> None:
    seen = set()
    for seed in SEEDS:
        disk = Disk()
        file = disk.create("a")
        file.write(0, b"o" * 2 * SECTOR)
        file.sync()
        disk.sync_folder("")
        file.write(0, b"n" * 2 * SECTOR)
        left = content(disk.after_cut(Random(seed)), "a")
        assert left is not None
        seen.add((left[:SECTOR], left[SECTOR:]))
    parts = (b"o" * SECTOR, b"n" * SECTOR)
    assert seen == {(first, second) for first in parts for second in parts}


def test_a_name_is_durable_once_its_folder_is_synced() -> None:
    found = set()
    for seed in SEEDS:
        disk = Disk()
        disk.create("a").sync()
        disk.create("b").sync()
        disk.sync_folder("")
        disk.unlink("a")
        disk.make_folder("c")
        disk.create("c/d").sync()
        disk.sync_folder("c")
        after = disk.after_cut(Random(seed))
        assert after.find("b") is not None
        found.add((after.find("a") is None, after.find("c/d") is None))
    assert found == {(False, False), (False, True), (True, False), (True, True)}


def test_a_rename_never_loses_both_names() -> None:
    found = set()
    for seed in SEEDS:
        disk = Disk()
        disk.create("a").sync()
        disk.make_folder("b")
        disk.sync_folder("")
        disk.rename("a", "b/c")
        if seed % 2:
            disk.sync_folder("b")
        after = disk.after_cut(Random(seed))
        found.add((seed % 2, after.find("a") is None, after.find("b/c") is None))
    assert found == {(0, False, True), (0, True, False), (1, True, False)}


def test_after_a_sync_that_failed_the_next_one_does_not_bring_it_back() -> None:
    disk = Disk()
    file = disk.create("a")
    disk.sync_folder("")
    file.write(0, b"lost")
    file.sync_failed()
    file.sync()
    assert file.now == b"lost"
    assert content(disk.after_cut(Random(1)), "a") == b""
