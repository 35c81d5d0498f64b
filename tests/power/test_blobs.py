"""A blob under its digest is whole, and one that was acknowledged is there, after any cut (T34)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from hanse.core.errors import Broken
from hanse.core.ids import Digest
from hanse.storage import folded, incoming
from hanse.storage.blobs import BlobStore
from hanse.storage.connections import lock_folder
from hanse.storage.folded import FoldedBlobs
from power.blobs import CONTENTS, DIGESTS, HOME, Lost, Store
from power.disk import Disk
from power.folded import BASE, NEW, Folding
from power.recorder import Deaf, Recorder, restore

SEEDS, CUTS = 40, 5


@pytest.fixture(autouse=True)
def _often_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "MARK_EVERY_BYTES", 2000)


def test_no_power_cut_leaves_a_blob_that_is_not_whole_or_loses_one(tmp_path: Path) -> None:
    cuts = kept = 0
    for seed in range(SEEDS):
        (tmp_path / f"{seed}").mkdir()
        store = Store(seed, tmp_path / f"{seed}")
        store.run(CUTS)
        cuts, kept = cuts + store.cuts, kept + len(store.kept)
    assert cuts >= 200
    assert kept > SEEDS


SYNCS: dict[str, Deaf] = {
    "of the bytes, before their name": lambda who, _: who == "publish",
    "of the folder, after the name": lambda _, path: path.startswith(f"{HOME}/blobs/sha256/"),
    "of the folder of folders": lambda _, path: path == f"{HOME}/blobs/sha256",
    "of a pin": lambda _, path: path.startswith(f"{HOME}/blobs/pins/"),
    "of the folder of pins": lambda _, path: path == f"{HOME}/blobs/pins",
    "of the folders that it makes": lambda _, path: path == f"{HOME}/blobs",
    "of their folder": lambda _, path: path == HOME,
    "of the home": lambda _, path: path == "home",
}


@pytest.mark.parametrize("sync", SYNCS)
def test_every_fsync_of_the_blob_store_is_needed(sync: str, tmp_path: Path) -> None:
    for seed in range(SEEDS):
        (tmp_path / f"{seed}").mkdir()
        try:
            Store(seed, tmp_path / f"{seed}", SYNCS[sync]).run(CUTS)
        except Lost:
            return
    raise AssertionError("no loss was seen without it")


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded, "SAVED_BYTES_MIN", 1)


@pytest.mark.usefixtures("_small")
def test_no_power_cut_between_folding_and_unfolding_loses_a_blob(tmp_path: Path) -> None:
    done = unfolded = 0
    for seed in range(SEEDS):
        (tmp_path / f"{seed}").mkdir()
        store = Folding(seed, tmp_path / f"{seed}")
        store.run(CUTS)
        done, unfolded = done + store.folded, unfolded + store.unfolded
    assert done > SEEDS  # what was not tried proves nothing
    assert unfolded > SEEDS // 4


@pytest.mark.usefixtures("_small")
def test_killed_between_any_two_steps_of_folding_a_blob_is_there(tmp_path: Path) -> None:
    """Fold, unfold, fold again, delete what it leans on."""
    base, tuned = (Digest.of(raw) for raw in (BASE, NEW[0]))
    last = 0
    while True:
        last += 1
        place, disk = tmp_path / f"{last}", Disk()
        place.mkdir()
        recorder = Recorder(place, disk)
        with recorder.recording():
            store = FoldedBlobs(place)
            for raw in (BASE, NEW[0]):
                with store.writer(len(raw)) as writer:
                    writer.write(raw)
                    writer.commit()
            disk.changes, disk.before = 0, cut_at(disk, last)
            try:
                assert store.fold(tuned, base) > 0
                store.unfold(tuned)
                assert store.fold(tuned, base) > 0
                store.delete(base)
            except Broken:
                done = False
            else:
                done = True
        recorder.check()
        again = FoldedBlobs(place)
        again.sweep_temporaries()
        for digest in again.list():
            again.open_verified(digest).close()
        assert tuned in again.list()
        assert not (done and base in again.list())
        assert not list((place / "blobs/incoming").iterdir())
        if done:
            break
    assert last > 40


def cut_at(disk: Disk, last: int) -> Callable[[int, str], None]:
    def before(change: int, _: str) -> None:
        if change >= last:
            raise disk.cut()

    return before


FOLDING_SYNCS: dict[str, Deaf] = {
    "of the payloads, before their name": lambda who, _: who == "_write_payloads",
    "of the folder of payloads": lambda _, path: path == f"{HOME}/blobs/folded",
    "of the places, before their name": lambda who, _: who == "write_sealed",
    "of the folder of places, behind": lambda _, path: path == f"{HOME}/blobs/places",
    "of the whole file, before its name": lambda who, _: who == "publish",
}


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("sync", FOLDING_SYNCS)
def test_every_fsync_of_folding_is_needed(sync: str, tmp_path: Path) -> None:
    for seed in range(3 * SEEDS):
        (tmp_path / f"{seed}").mkdir()
        try:
            Folding(seed, tmp_path / f"{seed}", FOLDING_SYNCS[sync]).run(CUTS)
        except Lost:
            return
    raise AssertionError("no loss was seen without it")


def resumed(tmp_path: Path, deaf: Deaf) -> set[int]:
    """Where an interrupted fetch goes on after power cuts that have left part and mark."""
    disk, marked, offsets = Disk(), 6000, set()
    (tmp_path / "used").mkdir()
    with (
        Recorder(tmp_path / "used", disk, deaf).recording(),
        BlobStore(tmp_path / "used").writer(len(CONTENTS[3]), DIGESTS[3]) as writer,
    ):
        writer.write(CONTENTS[3][:marked])
    for seed in range(40):
        place = tmp_path / f"{seed}"
        restore(disk.after_cut(Random(seed)), place)
        store = BlobStore(place)
        store.sweep_temporaries()
        mark = place / "blobs/parts" / f"{DIGESTS[3].hex}.mark"
        if mark.exists() and incoming._MARK.fullmatch(mark.read_text("ascii")):
            with store.writer(len(CONTENTS[3]), DIGESTS[3]) as writer:
                offsets.add(writer.offset)
    return offsets


def test_a_mark_never_promises_more_than_there_is(tmp_path: Path) -> None:
    assert resumed(tmp_path, lambda *_: False) == {6000}


def test_without_the_fsync_before_its_mark_a_part_is_lost(tmp_path: Path) -> None:
    assert 0 in resumed(tmp_path, lambda who, _: who == "mark")


def test_the_folder_of_the_registry_is_there_after_a_power_cut(tmp_path: Path) -> None:
    disk = Disk()
    with Recorder(tmp_path, disk).recording():
        os.close(lock_folder(tmp_path / "data"))
    for seed in range(20):
        assert disk.after_cut(Random(seed)).find("data") is not None
