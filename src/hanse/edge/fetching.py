"""Getting the files of a release: from the nearest sources that serve them, resumable.

What a source sends counts for nothing until its digest is right, so any source may be asked:
one that sends wrong bytes only costs time, and the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from hanse.core.catalog.manifest import Manifest
from hanse.core.errors import NotPermitted, TooLarge
from hanse.core.ids import Digest
from hanse.core.transfer.wanted import File
from hanse.edge.cache import Cache
from hanse.rpc import blob_client
from hanse.rpc.pacing import Pace
from hanse.transfer.fetch import fetch_file
from hanse.transfer.threads import finished
from hanse.transfer.underway import Underway
from hanse.transfer.wish import ChannelTo, Progress, Source, Wish, likely


async def fetch_release(
    cache: Cache,
    release: Digest,
    manifest: Manifest,
    sources: Sequence[Source],
    *,
    region: str,
    held: Sequence[tuple[Digest, Manifest]],
    bytes_max: int,
    chance: Random,
    shown: list[Progress],
    neighbour: ChannelTo | None = None,
    underway: Underway | None = None,
    on_damage: Callable[[Digest], None] = lambda _: None,
    line: Pace = blob_client.AS_IT_COMES,
) -> None:
    """Fetch what is missing and lay the release out. What has arrived survives a failure.

    `held` are other releases of the model, what is most like it first; what is under way is in
    `shown`. Raises `NotPermitted` if it may not lie in this region, `TooLarge` if this node does
    not take releases of that size and `Unavailable` if no source served a file.
    """
    if not {"*", region} & set(manifest.residency):
        raise NotPermitted(f"release {release.short} may not lie in {region}")
    size = sum(file.size for file in manifest.files)
    if size > bytes_max:
        raise TooLarge(
            f"release {release.short} has {size} bytes, this node takes {bytes_max}",
            fix="raise release_bytes_max or publish a smaller variant",
        )
    for file in manifest.files:
        if not await asyncio.to_thread(cache.blobs.has, file.digest):
            like = likely(file.name, file.digest, held)
            wish = Wish(File(file.digest, release), file.size, file.name, like)
            progress = Progress(wish)
            shown.append(progress)
            try:
                await fetch_file(
                    cache.blobs,
                    wish,
                    sources,
                    chance,
                    progress=progress,
                    neighbour=neighbour,
                    underway=underway,
                    on_damage=on_damage,
                    line=line,
                )
            finally:
                shown.remove(progress)
    await finished(cache.lay_out, release, manifest)
