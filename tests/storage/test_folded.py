"""Blobs that lean on others: what is kept of them, what is read, what goes, and what rots."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rot import flip, model

from hanse.core.errors import Conflict, NotFound, Unavailable
from hanse.core.ids import Digest
from hanse.parts.recipe import split
from hanse.storage import folded
from hanse.storage.folded import FoldedBlobs
from hanse.storage.places import Head, parse_places
from hanse.storage.sealed import read_sealed

MIB = 1024**2


BASE = model(1)
TUNED = model(1, (2, 4), label="2")
OTHER = model(2)
DIGESTS = {name: Digest.of(raw) for name, raw in (("b", BASE), ("t", TUNED), ("o", OTHER))}


def put(store: FoldedBlobs, raw: bytes) -> Digest:
    with store.writer(len(raw)) as writer:
        writer.write(raw)
        writer.commit()
    return Digest.of(raw)


def read(store: FoldedBlobs, digest: Digest) -> bytes:
    with store.open_verified(digest) as file:
        return file.read()


def ranges(store: FoldedBlobs, digest: Digest, step: int) -> bytes:
    return b"".join(store.read_range(digest, at, step) for at in range(0, store.size(digest), step))


def folded_files(store: FoldedBlobs) -> list[Path]:
    return [path for kind in ("places", "folded") for path in (store.folder / kind).iterdir()]


def on_disk(store: FoldedBlobs) -> int:
    kinds = [*(store.folder / "sha256").glob("*/*"), *(store.folder / "folded").iterdir()]
    return sum(path.stat().st_size for path in kinds)


@pytest.fixture(autouse=True)
def _folds_what_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded, "SAVED_BYTES_MIN", 1)


@pytest.fixture
def store(tmp_path: Path) -> FoldedBlobs:
    """With a model, and a tuned one that leans on it."""
    made = FoldedBlobs(tmp_path)
    base, tuned = put(made, BASE), put(made, TUNED)
    assert made.fold(tuned, base) > len(TUNED) // 2
    return made


def test_a_folded_blob_is_bit_for_bit_what_it_was(store: FoldedBlobs) -> None:
    base, tuned = DIGESTS["b"], DIGESTS["t"]
    assert store.leans_on(tuned) == (base,)
    assert store.has(tuned)
    assert store.size(tuned) == len(TUNED)
    assert store.list() == tuple(sorted((base, tuned)))
    assert read(store, tuned) == TUNED
    assert ranges(store, tuned, MIB) == ranges(store, tuned, 65_537) == TUNED
    with store.laid_out(tuned) as path:
        assert path.read_bytes() == TUNED
    assert not path.exists()
    assert store.recipe(tuned) == split(TUNED)
    assert list((store.folder / "incoming").iterdir()) == []


def test_it_is_after_a_restart(store: FoldedBlobs) -> None:
    again = FoldedBlobs(store.folder.parent)
    assert again.sweep_temporaries() == 0
    assert again.leans_on(DIGESTS["t"]) == (DIGESTS["b"],)
    assert read(again, DIGESTS["t"]) == TUNED


def test_what_it_takes_is_what_is_on_the_disk(store: FoldedBlobs) -> None:
    base, tuned = DIGESTS["b"], DIGESTS["t"]
    assert on_disk(store) == store.occupied(base) + store.occupied(tuned)
    assert store.occupied(tuned) < len(TUNED) * 0.25
    assert store.room([base, tuned]) == on_disk(store)
    before, room = on_disk(store), store.room([base])
    assert store.delete(base) == room
    assert on_disk(store) == before - room == len(TUNED)


def test_deleting_what_others_lean_on_makes_them_whole_first(store: FoldedBlobs) -> None:
    base, tuned = DIGESTS["b"], DIGESTS["t"]
    came_s, before = store.came_s(tuned), on_disk(store)
    store.pin(tuned, "release-2")
    grown = store.stand_alone([base])
    assert before + grown == on_disk(store) == len(BASE) + len(TUNED)
    assert store.leans_on(tuned) == ()
    assert store.came_s(tuned) == came_s
    assert store.stand_alone([base]) == 0
    assert store.delete(base) == len(BASE)
    assert read(store, tuned) == TUNED
    assert folded_files(store) == []
    with pytest.raises(Conflict):
        store.delete(tuned)


def test_when_both_go_nothing_is_made_whole(store: FoldedBlobs) -> None:
    base, tuned = DIGESTS["b"], DIGESTS["t"]
    assert store.stand_alone([base, tuned]) == 0
    room = store.room([base, tuned])
    assert store.delete(tuned) + store.delete(base) == room
    assert on_disk(store) == 0
    for digest in (base, tuned):
        with pytest.raises(NotFound):
            store.size(digest)


def test_a_full_disk_keeps_what_others_lean_on(
    store: FoldedBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_reserve_bytes", 2**62)
    with pytest.raises(Unavailable, match="no room"):
        store.delete(DIGESTS["b"])
    monkeypatch.undo()
    assert read(store, DIGESTS["t"]) == TUNED


def test_depth_is_one(store: FoldedBlobs) -> None:
    base, tuned = DIGESTS["b"], DIGESTS["t"]
    other = put(store, OTHER)
    assert store.fold(base, other) == 0  # something leans on it
    third = put(store, model(1, (2, 4, 5)))
    with pytest.raises(NotFound):
        store.fold(third, tuned)  # it is no whole file
    assert store.fold(third, base) > 0
    assert store.fold(base, base) == 0


def test_what_saves_little_stays_whole(store: FoldedBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    other = put(store, Random(5).randbytes(400_000))
    assert store.fold(other, DIGESTS["b"]) == 0  # less than a tenth
    small = put(store, TUNED[:200_000])
    monkeypatch.setattr(folded, "SAVED_BYTES_MIN", 150_000)
    assert store.fold(small, DIGESTS["b"]) == 0
    assert store.leans_on(other) == store.leans_on(small) == ()
    assert store.sweep_temporaries() == 0


def test_what_is_laid_out_is_not_folded_meanwhile(tmp_path: Path) -> None:
    store = FoldedBlobs(tmp_path)
    base, tuned = put(store, BASE), put(store, TUNED)
    with store.laid_out(tuned) as path:
        assert store.fold(tuned, base) == 0
        assert path.read_bytes() == TUNED
    assert store.fold(tuned, base) > 0


class Racing(FoldedBlobs):
    """Something happens when all has been written and nothing has been left out yet."""

    def race(self) -> None: ...

    def _leave_out(self, digest: Digest, base: Digest, head: Head) -> int:
        race, self.race = self.race, lambda: None  # type: ignore[method-assign]
        race()
        return super()._leave_out(digest, base, head)


@pytest.mark.parametrize("race", ["the base goes", "something leans on it", "the base is folded"])
def test_what_happens_at_the_last_moment_leaves_it_whole(race: str, tmp_path: Path) -> None:
    store = Racing(tmp_path)
    base, tuned = put(store, BASE), put(store, TUNED)
    third = put(store, model(1, (2, 5)))
    deeds = {
        "the base goes": lambda: store.delete(base),
        "something leans on it": lambda: store.fold(third, tuned),
        "the base is folded": lambda: store.fold(base, third),
    }
    store.race = deeds[race]  # type: ignore[method-assign, assignment]
    assert store.fold(tuned, base) == 0
    assert store.leans_on(tuned) == ()
    for digest in store.list():
        assert store.check(digest, lambda _: None) == ()
    assert read(store, tuned) == TUNED


def test_a_file_that_comes_again_counts_more_than_what_is_folded(store: FoldedBlobs) -> None:
    put(store, TUNED)
    assert store.leans_on(DIGESTS["t"]) == ()
    assert store.delete(DIGESTS["b"]) == len(BASE)
    assert read(store, DIGESTS["t"]) == TUNED


def test_readers_see_one_blob_while_it_is_folded_and_unfolded(tmp_path: Path) -> None:
    store = FoldedBlobs(tmp_path)
    base, tuned = put(store, BASE), put(store, TUNED)
    wrong: list[object] = []
    over = threading.Event()

    def look(seed: int) -> None:
        rng = Random(seed)
        while not over.is_set():
            at = rng.randrange(len(TUNED))
            try:
                if store.read_range(tuned, at, 5000) != TUNED[at : at + 5000]:
                    wrong.append(at)
                if not store.has(tuned) or store.size(tuned) != len(TUNED):
                    wrong.append("not here")
            except Exception as error:  # whatever it is, a reader must not see it
                wrong.append(error)

    readers = [threading.Thread(target=look, args=(n,)) for n in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(5):
        assert store.fold(tuned, base) > 0
        store.unfold(tuned)
    over.set()
    for reader in readers:
        reader.join()
    assert wrong == []


# -- rot -----------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(kind=st.sampled_from(["folded", "places", "base", "recipe"]), bit=st.integers(0, 2**40))
def test_whichever_bit_flips_it_is_found_and_named(
    kind: str, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = FoldedBlobs(tmp_path_factory.mktemp("rot"))
    base, tuned = put(store, BASE), put(store, TUNED)
    store.fold(tuned, base)
    store.recipe(base)
    path = {
        "folded": store.folder / "folded" / tuned.hex,
        "places": store.folder / "places" / tuned.hex,
        "base": store.folder / "sha256" / base.hex[:2] / base.hex[2:],
        "recipe": store.folder / "recipes" / base.hex,
    }[kind]
    flip(path, bit)
    found, lost = [], []
    for digest in (tuned, base):
        try:
            found += store.check(digest, lambda _: None)
        except (Unavailable, NotFound):
            lost.append(digest)
    if kind == "recipe":
        assert (found, lost) == (["recipe"], [])
        assert store.recipe(base) == split(BASE)
        return
    culprit, raw = (base, BASE) if kind == "base" else (tuned, TUNED)
    assert culprit in lost
    assert store.lost() == (culprit,)
    assert not store.has(tuned)  # it is, or it leans on it
    put(store, raw)
    for digest, content in ((tuned, TUNED), (base, BASE)):
        assert store.has(digest)
        assert store.check(digest, lambda _: None) == ()
        assert read(store, digest) == content


def test_readers_never_see_what_rots(store: FoldedBlobs) -> None:
    """But for parts that are copied from a whole file: their receiver hashes them."""
    path = store.folder / "folded" / DIGESTS["t"].hex
    flip(path, 8 * 2000)
    with pytest.raises(Unavailable, match="damaged"):
        ranges(store, DIGESTS["t"], MIB)
    assert store.lost() == (DIGESTS["t"],)


def test_damage_is_not_folded_in(tmp_path: Path) -> None:
    for rotten in ("t", "b"):
        store = FoldedBlobs(tmp_path / rotten)
        base, tuned = put(store, BASE), put(store, TUNED)
        store.recipe(base), store.recipe(tuned)
        digest = DIGESTS[rotten]
        flip(store.folder / "sha256" / digest.hex[:2] / digest.hex[2:], 8 * 200_000)
        with pytest.raises(Unavailable, match="damaged"):
            store.fold(tuned, base)
        assert store.lost() == (digest,)
        assert store.list() == tuple({base, tuned} - {digest})


def test_places_that_cannot_be_read_at_a_start_are_lost(store: FoldedBlobs) -> None:
    flip(store.folder / "places" / DIGESTS["t"].hex, 7000)
    again = FoldedBlobs(store.folder.parent)
    again.sweep_temporaries()
    assert not again.has(DIGESTS["t"])
    assert again.lost() == (DIGESTS["t"],)
    assert list((store.folder / "folded").iterdir()) == []


def test_a_payload_that_vanished_is_damage(store: FoldedBlobs) -> None:
    (store.folder / "folded" / DIGESTS["t"].hex).unlink()
    with pytest.raises(Unavailable, match="damaged"):
        read(store, DIGESTS["t"])
    assert not store.has(DIGESTS["t"])


def test_what_leans_on_a_lost_file_waits_for_it(store: FoldedBlobs) -> None:
    base, tuned = DIGESTS["b"], DIGESTS["t"]
    (store.folder / "sha256" / base.hex[:2] / base.hex[2:]).unlink()
    assert not store.has(tuned)
    with pytest.raises(NotFound):
        read(store, tuned)
    assert tuned in store.list()  # so that a collection may remove it
    again = FoldedBlobs(store.folder.parent)
    again.sweep_temporaries()
    put(again, BASE)
    assert read(again, tuned) == TUNED


# -- what lies on the disk ------------------------------------------------------------------------


def test_places_say_all_that_a_reader_needs(store: FoldedBlobs) -> None:
    raw = read_sealed(store.folder / "places" / DIGESTS["t"].hex, 2**30)
    assert raw is not None
    places = parse_places(raw)
    assert places.encode() == raw
    assert places.recipe == split(TUNED)
    assert {place.base for place in places.each if place.base} == {DIGESTS["b"]}
    assert sum(1 for place in places.each if place.length) == 3  # two tuned tensors, the header


class Enough(Exception):
    pass


def test_a_folding_may_be_ended_at_any_part(tmp_path: Path) -> None:
    store = FoldedBlobs(tmp_path)
    base, tuned = put(store, BASE), put(store, TUNED)
    parts = 0
    while not store.leans_on(tuned):
        parts += 1
        left = iter(range(parts))

        def read(_: int) -> None:
            if next(left, None) is None:  # noqa: B023  # called within this turn
                raise Enough

        with contextlib.suppress(Enough):
            store.fold(tuned, base, read=read)
        assert store.sweep_temporaries() <= 2
        for digest, raw in ((base, BASE), (tuned, TUNED)):
            with store.open_verified(digest) as file:
                assert file.read() == raw
    assert parts > 10


def test_a_folding_that_does_not_read_back_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FoldedBlobs(tmp_path)
    base, tuned = put(store, BASE), put(store, TUNED)
    monkeypatch.setattr(folded, "write_all", lambda fd, data: os.write(fd, bytes(len(data))))
    assert store.fold(tuned, base) == 0
    assert read(store, tuned) == TUNED
    assert folded_files(store) == []
    assert store.lost() == ()
