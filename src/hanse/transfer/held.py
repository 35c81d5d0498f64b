"""The parts of files that are here, for one that is to come: to be copied, or to be added to.

What lies here is no more believed than what comes: each part is hashed before it is used, and a
file that has rotted helps no longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from hanse.core.errors import NotFound, Unavailable
from hanse.core.ids import Digest
from hanse.core.limits import BLOB_CHUNK_BYTES
from hanse.core.transfer.wanted import File
from hanse.parts import plan
from hanse.parts.payload import Base
from hanse.parts.recipe import Part, Recipe
from hanse.storage.blobs import Blobs
from hanse.storage.recipes import recipe_in
from hanse.transfer.wish import Like


class Rotten(Exception):
    """A part of a file that is here is not what it was."""

    def __init__(self, file: File) -> None:
        super().__init__(str(file.digest))
        self.file = file


@dataclass(frozen=True, slots=True)
class _Place:
    part: Part
    file: File
    start: int


class Held:
    """Blocks, as `Blobs` does. `base` is the file that most of what is missing is like."""

    def __init__(self, blobs: Blobs, target: Recipe, like: Iterable[Like]) -> None:
        self._blobs = blobs
        self._places: dict[Digest, _Place] = {}
        self._rotten: dict[Digest, File] = {}
        self.base: File | None = None
        wanted = {part.digest: part.size for part in target.parts}
        most = 0
        for each in like:
            with suppress(NotFound, Unavailable):  # gone, or found to be damaged
                recipe = recipe_in(blobs, each.manifest, each.file.digest)
                for place in _places(recipe, each.file):
                    self._places.setdefault(place.part.digest, place)
                found = plan.bases(target, recipe)
                alike = sum(wanted[digest] for digest in found if digest not in self._places)
                if alike > most:
                    most, self.base = alike, each.file

    def read(self, part: Digest) -> bytes | None:
        """None if it is not here. Raises `Rotten`."""
        place = self._places.get(part)
        return None if place is None else self._read(place)

    def base_of(self, part: Digest) -> Base | None:
        """For `parts.payload.decode`. Raises `Rotten`, also for what was forgotten since it was
        asked for: whoever sent something against it did no wrong."""
        if part in self._rotten:
            raise Rotten(self._rotten[part])
        place = self._places.get(part)
        return None if place is None else Base(place.part, self._read(place))

    def forget(self, file: File) -> None:
        """It has rotted."""
        lost = {d for d, place in self._places.items() if place.file == file}
        self._rotten |= dict.fromkeys(lost, file)
        self._places = {d: place for d, place in self._places.items() if d not in lost}
        if self.base == file:
            self.base = None

    def _read(self, place: _Place) -> bytes:
        end = place.start + place.part.size
        steps = range(place.start, end, BLOB_CHUNK_BYTES)
        try:
            data = b"".join(
                self._blobs.read_range(place.file.digest, at, min(BLOB_CHUNK_BYTES, end - at))
                for at in steps
            )
        except NotFound:
            raise Rotten(place.file) from None
        if Digest.of(data) != place.part.digest:
            raise Rotten(place.file)
        return data


def _places(recipe: Recipe, file: File) -> Iterator[_Place]:
    for part, start in zip(recipe.parts, recipe.starts(), strict=False):
        yield _Place(part, file, start)
