"""Bits that flip at rest: found by the scrubber or a reader, told, and fetched again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hand_federation import MODEL
from lonely import Lonely, chain, lonely
from memory_blobs import MemoryBlobs
from rot import flip, tuned_pair

from hanse.core.effects import FetchRelease
from hanse.core.ids import Digest
from hanse.daemon.scrubbing import Scrubber
from hanse.storage import folded
from hanse.storage.folded import FoldedBlobs

FILES = {f"{i}.0.0": b"weights %d" % i * 100 for i in range(1, 4)}


class Peers:
    """Has every file, and sends it at once."""

    def __init__(self, daemon: Lonely, files: dict[Digest, bytes]) -> None:
        self._daemon, self._files = daemon, files
        self.asked: list[Digest] = []
        self.away = False

    def fetch(self, effect: FetchRelease) -> None:
        assert effect.model == MODEL
        self.asked.append(effect.release)
        release = self._daemon.node.catalog.release(effect.release)
        assert release is not None
        for file in release.manifest.files:
            if not self._daemon.blobs.has(file.digest) and not self.away:
                with self._daemon.blobs.writer(file.size, file.digest) as writer:
                    writer.write(self._files[file.digest])
                    writer.commit()


class World:
    def __init__(self, daemon: Lonely, folder: Path, files: dict[str, bytes]) -> None:
        self.daemon, self.path, self.now_s = daemon, folder / "scrub", 1000.0
        self.files = {Digest.of(raw): raw for raw in files.values()}
        self.peers = Peers(daemon, self.files)
        self.releases: dict[str, Digest] = {}
        self.scrubber = self.restarted()

    def restarted(self, **more: float) -> Scrubber:
        self.scrubber = Scrubber(
            self.daemon.driver,
            self.daemon.blobs,
            self.peers.fetch,
            self.path,
            now_s=lambda: self.now_s,
            **{"bytes_s": 2**40, "interval_s": 100.0, **more},  # type: ignore[arg-type]
        )
        return self.scrubber

    @property
    def shown(self) -> list[tuple[Digest, str, bool]]:
        return [(each.digest, each.what, each.healed) for each in self.daemon.node.damage]


@asynccontextmanager
async def world(
    tmp_path: Path, files: dict[str, bytes] = FILES, blobs: MemoryBlobs | FoldedBlobs | None = None
) -> AsyncIterator[World]:
    async with lonely("eu-north", chain()) as daemon:
        daemon.blobs = blobs or daemon.blobs  # type: ignore[assignment]
        made = World(daemon, tmp_path, files)
        for version, raw in files.items():
            made.releases[version] = await daemon.publish(version, raw)
        yield made


async def test_a_pass_finds_what_rots_and_has_it_fetched(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        bad = Digest.of(FILES["2.0.0"])
        await it.scrubber.scrub_all()
        await it.scrubber.mend()
        assert it.shown == []
        it.daemon.blobs.damage(bad, 17)
        await it.scrubber.scrub_all()
        assert not it.daemon.blobs.has(bad)
        it.peers.away = True
        await it.scrubber.mend()
        assert it.shown == [(bad, "file", False)]
        assert it.releases["2.0.0"] in it.daemon.node.region.local  # nodes leave nothing
        assert it.daemon.node.counters["blobs_damaged"] == 1
        it.peers.away = False
        await it.scrubber.mend()
        await it.scrubber.mend()
        assert it.shown == [(bad, "file", True)]
        assert set(it.peers.asked) == {it.releases["2.0.0"]}
        assert it.daemon.node.counters["blobs_damaged"] == 1


async def test_what_a_reader_finds_is_fetched_as_well(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        for version, tell in (("1.0.0", it.daemon.blobs.open_verified), ("3.0.0", None)):
            bad = Digest.of(FILES[version])
            it.daemon.blobs.damage(bad, 3)
            if tell:
                with pytest.raises(Exception, match="damaged"):
                    tell(bad)
            else:
                it.scrubber.suspect(bad)  # a peer was to have a part of it
            await it.scrubber.mend()
            await it.scrubber.mend()
            assert it.shown[0] == (bad, "file", True)
            assert it.daemon.blobs.has(bad)


async def test_what_is_not_mended_at_the_end_is_mended_after_the_next_start(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as it:
        bad = Digest.of(FILES["2.0.0"])
        it.peers.away = True
        it.daemon.blobs.damage(bad, 17)
        await it.scrubber.scrub_all()
        await it.scrubber.mend()
        it.daemon.node.region.local.discard(it.releases["2.0.0"])  # as at a start
        it.restarted()
        assert [each.digest for each in it.scrubber.scrub.found] == [bad]
        it.peers.away = False
        await it.scrubber.mend()
        await it.scrubber.mend()
        assert it.shown == [(bad, "file", True)]
        assert it.daemon.blobs.has(bad)


async def test_what_nobody_needs_any_more_is_not_fetched(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        bad, release = Digest.of(FILES["2.0.0"]), it.releases["2.0.0"]
        it.daemon.blobs.damage(bad, 17)
        await it.scrubber.scrub_all()
        for pin in it.daemon.blobs.pins(bad):
            it.daemon.blobs.unpin(bad, pin)
        it.daemon.node.region.forget(release)
        await it.scrubber.mend()
        assert it.peers.asked == []
        assert it.scrubber.scrub.open == ()


async def test_a_pass_goes_on_where_it_stood(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        first, second, third = sorted(map(Digest.of, FILES.values()))
        seen: list[Digest] = []
        check = it.daemon.blobs.check

        def stop_at_third(digest: Digest, read: Callable[[int], None]) -> tuple[str, ...]:
            if digest == third and it.scrubber is before:
                raise KeyboardInterrupt
            seen.append(digest)
            it.now_s += 20  # so that the place is kept
            return check(digest, read)

        it.daemon.blobs.check = stop_at_third  # type: ignore[method-assign]
        before = it.scrubber
        with pytest.raises(KeyboardInterrupt):
            await before.scrub_all()
        assert seen == [first, second]
        again = it.restarted()
        assert again._due()
        await again.scrub_all()
        assert seen == [first, second, third]
        assert not again._due()
        it.now_s += 30
        assert not it.restarted()._due()
        it.now_s += 100
        assert it.restarted()._due()


async def test_a_clock_that_was_set_back_does_not_stop_the_passes(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.scrubber.scrub_all()
        it.now_s -= 500
        assert it.scrubber._due()


async def test_no_more_is_read_than_the_pace_allows(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        waits: list[float] = []
        scrubber = it.restarted(bytes_s=100)
        scrubber._background._stop.wait = waits.append  # type: ignore[assignment,method-assign]
        await scrubber.scrub_all()
        assert sum(waits) == pytest.approx(sum(map(len, FILES.values())) / 100)


async def test_a_stop_does_not_wait_for_a_slow_pass(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        begun = asyncio.Event()
        loop, check = asyncio.get_running_loop(), it.daemon.blobs.check

        def slow(digest: Digest, read: Callable[[int], None]) -> tuple[str, ...]:
            loop.call_soon_threadsafe(begun.set)
            return check(digest, read)

        it.daemon.blobs.check = slow  # type: ignore[method-assign]
        watching = asyncio.create_task(it.restarted(bytes_s=1).watch())
        await begun.wait()
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching


@pytest.mark.parametrize("kind", ["sha256", "folded", "places", "recipes", "scrub"])
async def test_a_bit_of_any_kind_of_file_is_found_told_and_made_good(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partial files are hashed when their fetch goes on, and pins have no bits."""
    monkeypatch.setattr(folded, "SAVED_BYTES_MIN", 1)
    base, tuned = tuned_pair()
    files = {"1.0.0": base, "2.0.0": tuned}
    store = FoldedBlobs(tmp_path / "blobs")
    async with world(tmp_path, files, store) as it:
        older, newer = Digest.of(base), Digest.of(tuned)
        assert store.fold(newer, older) > 0
        store.recipe(older)
        await it.scrubber.scrub_all()
        await it.scrubber.mend()
        (path,) = [it.path] if kind == "scrub" else _files(store, kind)
        for position in (0, path.stat().st_size // 2, path.stat().st_size - 1):
            flip(path, 8 * position + 3)
            scrubber = it.restarted()
            it.now_s += 1000
            await scrubber.scrub_all()
            for _ in range(3):
                await scrubber.mend()
            for digest, raw in it.files.items():
                with store.open_verified(digest) as file:
                    assert file.read() == raw
            assert scrubber.scrub.open == ()
            if kind != "scrub":  # it only tells where the pass stood: it begins anew
                assert it.shown[0][2] is True
                assert it.shown[0][0] == (older if kind in ("sha256", "recipes") else newer)
            if kind in ("folded", "places"):
                store.fold(newer, older)
            store.recipe(older)
            (path,) = [it.path] if kind == "scrub" else _files(store, kind)


def _files(store: FoldedBlobs, kind: str) -> list[Path]:
    return [path for path in (store.folder / kind).rglob("*") if path.is_file()]
