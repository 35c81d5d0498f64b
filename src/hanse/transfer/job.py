"""One file that is being brought: what is wanted, who may have it, and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import structlog

from hanse.core.errors import HanseError, InvalidProof, InvalidSpec, TooLarge, Unavailable
from hanse.core.ids import Digest
from hanse.core.transfer.wanted import File
from hanse.rpc import blob_client
from hanse.rpc.pacing import Pace
from hanse.storage.blobs import Arriving, Blobs
from hanse.transfer.held import Held
from hanse.transfer.places import Places
from hanse.transfer.underway import Underway
from hanse.transfer.wish import ChannelTo, Progress, Source, Wish

SOURCES_MAX = 4
NEAR_TIMES, NEAR_S = 3.0, 0.02
REFUSAL_CHARS = 200
LIES = (InvalidProof, TooLarge, InvalidSpec)
log = structlog.get_logger("hanse.transfer")


class Ours(Exception):
    """It is our own store that says no: nobody else is to be asked, or blamed."""

    def __init__(self, error: Unavailable) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(slots=True)
class Job:
    """`sources` are sorted by their round trip."""

    blobs: Blobs
    coming: Arriving
    wish: Wish
    sources: Sequence[Source]
    chance: Random
    progress: Progress
    neighbour: ChannelTo | None = None
    underway: Underway = field(default_factory=Underway)
    on_damage: Callable[[Digest], None] = lambda _: None
    line: Pace = blob_client.AS_IT_COMES
    refusals: dict[str, str] = field(default_factory=dict)
    _rotten: set[File] = field(default_factory=set)

    def near(self) -> Sequence[Source]:
        """Those that are about as near as the nearest."""
        if not self.sources:
            return []
        reach_s = max(self.sources[0].rtt_s * NEAR_TIMES, self.sources[0].rtt_s + NEAR_S)
        return [source for source in self.sources if source.rtt_s <= reach_s][:SOURCES_MAX]

    def refused(self, name: str, error: HanseError) -> None:
        self.refusals.setdefault(name, error.message[:REFUSAL_CHARS])
        if isinstance(error, LIES):
            log.warning("source_lied", source=name, why=str(error))

    def rotten(self, held: Held, file: File) -> None:
        if file in self._rotten:
            return
        self._rotten.add(file)
        log.error("blob_damaged", blob=str(file.digest), what="a part that was to be built on")
        held.forget(file)
        self.on_damage(file.digest)

    def count(self, done: int, came: int = 0) -> None:
        self.progress.done += done
        self.progress.came += came

    # These two block.
    def put(self, start: int, data: bytes | memoryview) -> None:
        try:
            self.coming.write(start, data)
        except Unavailable as error:
            raise Ours(error) from error

    def commit(self) -> None:
        try:
            self.coming.commit()
        except Unavailable as error:
            raise Ours(error) from error

    def put_part(self, places: Places, number: int, data: bytes | memoryview) -> None:
        for start in places.starts_of(number):
            self.put(start, data)
