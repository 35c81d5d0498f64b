"""release.files: the files of a release for a person on this machine, brought here first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hanse.core.catalog.residency import may_lie
from hanse.core.catalog.view import Release
from hanse.core.effects import FetchRelease
from hanse.core.encoding import to_base64
from hanse.core.errors import NotPermitted
from hanse.core.node import Clock, Node
from hanse.daemon.control import Handler, Progress
from hanse.daemon.driver import Driver
from hanse.daemon.queries.matter import Matter, asked
from hanse.daemon.transfers import Transfers
from hanse.storage.blobs import Blobs

LOOK_S = 0.5
PIECE_BYTES = 512 * 1024


def release_files(driver: Driver, blobs: Blobs, transfers: Transfers) -> Handler:
    """A `progress` tells how far the daemon itself is, or brings a piece of a file."""

    async def handle(
        args: dict[str, Any], progress: Progress, _: asyncio.StreamReader
    ) -> Mapping[str, Any]:
        release, region = await driver.do(lambda node, clock: _named(node, clock, args))
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
            for at in range(0, file.size, PIECE_BYTES):
                length = min(PIECE_BYTES, file.size - at)
                data = await asyncio.to_thread(blobs.read_range, file.digest, at, length)
                await progress({"file": file.name, "data": to_base64(data), "of": of})
        return {
            "release": str(release.digest),
            "version": release.version,
            "region": region,
            "files": [
                {"name": file.name, "digest": str(file.digest), "size": file.size} for file in files
            ],
        }

    return handle


def _named(node: Node, clock: Clock, args: Mapping[str, Any]) -> tuple[Release, str]:
    model, version, digest = asked(args, "release.files", "model", "version", "release")
    release = Matter.of(node, clock, model).release(version, digest)
    if not may_lie(release, node.me.region, node.book.chain.current):
        raise NotPermitted(
            f"residency keeps {release.version} out of {node.me.region}",
            fix="ask a daemon in a region where it may lie",
        )
    return release, node.me.region
