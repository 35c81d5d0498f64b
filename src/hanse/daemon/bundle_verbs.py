"""bundle.heads, bundle.export and bundle.import: bundles over the control socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hanse.core.errors import InvalidSpec
from hanse.daemon.bundles import Bundles, wanted
from hanse.daemon.control import Handler, Progress, plain, upload

BUNDLE_BYTES_MAX = 2**50
SIGN_OF_LIFE_S = 5.0
"""Of a daemon that hashes a long history; its caller gives up after 30 s of silence."""


def bundle_verbs(bundles: Bundles) -> dict[str, Handler]:
    async def heads(_: dict[str, Any]) -> Mapping[str, Any]:
        return (await bundles.held()).to_mapping()

    return {
        "bundle.heads": plain(heads),
        "bundle.export": _export(bundles),
        "bundle.import": _import(bundles),
    }


def _export(bundles: Bundles) -> Handler:
    async def handle(
        args: dict[str, Any], progress: Progress, _: asyncio.StreamReader
    ) -> Mapping[str, Any]:
        held, region = wanted(args)
        making = asyncio.create_task(
            bundles.make(held, region, with_blobs=args.get("blobs") is True)
        )
        while not (await asyncio.wait({making}, timeout=SIGN_OF_LIFE_S))[0]:
            await progress({"data": b"", "of": 0})
        made, pieces = making.result()
        size = sum(part.size for part in made.parts)
        async for piece in pieces:
            await progress({"data": piece, "of": size})
        kinds = [part.kind for part in made.parts]
        return {
            "region": region,
            "bytes": size,
            "trust": kinds.count("trust"),
            "events": sum(part.count for part in made.parts),
            "files": kinds.count("blob"),
        }

    return handle


def _import(bundles: Bundles) -> Handler:
    async def handle(
        args: dict[str, Any], progress: Progress, stream: asyncio.StreamReader
    ) -> Mapping[str, Any]:
        size = args.get("size")
        if type(size) is not int or not 0 < size <= BUNDLE_BYTES_MAX:
            raise InvalidSpec("size: expected how many bytes follow")
        await progress({"send": True})

        # No word before the end: the caller sends, and reads nothing meanwhile.
        return asdict(await bundles.take(upload(stream, size)))

    return handle
