"""What this daemon was told to keep, and what it has removed: pins and tombstones, stored.

Both are local: a pin is an operator's word about this daemon's disk, and a tombstone says that
files of a release were here. It falls when they are here again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from hanse.core.ids import Digest, Segment, segment
from hanse.core.limits import TEXT_BYTES_MAX
from hanse.core.reading import Reader, canonical_json, parse_json
from hanse.core.step import PutLocal, Write

PINS, TOMBSTONES = "pins", "tombstones"
_BYTES_MAX = 8 * TEXT_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Note:
    """Why a release is pinned, or was removed, and since when (Unix milliseconds)."""

    model: Segment
    why: str
    at_ms: int

    @classmethod
    def decode(cls, raw: bytes) -> Note:
        """Raises `InvalidSpec` for what this did not write."""
        with Reader(parse_json(raw, "stored note", bytes_max=_BYTES_MAX), "stored note") as reader:
            model = segment(reader.text("model"), "model")
            return cls(model, reader.text("why"), reader.integer("at_ms", low=0))


class Keeping:
    """Owned by the region."""

    def __init__(self) -> None:
        self.pins: dict[Digest, Note] = {}
        self.tombstones: dict[Digest, Note] = {}
        self._writes: list[Write] = []

    def restore(self, pins: Mapping[str, bytes], tombstones: Mapping[str, bytes]) -> None:
        """Take both back. What is whole on the disk by now is `back`."""
        for notes, stored in ((self.pins, pins), (self.tombstones, tombstones)):
            notes |= {Digest(key): Note.decode(raw) for key, raw in stored.items()}

    def pin(self, release: Digest, note: Note | None) -> None:
        """Keep this release from now on; None: no longer for a person's sake."""
        self._put(PINS, self.pins, release, note)

    def bury(self, release: Digest, note: Note) -> None:
        """Its files go, once this is stored."""
        self._put(TOMBSTONES, self.tombstones, release, note)

    def back(self, release: Digest) -> None:
        """Every file of it is here."""
        if release in self.tombstones:
            self._put(TOMBSTONES, self.tombstones, release, None)

    def writes(self) -> Iterator[Write]:
        out, self._writes = self._writes, []
        yield from out

    def _put(
        self, space: str, notes: dict[Digest, Note], release: Digest, note: Note | None
    ) -> None:
        if note is None:
            notes.pop(release, None)
        else:
            notes[release] = note
        raw = canonical_json(asdict(note)) if note is not None else None
        self._writes.append(PutLocal(space, release.hex, raw))
