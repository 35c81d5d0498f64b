"""What only a disk can do: crash, fill up, keep leftovers."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from hanse.core.errors import Broken, Unavailable
from hanse.core.ids import Digest
from hanse.parts.recipe import Recipe, split
from hanse.storage import incoming, recipes, unfinished
from hanse.storage.blobs import UNFINISHED_KEPT_S, BlobStore

BYTES = os.urandom(4096) * 25
DIGEST = Digest.of(BYTES)


def fetch(store: BlobStore) -> None:
    with store.writer(len(BYTES), DIGEST) as writer:
        writer.write(BYTES[writer.offset :])
        writer.commit()


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_five_percent_stay_free_counting_what_is_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1000, 900, 100))
    with pytest.raises(Unavailable, match="no room"):
        store.writer(51)
    first = store.writer(30)
    with pytest.raises(Unavailable, match="30 promised"):
        store.writer(21)
    first.write(b"x" * 10)
    first.abort()
    store.writer(50).abort()


@pytest.mark.parametrize("position", [0, 60_000])
def test_a_part_that_rotted_is_begun_anew(tmp_path: Path, position: int) -> None:
    store = BlobStore(tmp_path)
    with store.writer(len(BYTES), DIGEST) as writer:
        writer.write(BYTES[:70_000])
    part = tmp_path / "blobs" / "parts" / DIGEST.hex
    rotten = bytearray(part.read_bytes())
    rotten[position] ^= 1
    part.write_bytes(rotten)
    with store.writer(len(BYTES), DIGEST) as writer:
        assert writer.offset == 0
        writer.write(BYTES)
        writer.commit()
    store.open_verified(DIGEST).close()


def test_what_was_written_after_the_last_mark_is_cut_off(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    with store.writer(len(BYTES), DIGEST) as writer:
        writer.write(BYTES[:70_000])
    with (tmp_path / "blobs" / "parts" / DIGEST.hex).open("ab") as part:
        part.write(BYTES)
    with store.writer(len(BYTES), DIGEST) as writer:
        assert writer.offset == 70_000
        writer.write(BYTES[70_000:])
        writer.commit()
    store.open_verified(DIGEST).close()


def test_a_part_that_was_published_meanwhile_is_not_written_to(tmp_path: Path) -> None:
    part = tmp_path / "part"
    fd = os.open(part, os.O_RDWR | os.O_CREAT)  # opened, but the other writer is faster
    try:
        part.rename(tmp_path / "published")
        with pytest.raises(Unavailable, match="another fetch"):
            incoming.lock_part(fd, part)
        part.write_bytes(b"the next fetch")
        with pytest.raises(Unavailable, match="another fetch"):
            incoming.lock_part(fd, part)
    finally:
        os.close(fd)


@pytest.mark.parametrize("mark", ["", "99999 zz\n", f"{10**12} {'0' * 64}\n", "\xff"])
def test_a_mark_that_makes_no_sense_is_not_believed(tmp_path: Path, mark: str) -> None:
    store = BlobStore(tmp_path)
    with store.writer(len(BYTES), DIGEST) as writer:
        writer.write(BYTES[:70_000])
    (tmp_path / "blobs" / "parts" / f"{DIGEST.hex}.mark").write_text(mark, "latin-1")
    with store.writer(len(BYTES), DIGEST) as writer:
        assert writer.offset == 0


def test_the_sweep_leaves_only_what_can_be_used(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    other = Digest.of(b"never marked")
    with store.writer(len(BYTES), DIGEST) as writer:
        writer.write(BYTES[:70_000])
    (tmp_path / "blobs" / "incoming" / "left").write_bytes(b"x")
    (tmp_path / "blobs" / "parts" / other.hex).write_bytes(b"x")
    (tmp_path / "blobs" / "parts" / f"{other.hex}.tmp").write_bytes(b"x")
    (tmp_path / "blobs" / "damaged" / other.hex).write_bytes(b"x")
    assert store.sweep_temporaries() == 4
    assert files(tmp_path / "blobs") == [f"parts/{DIGEST.hex}", f"parts/{DIGEST.hex}.mark"]
    with store.writer(len(BYTES), DIGEST) as writer:
        assert writer.offset == 70_000


def test_nothing_is_left_behind_by_a_commit_or_a_refusal(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    with store.writer(len(BYTES), DIGEST) as writer:
        writer.write(BYTES[:100])
    store.writer(len(BYTES), DIGEST).abort()
    assert files(tmp_path / "blobs") == []
    for digest in (None, DIGEST):
        with store.writer(len(BYTES), digest) as writer:
            writer.write(BYTES[:100])
    with store.writer(len(BYTES), DIGEST) as writer:
        writer.write(BYTES[100:])
        path = writer.commit()
    assert files(tmp_path / "blobs") == [str(path.relative_to(tmp_path / "blobs"))]
    assert path.stat().st_mode & 0o222 == 0


CHILD = """
import sys
from pathlib import Path
from hanse.core.ids import Digest
from hanse.storage import incoming, unfinished
from hanse.storage.blobs import UNFINISHED_KEPT_S, BlobStore
incoming.MARK_EVERY_BYTES = 64 * 1024
store = BlobStore(Path(sys.argv[1]))
raw = bytes(1024) * 1024
writer = store.writer(len(raw) * 1024, Digest.of(b"what it will be"))
while True:
    writer.write(raw[:10_000])
    print(writer.offset, flush=True)
"""


@pytest.mark.system
def test_a_killed_fetch_resumes_at_its_last_mark(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    written = 0
    while written < 500_000:
        written = int(child.stdout.readline())
    child.kill()
    child.wait()
    child.stdout.close()
    store = BlobStore(tmp_path)
    assert store.sweep_temporaries() == 0
    with store.writer(1024**3, Digest.of(b"what it will be")) as writer:
        assert writer.offset >= 400_000
        assert writer.offset % 10_000 == 0


class Disk:
    """Fails the n-th of the calls that matter for durability, and notes them all."""

    def __init__(self, fail_at: int, number: int) -> None:
        self.calls: list[str] = []
        self.fail_at = fail_at
        self.number = number

    def wrap(self, name: str, call: object) -> object:
        def wrapped(*args: object, **kwargs: object) -> object:
            self.calls.append(name)
            if len(self.calls) == self.fail_at:
                raise OSError(self.number, os.strerror(self.number))
            return call(*args, **kwargs)  # type: ignore[operator]  # whatever is wrapped

        return wrapped


def spied(monkeypatch: pytest.MonkeyPatch, fail_at: int, number: int) -> Disk:
    disk = Disk(fail_at, number)
    for name in ("write", "fsync", "fchmod"):
        monkeypatch.setattr(os, name, disk.wrap(name, getattr(os, name)))
    monkeypatch.setattr(Path, "replace", disk.wrap("rename", Path.replace))
    return disk


def test_a_blob_is_flushed_before_it_is_named_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore(tmp_path)
    disk = spied(monkeypatch, 0, 0)
    with store.writer(5) as writer:
        writer.write(b"bytes")
        writer.commit()
    assert disk.calls == ["write", "fsync", "fchmod", "rename", "fsync", "fsync"]


def test_a_part_is_flushed_before_it_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore(tmp_path)
    disk = spied(monkeypatch, 0, 0)
    with store.writer(len(BYTES), DIGEST) as writer:
        writer.write(BYTES[:100])
    assert disk.calls == ["write", "fsync", "rename"]


@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, Broken), (errno.ENOSPC, Unavailable)])
@pytest.mark.parametrize("fail_at", range(1, 7))
def test_whichever_call_fails_no_wrong_blob_is_named(
    tmp_path: Path, fail_at: int, number: int, kind: type[Exception]
) -> None:
    store = BlobStore(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        spied(patch, fail_at, number)
        with pytest.raises(kind):
            fetch(store)
    again = BlobStore(tmp_path)
    again.sweep_temporaries()
    if again.has(DIGEST):
        again.open_verified(DIGEST).close()
    fetch(again)
    again.open_verified(DIGEST).close()


@pytest.mark.parametrize("spoil", [b"", b"}", b"0" * 64 + b"\n{}"])
def test_a_damaged_recipe_is_made_again(tmp_path: Path, spoil: bytes) -> None:
    store = BlobStore(tmp_path)
    fetch(store)
    recipe = store.recipe(DIGEST)
    kept = tmp_path / "blobs" / "recipes" / DIGEST.hex
    good = kept.read_bytes()
    for bad in (spoil, good[:-1], good.replace(b'"size":', b'"sizf":'), good + b"\n"):
        kept.write_bytes(bad)
        assert store.recipe(DIGEST) == recipe
        assert kept.read_bytes() == good


def test_a_large_file_is_split_without_holding_all_of_it(tmp_path: Path) -> None:
    path, size = tmp_path / "large", 5 * recipes.MAPPED_BYTES_MAX
    path.write_bytes(random.Random(1).randbytes(size))
    held: list[int] = []

    def noted(data: memoryview, external: None, passed: Callable[[int], None]) -> Recipe:
        def look(end: int) -> None:
            passed(end)
            held.append(resident_shared())

        return split(data, passed=look)

    before = resident_shared()
    with path.open("rb") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "split", noted)
        recipe = recipes.made_recipe(file, None)
    assert recipe == split(path.read_bytes())
    assert max(held) - before < 2 * recipes.MAPPED_BYTES_MAX


def resident_shared() -> int:
    """Bytes of mapped files that this process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")


def test_a_recipe_of_another_file_is_not_believed(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    fetch(store)
    with store.writer(5) as writer:
        writer.write(b"other")
        writer.commit()
    store.recipe(Digest.of(b"other"))
    recipes = tmp_path / "blobs" / "recipes"
    (recipes / Digest.of(b"other").hex).replace(recipes / DIGEST.hex)
    assert store.recipe(DIGEST).digest == DIGEST
    store.delete(DIGEST)
    assert files(recipes) == []


def test_a_disk_that_fills_up_meanwhile_stops_a_fetch_and_keeps_what_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "LOOK_BYTES", 10_000)
    store, usage = BlobStore(tmp_path), Usage(10**9, 0, 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    coming = store.unfinished(len(BYTES), DIGEST)
    coming.write(0, BYTES[:50_000])
    usage = Usage(10**9, 10**9, 1000)
    with pytest.raises(Unavailable, match="no room"):
        coming.write(50_000, BYTES[50_000:])
    coming.close()
    usage = Usage(10**9, 0, 10**9)
    again = store.unfinished(len(BYTES), DIGEST)
    assert again.begun
    assert again.read(0, 50_000) == BYTES[:50_000]
    again.write(50_000, BYTES[50_000:])
    again.commit()
    assert store._promised_bytes == 0


def test_what_nobody_goes_on_with_is_swept_in_the_end(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    for data in (b"old", b"new"):
        with closing(store.unfinished(3, Digest.of(data))) as coming:
            coming.write(0, data)
    old = tmp_path / "blobs/unfinished" / Digest.of(b"old").hex
    os.utime(old, (0, old.stat().st_mtime - UNFINISHED_KEPT_S - 1))
    assert store.sweep_temporaries() == 1
    assert files(tmp_path / "blobs") == [f"unfinished/{Digest.of(b'new').hex}"]
