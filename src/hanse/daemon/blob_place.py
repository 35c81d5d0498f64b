"""Where the blobs of this daemon lie: in its own folder, or in a bucket of the region."""

from __future__ import annotations

from hanse.core.errors import InvalidSpec
from hanse.core.ids import MemberId
from hanse.daemon.config import Config
from hanse.storage.blobs import Blobs
from hanse.storage.folded import FoldedBlobs


def blobs_of(config: Config, member: MemberId) -> Blobs:
    """Ready to be used. Blocks; raises `InvalidSpec` for a bucket that is not this region's."""
    folder = config.home / "blobs"
    bucket = config.bucket
    if bucket is None:
        store: Blobs = FoldedBlobs(folder, reserve_bytes=config.blob_reserve_bytes)
    else:
        try:
            # Not at the top: a daemon without a bucket does not have the client installed.
            from hanse.storage.bucket import BucketBlobs
            from hanse.storage.objects import open_bucket
        except ImportError as error:
            raise InvalidSpec(
                f"blobs: {error.name} is not installed", fix="pip install 'hanse[bucket]'"
            ) from None
        store = BucketBlobs(
            folder,
            open_bucket(bucket),
            member,
            owner=f"{config.federation}/{config.region}",
            cache_bytes=config.blob_cache_bytes,
            reserve_bytes=config.blob_reserve_bytes,
        )
    store.sweep_temporaries()
    return store
