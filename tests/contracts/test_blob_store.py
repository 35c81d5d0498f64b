"""One suite for every blob store: a name is given only to bytes that have that digest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import pytest
from buckets import S3Server, blobs_in, folder_bucket, memory_bucket, moto, rot
from memory_blobs import MemoryBlobs

from hanse.core.errors import (
    Broken,
    Conflict,
    InvalidName,
    InvalidProof,
    NotFound,
    TooLarge,
    Unavailable,
)
from hanse.core.ids import Digest
from hanse.parts.recipe import split
from hanse.parts.tensors import Span
from hanse.storage import folded
from hanse.storage.blobs import Blobs, BlobStore
from hanse.storage.bucket import BucketBlobs
from hanse.storage.folded import FoldedBlobs
from hanse.storage.incoming import BlobWriter
from hanse.storage.objects import Bucket, open_bucket

__all__ = ["moto"]

BYTES = bytes(range(256)) * 40
DIGEST = Digest.of(BYTES)
NEAR = BYTES[:6000] + b"another release"
NEAR_DIGEST = Digest.of(NEAR)


class Folding(FoldedBlobs):
    """Whatever comes is folded at once, onto a file that the tests do not see."""

    def __init__(self, folder: Path, **more: int) -> None:
        super().__init__(folder, **more)
        if not BlobStore.has(self, NEAR_DIGEST) and not more:
            put(super(), NEAR)  # type: ignore[arg-type]

    def writer(self, size: int, digest: Digest | None = None) -> BlobWriter:
        writer = super().writer(size, digest)
        commit = writer.commit

        def committed() -> Path:
            path = commit()
            self.fold(Digest(path.parent.name + path.name), NEAR_DIGEST)
            return path

        writer.commit = committed  # type: ignore[method-assign]
        return writer

    def list(self) -> tuple[Digest, ...]:
        return tuple(digest for digest in super().list() if digest != NEAR_DIGEST)


@pytest.fixture(autouse=True)
def _folds_what_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded, "SAVED_BYTES_MIN", 1)


def flip(path: Path, position: int) -> None:
    rotten = bytearray(path.read_bytes())
    rotten[position % len(rotten)] ^= 1
    path.write_bytes(rotten)


class Kind(NamedTuple):
    name: str
    folder: Path
    bucket: Bucket | None = None

    def make(self, **more: int) -> Blobs:
        if self.bucket is not None:
            return blobs_in(self.bucket, self.folder, **more)
        match self.name:
            case "disk":
                return BlobStore(self.folder, **more)
            case "folded":
                return Folding(self.folder, **more)
        return MemoryBlobs()

    def restart(self, store: Blobs) -> Blobs:
        if isinstance(store, MemoryBlobs):
            return store.crash()
        again = self.make()
        again.sweep_temporaries()
        return again

    def damage(self, store: Blobs, position: int) -> None:
        if isinstance(store, MemoryBlobs):
            store.damage(DIGEST, position)
        elif isinstance(store, BucketBlobs):
            assert self.bucket is not None
            for copy in self.bucket.find(f"blobs/{DIGEST.hex}/"):
                rot(self.bucket, copy.key, position)
            store.cache.forget(DIGEST)
        elif isinstance(store, Folding):
            assert store.leans_on(DIGEST)
            flip(store.folder / "folded" / DIGEST.hex, position)
        else:
            with store.laid_out(DIGEST) as path:
                path.chmod(0o600)
                flip(path, position)

    def full(self) -> Blobs:
        if self.name == "memory":
            return MemoryBlobs(capacity_bytes=len(BYTES) - 1)
        return self.make(reserve_bytes=2**62)


@pytest.fixture(
    params=["disk", "folded", "memory", "bucket in memory", "bucket in a folder", "bucket on S3"]
)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    match request.param:
        case "bucket in memory":
            bucket = memory_bucket()
        case "bucket in a folder":
            bucket = folder_bucket(tmp_path / "bucket")
        case "bucket on S3":
            server: S3Server = request.getfixturevalue("moto")
            bucket = open_bucket(server.place(tmp_path))
        case _:
            bucket = None
    return Kind(request.param, tmp_path / "home", bucket)


@pytest.fixture
def store(kind: Kind) -> Blobs:
    return kind.make()


def put(store: Blobs, raw: bytes = BYTES) -> Digest:
    with store.writer(len(raw)) as writer:
        writer.write(raw)
        writer.commit()
    return Digest.of(raw)


def test_a_blob_is_named_by_its_bytes(store: Blobs) -> None:
    with store.writer(len(BYTES)) as writer:
        for start in range(0, len(BYTES), 1000):
            writer.write(BYTES[start : start + 1000])
        assert not store.has(DIGEST)
        writer.commit()
    assert store.has(DIGEST)
    assert store.size(DIGEST) == len(BYTES)
    assert store.list() == (DIGEST,)
    with store.open_verified(DIGEST) as file:
        assert file.read() == BYTES


def test_an_empty_blob_is_a_blob(store: Blobs) -> None:
    digest = put(store, b"")
    assert store.size(digest) == 0


def test_what_is_not_here_is_not_found(store: Blobs) -> None:
    assert not store.has(DIGEST)
    for ask in (store.size, store.open_verified, store.recipe, store.delete):
        with pytest.raises(NotFound):
            ask(DIGEST)
    with pytest.raises(NotFound):
        store.read_range(DIGEST, 0, 1)
    with pytest.raises(NotFound), store.laid_out(DIGEST):
        pass


def test_a_wrong_digest_is_never_published_nor_resumed(store: Blobs) -> None:
    with store.writer(len(BYTES), DIGEST) as writer:
        writer.write(BYTES[:-1] + b"!")
        with pytest.raises(InvalidProof):
            writer.commit()
    assert store.list() == ()
    with store.writer(len(BYTES), DIGEST) as writer:
        assert writer.offset == 0


@pytest.mark.parametrize("digest", [DIGEST, None])
def test_a_truncated_blob_is_never_published(store: Blobs, digest: Digest | None) -> None:
    with store.writer(len(BYTES), digest) as writer:
        writer.write(BYTES[:-1])
        with pytest.raises(InvalidProof, match="ended after"):
            writer.commit()
    assert store.list() == ()


@pytest.mark.parametrize("digest", [DIGEST, None])
def test_more_than_declared_is_refused_while_it_streams(
    store: Blobs, digest: Digest | None
) -> None:
    with store.writer(len(BYTES) - 1, digest) as writer:
        writer.write(BYTES[:100])
        with pytest.raises(TooLarge):
            writer.write(BYTES[100:])
        with pytest.raises(Broken):
            writer.write(b"more")
    assert store.list() == ()


def test_a_declared_size_beyond_all_bounds_is_refused(store: Blobs) -> None:
    for size in (-1, 2**50):
        with pytest.raises(TooLarge):
            store.writer(size)


def test_the_same_blob_twice_is_one_blob(store: Blobs) -> None:
    assert put(store) == put(store)
    with store.writer(len(BYTES), DIGEST) as writer:
        writer.write(BYTES)
        writer.commit()
    assert store.list() == (DIGEST,)


def test_an_interrupted_fetch_resumes_after_a_restart(kind: Kind, store: Blobs) -> None:
    with store.writer(len(BYTES), DIGEST) as writer:
        writer.write(BYTES[:5000])
    assert not store.has(DIGEST)
    again = kind.restart(store)
    with again.writer(len(BYTES), DIGEST) as writer:
        assert writer.offset == 5000
        writer.write(BYTES[5000:])
        writer.commit()
    with again.open_verified(DIGEST) as file:
        assert file.read() == BYTES
    with again.writer(len(BYTES), DIGEST) as writer:
        assert writer.offset == 0


def test_a_part_resumes_more_than_once(store: Blobs) -> None:
    for start, end in ((0, 10), (10, 10), (10, 4000), (4000, 9000)):
        with store.writer(len(BYTES), DIGEST) as writer:
            assert writer.offset == start
            writer.write(BYTES[start:end])
    with store.writer(len(BYTES), DIGEST) as writer:
        writer.write(BYTES[9000:])
        writer.commit()
    assert store.has(DIGEST)


def test_an_aborted_fetch_begins_anew(store: Blobs) -> None:
    with store.writer(len(BYTES), DIGEST) as writer:
        writer.write(BYTES[:5000])
        writer.abort()
    with store.writer(len(BYTES), DIGEST) as writer:
        assert writer.offset == 0


def test_a_digest_has_one_writer_at_a_time(store: Blobs) -> None:
    with store.writer(len(BYTES), DIGEST) as writer:
        with pytest.raises(Unavailable):
            store.writer(len(BYTES), DIGEST)
        writer.write(BYTES)
        writer.commit()
    store.writer(len(BYTES), DIGEST).abort()


@pytest.mark.parametrize("position", [0, 5000, len(BYTES) - 1])
def test_a_flipped_bit_is_found_on_load_and_healed_by_a_fetch(
    kind: Kind, store: Blobs, position: int
) -> None:
    put(store)
    kind.damage(store, position)
    with pytest.raises(Unavailable, match="damaged"):
        store.open_verified(DIGEST)
    assert not store.has(DIGEST)
    put(store)
    store.open_verified(DIGEST).close()


def test_a_damaged_copy_is_replaced_by_a_fresh_one(kind: Kind, store: Blobs) -> None:
    put(store)
    kind.damage(store, 7)
    put(store)
    store.open_verified(DIGEST).close()


def test_a_pinned_blob_cannot_be_deleted(kind: Kind, store: Blobs) -> None:
    store.pin(DIGEST, "rollback-ocr")
    put(store)
    store.pin(DIGEST, "edge-7")
    store.pin(DIGEST, "edge-7")
    again = kind.restart(store)
    assert again.pins(DIGEST) == ("edge-7", "rollback-ocr")
    with pytest.raises(Conflict, match="rollback-ocr"):
        again.delete(DIGEST)
    again.unpin(DIGEST, "edge-7")
    with pytest.raises(Conflict):
        again.delete(DIGEST)
    again.unpin(DIGEST, "rollback-ocr")
    again.unpin(DIGEST, "rollback-ocr")
    again.delete(DIGEST)
    assert not again.has(DIGEST)
    assert again.pins(DIGEST) == ()


def test_a_pin_is_a_name_and_never_a_path(store: Blobs) -> None:
    for name in ("../escape", "a/b", "", "."):
        with pytest.raises(InvalidName):
            store.pin(DIGEST, name)
        with pytest.raises(InvalidName):
            store.unpin(DIGEST, name)


def test_a_reader_finishes_a_blob_that_is_deleted(store: Blobs) -> None:
    put(store)
    with store.open_verified(DIGEST) as file:
        store.delete(DIGEST)
        assert file.read() == BYTES


def test_ranges_are_bounded(store: Blobs) -> None:
    put(store)
    assert store.read_range(DIGEST, 100, 50) == BYTES[100:150]
    assert store.read_range(DIGEST, len(BYTES) - 5, 50) == BYTES[-5:]
    assert store.read_range(DIGEST, len(BYTES) + 5, 50) == b""
    for start, length in ((0, 1024 * 1024 + 1), (-1, 5), (0, -1), (2**64, 1)):
        with pytest.raises(TooLarge):
            store.read_range(DIGEST, start, length)


@pytest.mark.parametrize("raw", [BYTES, b""])
def test_a_recipe_is_made_once_and_kept(kind: Kind, store: Blobs, raw: bytes) -> None:
    digest = put(store, raw)
    if not isinstance(store, Folding):  # whoever folds knows it since then
        assert store.known_recipe(digest) is None
    assert store.recipe(digest) == store.known_recipe(digest) == split(raw)
    assert kind.restart(store).recipe(digest) == split(raw)


def test_the_tensors_of_external_data_are_told_by_their_model(store: Blobs) -> None:
    put(store)
    if isinstance(store, Folding):  # whoever folds says it then
        store.unfold(DIGEST)
    found = (Span(0, 8192, "w", "F32", (2048,)),)
    recipe = store.recipe(DIGEST, lambda: found)
    assert recipe == split(BYTES, found)
    assert recipe != split(BYTES)


def test_damaged_bytes_have_no_recipe_and_are_gone(kind: Kind, store: Blobs) -> None:
    put(store)
    kind.damage(store, 5000)
    known_before = isinstance(store, Folding)
    with pytest.raises(Unavailable, match="damaged"):
        store.check(DIGEST, [].append) if known_before else store.recipe(DIGEST)
    assert not store.has(DIGEST)
    put(store)
    assert store.recipe(DIGEST) == split(BYTES)


def test_pieces_may_come_in_any_order_and_outlive_a_restart(kind: Kind, store: Blobs) -> None:
    first = store.unfinished(len(BYTES), DIGEST)
    assert not first.begun
    first.write(6000, BYTES[6000:])
    first.close()
    again = kind.restart(store)
    assert not again.has(DIGEST)
    rest = again.unfinished(len(BYTES), DIGEST)
    assert rest.begun
    assert rest.read(6000, 100) == BYTES[6000:6100]
    assert rest.read(0, 10) == bytes(10)
    rest.write(0, BYTES[:6000])
    rest.commit()
    with again.open_verified(DIGEST) as file:
        assert file.read() == BYTES
    fresh = again.unfinished(len(BYTES), DIGEST)
    assert not fresh.begun
    fresh.abort()


def test_what_is_not_the_blob_is_never_named_and_can_be_put_right(store: Blobs) -> None:
    coming = store.unfinished(len(BYTES), DIGEST)
    for start in range(0, len(BYTES), 1000):
        coming.write(start, BYTES[start : start + 1000])
    coming.write(5000, b"!")
    for _ in range(2):
        with pytest.raises(InvalidProof):
            coming.commit()
    assert store.list() == ()
    coming.write(5000, BYTES[5000:5001])
    coming.commit()
    assert store.has(DIGEST)


def test_what_is_written_over_what_was_hashed_is_hashed_again(store: Blobs) -> None:
    """Or wrong bytes would have the name of those that lay there before."""
    coming = store.unfinished(len(BYTES), DIGEST)
    coming.write(0, BYTES)
    coming.hash_on(len(BYTES))
    coming.write(5000, b"!")
    with pytest.raises(InvalidProof):
        coming.commit()
    coming.write(5000, BYTES[5000:5001])
    coming.hash_on(len(BYTES) // 2)
    coming.commit()
    assert store.has(DIGEST)


def test_what_is_kept_is_hashed_on_the_way_but_never_believed(store: Blobs) -> None:
    coming = store.unfinished(len(BYTES), DIGEST)
    coming.write(0, BYTES[:-1] + b"!")
    coming.kept(0, BYTES[:100])
    with pytest.raises(InvalidProof):
        coming.commit()
    coming.abort()


def test_a_digest_comes_once_at_a_time_within_its_size(store: Blobs) -> None:
    coming = store.unfinished(len(BYTES), DIGEST)
    with pytest.raises(Unavailable):
        store.unfinished(len(BYTES), DIGEST)
    for start, data in ((len(BYTES), b"x"), (-1, b"x"), (len(BYTES) - 1, b"xx")):
        with pytest.raises(TooLarge):
            coming.write(start, data)
    coming.abort()
    again = store.unfinished(len(BYTES), DIGEST)
    assert not again.begun
    again.close()
    with pytest.raises(TooLarge):
        store.unfinished(2**50, DIGEST)


def test_an_empty_file_comes_too(store: Blobs) -> None:
    store.unfinished(0, Digest.of(b"")).commit()
    assert store.has(Digest.of(b""))


def test_a_blob_is_laid_out_as_a_file(store: Blobs) -> None:
    put(store)
    with store.laid_out(DIGEST) as path:
        assert path.read_bytes() == BYTES


def test_a_full_disk_refuses_before_the_first_byte(kind: Kind) -> None:
    full = kind.full()
    for digest in (DIGEST, None):
        with pytest.raises(Unavailable, match="no room"):
            full.writer(len(BYTES), digest)
    with pytest.raises(Unavailable, match="no room"):
        full.unfinished(len(BYTES), DIGEST)
    assert full.list() == ()


def test_a_blob_is_as_old_as_its_last_renewal(store: Blobs) -> None:
    put(store)
    before = store.came_s(DIGEST)
    assert abs(before - time.time()) < 60
    store.renew(DIGEST)
    assert store.came_s(DIGEST) >= before
    store.delete(DIGEST)
    store.renew(DIGEST)
    assert not store.has(DIGEST)
    with pytest.raises(NotFound):
        store.came_s(DIGEST)


def test_what_a_deletion_gives_back_is_what_was_promised(store: Blobs) -> None:
    put(store)
    room = store.room([DIGEST])
    assert 0 < room <= len(BYTES)
    assert store.occupied(DIGEST) == room
    assert store.stand_alone([DIGEST]) == 0
    assert store.delete(DIGEST) == room
    store.settle()
    assert store.list() == ()


def test_a_check_reads_all_and_finds_nothing_wrong(store: Blobs) -> None:
    put(store)
    read: list[int] = []
    assert store.check(DIGEST, read.append) == ()
    assert sum(read) >= len(BYTES)
    assert store.lost() == ()


def test_a_check_finds_what_rots_and_tells_once_that_it_is_lost(kind: Kind, store: Blobs) -> None:
    put(store)
    kind.damage(store, 5000)
    with pytest.raises(Unavailable, match="damaged"):
        store.check(DIGEST, [].append)
    assert not store.has(DIGEST)
    assert store.lost() == (DIGEST,)
    assert store.lost() == ()


def test_whoever_finds_damage_it_is_told(kind: Kind, store: Blobs) -> None:
    put(store)
    kind.damage(store, 5000)
    with pytest.raises(Unavailable):
        store.open_verified(DIGEST)
    assert store.lost() == (DIGEST,)
