"""Folding on a running daemon: when, against what, and together with a collection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from lonely import Lonely, chain, lonely
from rot import model

from hanse.core.catalog.manifest import Parent
from hanse.core.ids import Digest
from hanse.core.retention import Rules
from hanse.daemon.folding import Folding
from hanse.daemon.retention import Retention
from hanse.parts.recipe import split
from hanse.storage import folded
from hanse.storage.folded import FoldedBlobs

FILES = {
    "1.0.0": model(1),
    "2.0.0": model(1, (2,)),
    "3.0.0": model(1, (2, 3)),
    "4.0.0": Random(4).randbytes(400_000),
}
DIGESTS = {version: Digest.of(raw) for version, raw in FILES.items()}
LATER_S = 1e10


@pytest.fixture(autouse=True)
def _folds_what_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded, "SAVED_BYTES_MIN", 1)


@asynccontextmanager
async def publisher(
    folder: Path, *versions: str
) -> AsyncIterator[tuple[Lonely, FoldedBlobs, Folding, Retention]]:
    async with lonely("eu-north", chain()) as daemon:
        store, still = FoldedBlobs(folder), asyncio.Lock()
        daemon.blobs = store  # type: ignore[assignment]
        parents: tuple[Parent, ...] = ()
        for version in versions or FILES:
            release = await daemon.publish(version, FILES[version], parents=parents)
            parents = (Parent(release, "fine-tuned-from"),)
        retention = Retention(daemon.driver, store, frozenset, lambda: LATER_S, still=still)
        yield daemon, store, Folding(daemon.driver, store, 0.0, still), retention


async def test_releases_lean_on_the_first_that_they_are_like(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (_, store, folding, _):
        saved = await folding.look()
        assert saved == sum(len(FILES[v]) - store.occupied(DIGESTS[v]) for v in ("2.0.0", "3.0.0"))
        leaning = {version: store.leans_on(digest) for version, digest in DIGESTS.items()}
        first = (DIGESTS["1.0.0"],)
        assert leaning == {"1.0.0": (), "2.0.0": first, "3.0.0": first, "4.0.0": ()}
        for version, digest in DIGESTS.items():
            with store.open_verified(digest) as file:
                assert file.read() == FILES[version]
        assert await folding.look() == 0  # neither again, nor in vain


async def test_what_came_a_moment_ago_stays_as_it_came(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (daemon, store, folding, _):
        waiting = Folding(daemon.driver, store, 600.0, folding._still)
        assert store.known_recipe(DIGESTS["2.0.0"]) is None
        assert await waiting.look() == 0
        for version in ("1.0.0", "2.0.0"):  # for `hanse rollout plan`
            assert store.known_recipe(DIGESTS[version]) == split(FILES[version])
        late = Folding(daemon.driver, store, 600.0, folding._still, lambda: LATER_S)
        assert await late.look() > 0


async def test_without_parents_it_is_the_release_before(tmp_path: Path) -> None:
    async with publisher(tmp_path, "1.0.0") as (daemon, store, folding, _):
        await daemon.publish("2.0.0", FILES["2.0.0"])
        assert await folding.look() > 0
        assert store.leans_on(DIGESTS["2.0.0"]) == (DIGESTS["1.0.0"],)


async def test_a_collection_counts_what_lies_on_the_disk(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (_, store, folding, retention):
        await folding.look()
        before = used(store)
        rules = Rules(1.0, origin=False)
        store.pin(DIGESTS["3.0.0"], "somebody")
        said = await retention.collect(rules, dry_run=True)
        assert said["kept_bytes"] == store.occupied(DIGESTS["3.0.0"])
        done = await retention.collect(rules, dry_run=False)
        assert done["bytes"] == said["bytes"] == before - used(store)
        assert store.list() == (DIGESTS["3.0.0"],)
        assert used(store) == len(FILES["3.0.0"])  # made whole before its base went
        with store.open_verified(DIGESTS["3.0.0"]) as file:
            assert file.read() == FILES["3.0.0"]


async def test_without_room_for_what_leans_on_it_a_file_stays_and_others_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with publisher(tmp_path) as (_, store, folding, retention):
        await folding.look()
        store.pin(DIGESTS["3.0.0"], "somebody")
        monkeypatch.setattr(store, "_reserve_bytes", 2**62)
        before = used(store)
        done = await retention.collect(Rules(1.0, origin=False), dry_run=False)
        assert done["bytes"] == before - used(store) > 0
        assert store.list() == tuple(sorted((DIGESTS["1.0.0"], DIGESTS["3.0.0"])))
        monkeypatch.undo()
        monkeypatch.setattr(folded, "SAVED_BYTES_MIN", 1)
        await retention.collect(Rules(1.0, origin=False), dry_run=False)
        assert store.list() == (DIGESTS["3.0.0"],)


async def test_a_mistake_of_ours_ends_nothing_and_is_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with publisher(tmp_path, "1.0.0", "2.0.0") as (_, store, folding, _):
        tries: list[object] = []

        def fold(*args: object) -> int:
            tries.append(args)
            raise MemoryError

        monkeypatch.setattr(store, "fold", fold)
        assert await folding.look() == await folding.look() == 0
        assert len(tries) == 1


async def test_nothing_is_folded_while_files_are_removed(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (_, store, folding, _):
        begun: list[object] = []
        do = folding._background.do

        async def noted(*args: Any) -> Any:
            begun.append(args)
            return await do(*args)

        folding._background.do = noted  # type: ignore[method-assign]
        async with folding._still:
            looking = asyncio.create_task(folding.look())
            for _ in range(1000):
                if begun or folding._still._waiters:  # type: ignore[attr-defined]
                    break
                await asyncio.sleep(0.001)
            assert begun == []
        assert await looking > 0
        assert store.leans_on(DIGESTS["3.0.0"])


async def test_a_stop_ends_a_folding_that_is_under_way(tmp_path: Path) -> None:
    async with publisher(tmp_path) as (_, store, folding, _):
        folding._background._stop.set()  # as its owner does at the end
        assert await folding.look() == 0
        assert store.leans_on(DIGESTS["2.0.0"]) == ()
        assert [
            path for kind in ("folded", "places") for path in (store.folder / kind).iterdir()
        ] == []


def used(store: FoldedBlobs) -> int:
    kinds = [*(store.folder / "sha256").glob("*/*"), *(store.folder / "folded").iterdir()]
    return sum(path.stat().st_size for path in kinds)
