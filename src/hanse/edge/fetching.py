"""Getting the files of a release: from the nearest source that serves them, resumable.

What a source sends counts for nothing until its digest is right, so any source may be asked:
one that sends wrong bytes only costs time, and the next one goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hanse.core.assignment import Source
from hanse.core.catalog.manifest import File, Manifest
from hanse.core.errors import Rejected, TooLarge, Unavailable
from hanse.core.ids import Digest
from hanse.edge.cache import Cache
from hanse.rpc import blob_client
from hanse.rpc.channels import Channel

T = TypeVar("T")
ChannelTo = Callable[[Source], Channel]


async def fetch_release(
    cache: Cache,
    release: Digest,
    manifest: Manifest,
    sources: Sequence[Source],
    channel_to: ChannelTo,
    *,
    bytes_max: int,
) -> None:
    """Fetch what is missing and lay the release out. What has arrived survives a failure.

    Raises `TooLarge` if this node does not take releases of that size and `Unavailable` if no
    source served a file.
    """
    size = sum(file.size for file in manifest.files)
    if size > bytes_max:
        raise TooLarge(
            f"release {release.short} has {size} bytes, this node takes {bytes_max}",
            fix="raise release_bytes_max or publish a smaller variant",
        )
    for file in manifest.files:
        if not await asyncio.to_thread(cache.blobs.has, file.digest):
            await _fetch_file(cache, release, file, sources, channel_to)
    await finished(cache.lay_out, release, manifest)


async def _fetch_file(
    cache: Cache, release: Digest, file: File, sources: Sequence[Source], channel_to: ChannelTo
) -> None:
    refusals = []
    for source in sources:
        try:
            await _fetch_from(cache, release, file, lambda s=source: channel_to(s))  # type: ignore[misc]  # binds the loop variable
            return
        except (Rejected, Unavailable) as error:
            refusals.append(f"{source.address}: {error.message}")
    raise Unavailable(f"no source served {file.name}: {'; '.join(refusals) or 'none is known'}")


async def _fetch_from(
    cache: Cache, release: Digest, file: File, channel: Callable[[], Channel]
) -> None:
    opening = asyncio.ensure_future(asyncio.to_thread(cache.blobs.writer, file.size, file.digest))
    try:
        writer = await asyncio.shield(opening)
    except asyncio.CancelledError:
        (await opening).suspend()
        raise
    try:
        left = file.size - writer.offset
        # Asked for only now: while the writer was opened, a renewal may have closed an older one.
        pieces = blob_client.fetch(channel(), file.digest, release, writer.offset, bytes_max=left)
        async for piece in pieces:
            await finished(writer.write, piece)
        await finished(writer.commit)
    finally:
        await finished(writer.suspend)


async def finished(function: Callable[..., T], *args: Any) -> T:
    """Run it in a thread and wait for its end even if cancelled: the next call may follow it."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
