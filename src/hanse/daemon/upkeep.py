"""What is done to the stored files in the background: folding them, and looking for rot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hanse.core.effects import FetchRelease
from hanse.daemon.config import Config
from hanse.daemon.driver import Driver
from hanse.daemon.folding import Folding
from hanse.daemon.scrubbing import Scrubber
from hanse.storage.blobs import Blobs
from hanse.storage.folded import FoldedBlobs


class Upkeep:
    """Owned by the composition root. `still` is held while nothing may be folded."""

    def __init__(
        self,
        config: Config,
        driver: Driver,
        blobs: Blobs,
        fetch: Callable[[FetchRelease], None],
    ) -> None:
        self.still = asyncio.Lock()
        self.scrubber = Scrubber(
            driver,
            blobs,
            fetch,
            config.home / "blobs/scrub",
            bytes_s=config.scrub_bytes_per_s,
            interval_s=config.scrub_interval_s,
        )
        self._watches = [self.scrubber.watch]
        if isinstance(blobs, FoldedBlobs) and config.fold_after_s >= 0:
            self._watches.append(Folding(driver, blobs, config.fold_after_s, self.still).watch)

    async def watch(self) -> None:
        """Never ends by itself."""
        await asyncio.gather(*(watch() for watch in self._watches))
