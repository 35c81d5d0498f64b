"""Daemons of a region over one bucket, which may be slow, away, wrong, or somebody else's."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from buckets import MEMBERS, S3Server, blobs_in, ceph, memory_bucket, moto, rot

from hanse.core.errors import InvalidSpec, NotFound, Unavailable
from hanse.core.ids import Digest
from hanse.storage import objects
from hanse.storage.blobs import Blobs
from hanse.storage.bucket import BucketBlobs
from hanse.storage.objects import Bucket, open_bucket
from hanse.storage.place import Place

__all__ = ["ceph", "moto"]
CONTENTS = [Random(i).randbytes(3000 + i) for i in range(4)]
DIGESTS = [Digest.of(content) for content in CONTENTS]
LARGE = Random(9).randbytes(20 * 1024**2 + 7)


@pytest.fixture(params=["memory", "moto", "ceph"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """Several servers: what one of them takes lightly, another one may not."""
    if request.param == "memory":
        return memory_bucket()
    server: S3Server = request.getfixturevalue(request.param)
    return open_bucket(server.place(tmp_path))


def put(store: Blobs, content: bytes) -> Digest:
    with store.writer(len(content)) as writer:
        writer.write(content)
        writer.commit()
    return Digest.of(content)


def read(store: Blobs, digest: Digest) -> bytes:
    with store.open_verified(digest) as file:
        return file.read()


def keys(bucket: Bucket, kind: str) -> list[str]:
    return [each.key for each in bucket.find(f"{kind}/")]


def test_what_one_daemon_put_there_another_has_without_a_byte(
    bucket: Bucket, tmp_path: Path
) -> None:
    one, other = (blobs_in(bucket, tmp_path / f"{n}", n) for n in range(2))
    digest = put(one, CONTENTS[0])
    assert not other.has(digest)
    other.pin(digest, "release-1")
    assert other.has(digest)
    assert other.cache.list() == ()
    assert (other.size(digest), other.list()) == (len(CONTENTS[0]), (digest,))
    assert read(other, digest) == CONTENTS[0]
    assert other.read_range(digest, 100, 50) == CONTENTS[0][100:150]
    assert other.recipe(digest).digest == digest
    assert len(keys(bucket, "blobs")) == 1


def test_a_daemon_that_is_lost_with_its_disk_takes_nothing_with_it(
    bucket: Bucket, tmp_path: Path
) -> None:
    one = blobs_in(bucket, tmp_path / "0", 0)
    digest = put(one, CONTENTS[0])
    one.pin(digest, "release-1")
    shutil.rmtree(tmp_path / "0")
    other = blobs_in(bucket, tmp_path / "1", 1)
    other.pin(digest, "release-1")
    assert read(other, digest) == CONTENTS[0]
    again = blobs_in(bucket, tmp_path / "0", 0)
    assert again.has(digest)
    assert read(again, digest) == CONTENTS[0]


def test_who_removes_leaves_what_another_needs(bucket: Bucket, tmp_path: Path) -> None:
    one, other = (blobs_in(bucket, tmp_path / f"{n}", n) for n in range(2))
    digest = put(one, CONTENTS[0])
    other.pin(digest, "release-1")
    one.look()
    assert one.room([digest]) == one.delete(digest) == 0  # it gives nothing back
    one.settle()
    assert not one.has(digest)
    assert one.list() == ()
    assert read(other, digest) == CONTENTS[0]
    other.unpin(digest, "release-1")
    other.look()
    assert other.room([digest]) == other.delete(digest) == len(CONTENTS[0])
    other.settle()
    assert [keys(bucket, kind) for kind in ("blobs", "pins", "going")] == [[], [], []]
    with pytest.raises(NotFound):
        other.open_verified(digest)


def test_what_is_needed_again_before_the_bucket_heard_of_it_stays(
    bucket: Bucket, tmp_path: Path
) -> None:
    store = blobs_in(bucket, tmp_path)
    digest = put(store, CONTENTS[0])
    store.delete(digest)
    assert not store.has(digest)
    store.pin(digest, "release-1")
    store.settle()
    assert read(store, digest) == CONTENTS[0]


def test_a_look_while_a_file_is_uploaded_takes_nothing_back(tmp_path: Path) -> None:
    """Its pin is there, no copy yet, and nobody has named a release that needs it."""

    class Looking(Bucket):
        def upload(self, key: str, file: Path) -> None:
            store.look()
            super().upload(key, file)

    bucket = Looking(memory_bucket()._store, "looking")
    store = blobs_in(bucket, tmp_path)
    digest = put(store, CONTENTS[0])
    store.settle()
    store.look()
    assert store.has(digest)
    assert len(keys(bucket, "blobs")) == 1


def test_what_a_dead_daemon_left_is_found_by_the_next_collection(tmp_path: Path) -> None:
    bucket = memory_bucket()
    put(blobs_in(bucket, tmp_path / "0", 0), CONTENTS[0])
    for pin in keys(bucket, "pins"):
        bucket.delete(pin)  # it died behind this request
    other = blobs_in(bucket, tmp_path / "1", 1)
    assert not other.has(DIGESTS[0])
    assert other.list() == (DIGESTS[0],)
    assert other.delete(DIGESTS[0]) == len(CONTENTS[0])
    other.settle()
    assert keys(bucket, "blobs") == []


def test_a_copy_under_removal_is_not_relied_on(bucket: Bucket, tmp_path: Path) -> None:
    one = blobs_in(bucket, tmp_path / "0", 0)
    digest = put(one, CONTENTS[0])
    bucket.put(f"going/{digest.hex}/{MEMBERS[2]}")
    before = keys(bucket, "blobs")
    other = blobs_in(bucket, tmp_path / "1", 1)
    other.pin(digest, "release-1")
    for key in before:
        bucket.delete(key)  # whoever marked it goes on
    assert read(other, digest) == CONTENTS[0]
    assert not set(before) & set(keys(bucket, "blobs"))


def test_a_bucket_that_holds_other_bytes_serves_none_of_them(
    bucket: Bucket, tmp_path: Path
) -> None:
    put(blobs_in(bucket, tmp_path / "0", 0), CONTENTS[0])
    rot(bucket, keys(bucket, "blobs")[0], 2000)
    other = blobs_in(bucket, tmp_path / "1", 1)
    other.pin(DIGESTS[0], "release-1")
    for ask in (other.open_verified, other.recipe, lambda d: other.read_range(d, 0, 10)):
        with pytest.raises((Unavailable, NotFound)):
            ask(DIGESTS[0])
    assert not other.has(DIGESTS[0])
    assert keys(bucket, "blobs") == []
    put(other, CONTENTS[0])
    assert read(other, DIGESTS[0]) == CONTENTS[0]


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_copy_of_another_size_is_damage(tmp_path: Path, size: int) -> None:
    bucket = memory_bucket()
    put(blobs_in(bucket, tmp_path / "0", 0), CONTENTS[0])
    bucket.put(keys(bucket, "blobs")[0], (CONTENTS[0] * 2)[:size])
    other = blobs_in(bucket, tmp_path / "1", 1)
    other.pin(DIGESTS[0], "release-1")
    with pytest.raises(Unavailable, match="damaged"):
        other.open_verified(DIGESTS[0])
    assert not other.has(DIGESTS[0])


def test_a_copy_that_shrinks_behind_our_back_is_damage(bucket: Bucket, tmp_path: Path) -> None:
    put(blobs_in(bucket, tmp_path / "0", 0), CONTENTS[0])
    other = blobs_in(bucket, tmp_path / "1", 1)
    other.pin(DIGESTS[0], "release-1")
    bucket.put(keys(bucket, "blobs")[0], CONTENTS[0][:-1])
    with pytest.raises(Unavailable, match="damaged"):
        other.open_verified(DIGESTS[0])
    assert other.lost() == (DIGESTS[0],)
    assert list((other.cache.folder / "parts").iterdir()) == []


def test_a_check_makes_a_copy_good_from_the_cache(bucket: Bucket, tmp_path: Path) -> None:
    store = blobs_in(bucket, tmp_path)
    digest = put(store, CONTENTS[0])
    read_bytes: list[int] = []
    assert store.check(digest, read_bytes.append) == ()
    assert sum(read_bytes) == 2 * len(CONTENTS[0])  # the file, and the copy in the bucket
    rot(bucket, keys(bucket, "blobs")[0], 5)
    assert store.check(digest, read_bytes.append) == ("copy in the bucket",)
    store.cache.forget(digest)
    assert read(store, digest) == CONTENTS[0]
    with store.laid_out(digest) as path:
        path.chmod(0o600)
        path.write_bytes(CONTENTS[1][: len(CONTENTS[0])])
    assert store.check(digest, read_bytes.append) == ("file in the cache",)
    assert read(store, digest) == CONTENTS[0]
    store.cache.forget(digest)
    rot(bucket, keys(bucket, "blobs")[0], 5)
    with pytest.raises(Unavailable, match="damaged"):
        store.check(digest, read_bytes.append)
    assert not store.has(digest)


def test_a_large_file_goes_out_in_pieces_and_comes_back(bucket: Bucket, tmp_path: Path) -> None:
    digest = put(blobs_in(bucket, tmp_path / "0", 0), LARGE)
    other = blobs_in(bucket, tmp_path / "1", 1)
    other.pin(digest, "release-1")
    with other.open_verified(digest) as file:
        assert file.read() == LARGE


# -- the cache ---------------------------------------------------------------------------------


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    store = blobs_in(memory_bucket(), tmp_path, cache_bytes=7000)
    for content in CONTENTS[:2]:
        put(store, content)
    read(store, DIGESTS[0])
    put(store, CONTENTS[2])
    assert set(store.cache.list()) == {DIGESTS[0], DIGESTS[2]}
    assert store.list() == tuple(sorted(DIGESTS[:3]))
    assert read(store, DIGESTS[1]) == CONTENTS[1]


def test_what_is_being_read_stays(tmp_path: Path) -> None:
    store = blobs_in(memory_bucket(), tmp_path, cache_bytes=1)
    for content in CONTENTS:
        put(store, content)
    with store.laid_out(DIGESTS[0]) as path:
        for digest, content in zip(DIGESTS[1:], CONTENTS[1:], strict=True):
            assert read(store, digest) == content
        assert path.read_bytes() == CONTENTS[0]
    read(store, DIGESTS[1])
    assert DIGESTS[0] not in store.cache.list()


def test_the_order_of_use_outlives_a_restart(tmp_path: Path) -> None:
    bucket = memory_bucket()
    store = blobs_in(bucket, tmp_path)
    for content in CONTENTS[:3]:
        put(store, content)
    read(store, DIGESTS[0])
    again = blobs_in(bucket, tmp_path, cache_bytes=7000)
    put(again, CONTENTS[3])
    assert set(again.cache.list()) == {DIGESTS[0], DIGESTS[3]}


def test_readers_of_one_blob_wait_for_one_download(tmp_path: Path) -> None:
    put(blobs_in(bucket := Slow(), tmp_path / "0", 0), CONTENTS[0])
    other = blobs_in(bucket, tmp_path / "1", 1)
    other.pin(DIGESTS[0], "release-1")
    bucket.gate.clear()
    answers: list[bytes | str] = []

    def ask() -> None:
        try:
            answers.append(read(other, DIGESTS[0]))
        except Unavailable as error:
            answers.append(error.message)

    readers = [threading.Thread(target=ask) for _ in range(6)]
    for reader in readers:
        reader.start()
    bucket.answered(lambda: len(answers) == 3)  # three may not wait
    bucket.gate.set()
    for reader in readers:
        reader.join()
    assert sum("on its way" in str(answer) for answer in answers) == 3
    assert answers.count(CONTENTS[0]) == 3
    assert bucket.reads == 1


class Slow(Bucket):
    """Reads wait for the gate."""

    def __init__(self) -> None:
        super().__init__(memory_bucket()._store, "slow")
        self.gate, self.reads = threading.Event(), 0
        self.gate.set()

    def read(self, key: str, start: int, length: int) -> bytes:
        if key.startswith("blobs/"):
            self.reads += 1
        self.gate.wait(30)
        return super().read(key, start, length)

    @staticmethod
    def answered(found: object) -> None:
        for _ in range(3000):
            if found():  # type: ignore[operator]
                return
            threading.Event().wait(0.01)
        raise AssertionError("nobody was turned away")


# -- a bucket that is away, out of order, or not ours --------------------------------------------


class Away(Bucket):
    """Answers nothing while it is away."""

    def __init__(self) -> None:
        super().__init__(memory_bucket()._store, "far")
        self.away = False

    def _errors(self, deed: str):  # type: ignore[no-untyped-def]
        if self.away:
            raise Unavailable(f"cannot {deed} in far")
        return super()._errors(deed)


def test_an_upload_that_fails_counts_for_nothing_until_it_has_not(tmp_path: Path) -> None:
    store = blobs_in(bucket := Away(), tmp_path)
    bucket.away = True
    with pytest.raises(Unavailable):
        put(store, CONTENTS[0])
    assert not store.has(DIGESTS[0])
    with pytest.raises(Unavailable):
        store.pin(DIGESTS[0], "release-1")
    bucket.away = False
    store.pin(DIGESTS[0], "release-1")  # from the disk: nobody sends it again
    assert store.has(DIGESTS[0])
    assert len(keys(bucket, "blobs")) == 1


def test_a_start_while_the_bucket_is_away_serves_what_the_cache_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = blobs_in(bucket := Away(), tmp_path)
    for content in CONTENTS[:2]:
        put(store, content)
    store.cache.forget(DIGESTS[1])
    bucket.away = True
    again = blobs_in(bucket, tmp_path)
    assert all(again.has(digest) for digest in DIGESTS[:2])
    assert read(again, DIGESTS[0]) == CONTENTS[0]
    with pytest.raises(Unavailable, match="far"):
        read(again, DIGESTS[1])
    bucket.away = False
    assert read(again, DIGESTS[1]) == CONTENTS[1]
    bucket.delete(keys(bucket, "blobs")[0])
    monkeypatch.setattr("hanse.storage.bucket.AGAIN_S", -1)
    assert again.lost() == ()  # asked now and then: it looks at the bucket again
    assert sum(map(again.has, DIGESTS[:2])) == 1
    known = again.cache.folder / "bucket.known"
    rotten = bytearray(known.read_bytes())
    rotten[80] ^= 1
    known.write_bytes(rotten)
    bucket.away = True
    assert not blobs_in(bucket, tmp_path).has(DIGESTS[0])  # a damaged word is none


def test_a_bucket_of_another_region_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    blobs_in(bucket, tmp_path / "0")
    stranger = BucketBlobs(tmp_path / "1", bucket, MEMBERS[1], owner="hanse-test/us", cache_bytes=1)
    with pytest.raises(InvalidSpec, match="hanse-test/eu"):
        stranger.sweep_temporaries()


def test_what_a_stranger_put_between_is_left_alone(tmp_path: Path) -> None:
    bucket = memory_bucket()
    for key in ("blobs/readme.txt", "pins/x/y", f"blobs/{'0' * 64}/not hex"):
        bucket.put(key, b"hello")
    assert blobs_in(bucket, tmp_path).list() == ()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "TRIES", 2)


@pytest.mark.parametrize("fault", ["429", "500", "503", "cut"])
def test_a_service_that_fails_a_while_is_asked_again(
    moto: S3Server, tmp_path: Path, fault: str
) -> None:
    assert moto.front is not None
    store = blobs_in(open_bucket(moto.place(tmp_path)), tmp_path)
    moto.front.faults = [fault, "", fault, "", fault]
    digest = put(store, CONTENTS[0])
    store.cache.forget(digest)
    moto.front.faults = [fault, fault]
    assert read(store, digest) == CONTENTS[0]
    assert moto.front.faults == []


@pytest.mark.usefixtures("impatient")
def test_a_service_that_goes_on_failing_is_unavailable_soon(moto: S3Server, tmp_path: Path) -> None:
    assert moto.front is not None
    store = blobs_in(open_bucket(moto.place(tmp_path)), tmp_path)
    digest = put(store, CONTENTS[0])
    store.cache.forget(digest)
    moto.front.seen.clear()
    moto.front.faults = ["503"] * 50
    with pytest.raises(Unavailable, match="tried again"):
        read(store, digest)
    with pytest.raises(Unavailable, match="tried again"):
        put(store, CONTENTS[1])
    with pytest.raises(Unavailable, match="tried again"):
        store.list()
    assert len(moto.front.seen) == 3 * 3
    moto.front.faults = []
    assert read(store, digest) == CONTENTS[0]


@pytest.mark.usefixtures("impatient")
def test_a_large_file_is_never_there_in_part(moto: S3Server, tmp_path: Path) -> None:
    assert moto.front is not None
    store = blobs_in(bucket := open_bucket(moto.place(tmp_path)), tmp_path)
    moto.front.faults = [""] * 6 + ["503"] * 20  # behind the first pieces
    with pytest.raises(Unavailable):
        put(store, LARGE)
    moto.front.faults = []
    assert keys(bucket, "blobs") == []
    moto.front.seen.clear()
    store.pin(Digest.of(LARGE), "release-1")
    assert sum("partNumber=" in each for each in moto.front.seen) == 3


@pytest.mark.usefixtures("impatient")
def test_wrong_credentials_say_what_to_check(ceph: S3Server, tmp_path: Path) -> None:
    bucket = open_bucket(ceph.place(tmp_path, secret="wrong"))
    for ask in (
        lambda: bucket.put("x"),
        lambda: bucket.find("x/"),
        lambda: bucket.read("x", 0, 1),
        lambda: bucket.create("x", b""),
        lambda: bucket.copy("x", "y"),
    ):
        with pytest.raises(Unavailable, match="blobs_credentials"):
            ask()


def test_a_bucket_that_does_not_exist_says_so(bucket: Bucket, tmp_path: Path) -> None:
    if bucket.name == "memory":
        pytest.skip("there is always one in memory")
    server = bucket._store
    place = Place("s3://nobody-made-it", server.config["endpoint"], tmp_path / "credentials")
    missing = open_bucket(place)
    for ask in (lambda: missing.put("x"), lambda: missing.find("x/")):
        with pytest.raises(Unavailable, match="does not exist"):
            ask()


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("ftp://somewhere", {}, "names no bucket"),
        ("s3://bucket", {"secret_access_key": "x"}, "blobs_credentials names"),
        ("gs://bucket", {"region": "x"}, "not known of gs"),
    ],
)
def test_what_a_configuration_may_not_say(url: str, options: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidSpec) as error:
        Place(url, "", None, options)
    assert says in str(error.value)


@pytest.mark.parametrize("text", ["password = x", "hunter2"])
def test_a_credentials_file_that_is_none_is_refused_without_being_shown(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "credentials"
    file.write_text(text)
    with pytest.raises(InvalidSpec) as error:
        Place("s3://bucket", "", file).secrets()
    assert text not in str(error.value)


def test_credentials_may_be_written_as_each_cloud_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = a\nAWS_SECRET_ACCESS_KEY=b=\n# none\n")
    assert Place("s3://b", "", file).secrets() == {"access_key_id": "a", "secret_access_key": "b="}
    file.write_text("AZURE_STORAGE_ACCOUNT_NAME=n\nAZURE_STORAGE_ACCOUNT_KEY=k\n")
    assert Place("az://b", "", file).secrets() == {"account_name": "n", "account_key": "k"}
    file.write_text('{"type": "service_account"}')
    assert Place("gs://b", "", file).secrets() == {"service_account_key": file.read_text()}


class Killed(BaseException):
    pass


class Mortal(Bucket):
    """Its daemon ends before the `left`-th request, or just behind it."""

    def __init__(self, like: Bucket, left: int, *, behind: bool) -> None:
        super().__init__(like._store, like.name)
        self.left, self._behind = left, behind

    @contextlib.contextmanager
    def _errors(self, deed: str) -> Iterator[None]:
        self.left -= 1
        if self.left == 0 and not self._behind:
            raise Killed
        with super()._errors(deed):
            yield
        if self.left == 0:
            raise Killed


def live(store: BucketBlobs) -> None:
    """What a daemon does with a release: brings it, pins it, and gives it up in the end."""
    for content in CONTENTS[:2]:
        store.pin(put(store, content), "release-1")
    store.renew(DIGESTS[0])
    store.cache.forget(DIGESTS[1])
    read(store, DIGESTS[1])
    for digest in DIGESTS[:2]:
        store.unpin(digest, "release-1")
        store.delete(digest)
    store.settle()


@pytest.mark.parametrize("behind", [False, True])
def test_killed_between_any_two_requests_a_daemon_believes_only_what_is_there(
    tmp_path: Path, behind: bool
) -> None:
    last = 0
    while True:
        last += 1
        bucket, folder = memory_bucket(), tmp_path / f"{last}"
        other = blobs_in(bucket, folder / "other", 1)
        other.pin(put(other, CONTENTS[1]), "release-2")
        mortal = Mortal(bucket, last, behind=behind)
        try:
            live(blobs_in(mortal, folder / "one"))
        except Killed:
            done = False
        else:
            done = True
        one = blobs_in(bucket, folder / "one")
        for digest, content in zip(DIGESTS[:2], CONTENTS, strict=False):
            assert not one.has(digest) or read(one, digest) == content
        assert read(other, DIGESTS[1]) == CONTENTS[1]
        for store in (one, other):
            for digest in store.list():
                for pin in store.pins(digest):
                    store.unpin(digest, pin)
                store.delete(digest)
            store.settle()
        assert [keys(bucket, kind) for kind in ("blobs", "pins", "going")] == [[], [], []]
        if done:
            break
    assert last > 25
