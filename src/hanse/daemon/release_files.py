"""release.files and release.file: a release's files for a person on this machine.

First the daemon fetches what it lacks, then each file is asked for by itself, from the byte at
which the caller stands. What is given is not hashed here: the caller does that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hanse.core.catalog.residency import may_lie
from hanse.core.catalog.view import Release
from hanse.core.effects import FetchRelease
from hanse.core.errors import NotPermitted
from hanse.core.limits import BLOB_CHUNK_BYTES
from hanse.core.node import Clock, Node
from hanse.core.reading import Reader
from hanse.daemon.control import Handler, Progress
from hanse.daemon.driver import Driver
from hanse.daemon.queries.matter import Matter
from hanse.daemon.transfers import Transfers
from hanse.storage.blobs import Blobs

LOOK_S = 0.5


def release_files(driver: Driver, blobs: Blobs, transfers: Transfers) -> dict[str, Handler]:
    async def bring(
        args: dict[str, Any], progress: Progress, _: asyncio.StreamReader
    ) -> Mapping[str, Any]:
        with Reader(args, "release.files") as reader:
            release = await driver.do(lambda node, clock: _named(node, clock, reader))
        files = release.manifest.files
        of = sum(file.size for file in files)
        while not all(blobs.has(file.digest) for file in files):
            transfers.fetch(FetchRelease(release.manifest.model, release.digest))
            await asyncio.sleep(LOOK_S)
            here = sum(file.size for file in files if blobs.has(file.digest))
            here += sum(
                each.done for each in transfers.progress if each.wish.file.release == release.digest
            )
            why = transfers.why.get(release.digest, "")
            await progress({"bytes": here, "of": of, "why": why})
        for file in files:
            await asyncio.to_thread(blobs.renew, file.digest)
        return {"release": str(release.digest), "region": driver.node.me.region}

    async def give(
        args: dict[str, Any], progress: Progress, _: asyncio.StreamReader
    ) -> Mapping[str, Any]:
        with Reader(args, "release.file") as reader:
            release = await driver.do(lambda node, clock: _named(node, clock, reader))
            file = release.manifest.file(reader.text("file"))
            start = reader.integer("from", 0, high=file.size)
            suspect = reader.flag("suspect", False)
        if suspect:
            transfers.on_damage(file.digest)
            return {}
        for at in range(start, file.size, BLOB_CHUNK_BYTES):
            length = min(BLOB_CHUNK_BYTES, file.size - at)
            data = await asyncio.to_thread(blobs.read_range, file.digest, at, length)
            await progress({"data": data})
        return {}

    return {"release.files": bring, "release.file": give}


def _named(node: Node, clock: Clock, reader: Reader) -> Release:
    """The release that is asked for, if its files may lie here."""
    model, version, digest = (
        reader.text(key, None) or None for key in ("model", "version", "release")
    )
    release = Matter.of(node, clock, model).release(version, digest)
    if not may_lie(release, node.me.region, node.book.chain.current):
        raise NotPermitted(
            f"residency keeps {release.version} out of {node.me.region}",
            fix="ask a daemon in a region where it may lie",
        )
    return release
