"""`hanse gc` on a running daemon: crashes between any two deeds, publishers, fetches, readers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from buckets import blobs_in, memory_bucket
from hand_federation import MODEL
from lonely import Lonely, chain, lonely
from memory_blobs import MemoryBlobs

from hanse.cli import gc_shapes
from hanse.core.errors import Conflict, NotFound, Unavailable
from hanse.core.ids import Digest, Segment
from hanse.core.keeping import TOMBSTONES, Keeping
from hanse.core.retention import Rules, pin_of
from hanse.daemon import retention
from hanse.daemon.retention import Retention
from hanse.daemon.transfers import check_whole, complete
from hanse.storage.blobs import BlobStore

ALL = Rules(1.0, origin=False)
LATER_S = 1e10
FILES = {f"{i}.0.0": b"weights %d" % i * 100 for i in range(1, 4)}


def nobody() -> frozenset[Digest]:
    return frozenset()


def collector(daemon: Lonely, blobs: MemoryBlobs | None = None) -> Retention:
    return Retention(daemon.driver, blobs or daemon.blobs, nobody, lambda: LATER_S)


@asynccontextmanager
async def publisher() -> AsyncIterator[tuple[Lonely, dict[str, Digest]]]:
    async with lonely("eu-north", chain()) as daemon:
        yield daemon, {v: await daemon.publish(v, data) for v, data in FILES.items()}


async def test_a_dry_run_says_all_and_removes_nothing() -> None:
    async with publisher() as (daemon, releases):
        said = await collector(daemon).collect(Rules(1.0), dry_run=True)
        assert all("published here" in r["why"][0] for r in said["releases"])
        said = await collector(daemon).collect(ALL, dry_run=True)
        assert [r["why"] for r in said["releases"]] == [[], [], []]
        assert said["bytes"] == sum(map(len, FILES.values()))
        assert said.keys() == gc_shapes.Collected.__annotations__.keys()
        assert said["releases"][0].keys() == gc_shapes.CollectedRelease.__annotations__.keys()
        assert said["blobs"][0].keys() == gc_shapes.CollectedBlob.__annotations__.keys()
        assert len(daemon.blobs.list()) == 3
        assert daemon.node.region.local == set(releases.values())


async def test_what_goes_leaves_a_tombstone_and_is_offered_no_more() -> None:
    async with publisher() as (daemon, releases):
        kept = releases["2.0.0"]
        word = {"model": MODEL, "release": str(kept), "reason": "INC-1", "by": "anna"}
        await daemon.driver.do(lambda node, _: retention.pin(node, word))
        said = await collector(daemon).collect(ALL, dry_run=False)
        assert said["bytes"] == len(FILES["1.0.0"]) + len(FILES["3.0.0"])
        assert daemon.blobs.list() == (Digest.of(FILES["2.0.0"]),)
        assert daemon.node.region.local == {kept}
        assert set(await daemon.store.local(TOMBSTONES)) == {
            r.hex for r in releases.values() if r != kept
        }
        serves = daemon.node.catalog.serves
        assert [bool(serves(Digest.of(data))) for data in FILES.values()] == [False, True, False]
        await daemon.driver.do(lambda node, _: retention.unpin(node, word))
        assert (await collector(daemon).collect(ALL, dry_run=True))["bytes"] > 0
        with pytest.raises(Conflict, match="not pinned"):
            await daemon.driver.do(lambda node, _: retention.unpin(node, word))


async def test_what_another_daemon_needs_of_the_bucket_gives_nothing_back(tmp_path: Path) -> None:
    bucket = memory_bucket()
    async with lonely("eu-north", chain()) as daemon:
        daemon.blobs = store = blobs_in(bucket, tmp_path / "0")  # type: ignore[assignment]
        for version, data in FILES.items():
            await daemon.publish(version, data)
        shared, sizes = Digest.of(FILES["2.0.0"]), [len(data) for data in FILES.values()]
        blobs_in(bucket, tmp_path / "1", 1).pin(shared, "release-2")
        work = collector(daemon, store)  # type: ignore[arg-type]
        said = await work.collect(ALL, dry_run=True)
        assert said["bytes"] == sizes[0] + sizes[2]
        assert len(bucket.find("blobs/")) == 3
        done = await work.collect(ALL, dry_run=False)
        assert (done["bytes"], done["kept_bytes"]) == (said["bytes"], 0)
        assert [copy.size for copy in bucket.find("blobs/")] == [sizes[1]]
        assert store.list() == ()


class Killed(BaseException):
    pass


class Fragile(MemoryBlobs):
    """Ends the process before its `left`-th change."""

    left = 0

    def delete(self, digest: Digest) -> int:
        self._step()
        return super().delete(digest)

    def unpin(self, digest: Digest, name: str) -> None:
        self._step()
        super().unpin(digest, name)

    def _step(self) -> None:
        if not self.left:
            raise Killed
        self.left -= 1


@pytest.mark.parametrize("left", range(2 * len(FILES)))
async def test_killed_between_any_two_deeds_nothing_is_half_believed(left: int) -> None:
    with pytest.raises(Killed):  # noqa: PT012  # the driver's end is seen where it is awaited
        async with publisher() as (daemon, releases):
            fragile = Fragile()
            fragile.__dict__.update(daemon.blobs.__dict__)
            fragile.left = left
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    await collector(daemon, fragile).collect(ALL, dry_run=False)
            blobs, buried = fragile.crash(), await daemon.store.local(TOMBSTONES)
    async with publisher() as (daemon, _):  # the next process, with the same records
        region = daemon.node.region
        region.local.clear()
        region.keeping = Keeping()
        region.keeping.restore({}, buried)
        assert set(region.keeping.tombstones) == set(releases.values())
        for release in complete(daemon.node, blobs):
            region.have(release)
        for release in releases.values():
            files = daemon.node.catalog.views[MODEL].release(release).manifest.files  # type: ignore[union-attr]
            whole = all(blobs.has(f.digest) for f in files)
            assert whole == (release in region.local)
            assert whole != (release in region.keeping.tombstones)
        again = Retention(daemon.driver, blobs, nobody, lambda: LATER_S)
        await again.collect(ALL, dry_run=False)
        assert blobs.list() == ()
        assert not any(blobs.pins(Digest.of(data)) for data in FILES.values())


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_what_is_published_meanwhile_keeps_the_files_it_shares(turns: int) -> None:
    async with publisher() as (daemon, _):
        shared = FILES["1.0.0"]
        daemon.blobs._came_s = dict.fromkeys(daemon.blobs.list(), 0.0)
        work = Retention(daemon.driver, daemon.blobs, nobody).collect(
            Rules(1000.0, origin=False), dry_run=False
        )
        collecting = asyncio.create_task(work)
        for _ in range(turns):
            await asyncio.sleep(0)
        release = await daemon.publish("4.0.0", shared)
        await collecting
        assert release in daemon.node.region.local
        assert daemon.blobs.has(Digest.of(shared))
        assert not daemon.blobs.has(Digest.of(FILES["2.0.0"]))


async def test_a_fetch_that_lost_a_file_meanwhile_does_not_count_as_whole() -> None:
    async with publisher() as (daemon, _):
        await collector(daemon).collect(ALL, dry_run=False)
        with pytest.raises(Unavailable, match="removed while others came"):
            check_whole(daemon.blobs, [Digest.of(FILES["1.0.0"])])


def test_a_reader_that_has_a_file_open_reads_it_to_its_end(tmp_path: Path) -> None:
    blobs, data = BlobStore(tmp_path), FILES["1.0.0"]
    with blobs.writer(len(data)) as writer:
        writer.write(data)
        writer.commit()
    with blobs.open_verified(Digest.of(data)) as file:
        blobs.delete(Digest.of(data))
        assert file.read() == data
    with pytest.raises(NotFound):
        blobs.came_s(Digest.of(data))
    blobs.renew(Digest.of(data))


async def test_a_release_that_was_removed_can_be_published_again() -> None:
    async with publisher() as (daemon, releases):
        await collector(daemon).collect(ALL, dry_run=False)
        assert await daemon.publish("2.0.0", FILES["2.0.0"]) == releases["2.0.0"]
        assert daemon.node.region.local == {releases["2.0.0"]}
        assert releases["2.0.0"].hex not in await daemon.store.local(TOMBSTONES)
        assert daemon.blobs.pins(Digest.of(FILES["2.0.0"])) == (pin_of(releases["2.0.0"]),)
        with pytest.raises(Conflict, match="published already"):
            await daemon.publish("2.0.0", FILES["2.0.0"])


async def test_what_is_written_into_a_bundle_stays_until_it_is_written() -> None:
    async with publisher() as (daemon, _):
        bundles = daemon.bundles
        held = replace(await bundles.held(), blobs=frozenset())
        _, pieces = await bundles.make(held, Segment("us-east"), with_blobs=True)
        careful = Retention(daemon.driver, daemon.blobs, lambda: bundles.under_way, lambda: LATER_S)
        sent = [await anext(pieces)]
        while not bundles.under_way:
            sent.append(await anext(pieces))
        assert (await careful.collect(ALL, dry_run=False))["bytes"] == 0
        sent += [piece async for piece in pieces]
        assert all(data in b"".join(sent) for data in FILES.values())
        assert (await careful.collect(ALL, dry_run=False))["bytes"] > 0


async def test_what_becomes_needed_while_others_are_removed_stays() -> None:
    async with publisher() as (daemon, releases):
        word = {"model": MODEL, "release": str(releases["2.0.0"]), "reason": "INC-1"}

        class PinnedThen(Retention):
            def _bury(self, node, *rest):  # type: ignore[no-untyped-def]
                super()._bury(node, *rest)
                retention.pin(node, word)

        late = PinnedThen(daemon.driver, daemon.blobs, nobody, lambda: LATER_S)
        said = await late.collect(ALL, dry_run=False)
        assert daemon.blobs.list() == (Digest.of(FILES["2.0.0"]),)
        assert said["bytes"] == len(FILES["1.0.0"]) + len(FILES["3.0.0"])
