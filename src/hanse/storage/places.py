"""Where the parts of a folded blob lie: in whole files beside it, or as payloads of its own.

    {"schema": 1, "size": 10857958, "kept": 913204, "bases": ["<64 hex digits>", …]}
    the recipe
    {"places": [[0, 0, 8192], [913204, 0, 73728, ["<64 hex digits>", 3145789, 61, "F32", …]], …]}

Three lines, each in canonical JSON; behind a seal, see `sealed`. A place is the length of the
part's payload, 0 for a part that is copied; then, if it leans on a file, which one of `bases`, and
where in it; and of what a payload is a difference to, the part as its own recipe has it. Payloads
lie one after another in the order of the parts. The first line is all that a start has to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from hanse.core.errors import InvalidSpec
from hanse.core.ids import Digest
from hanse.core.limits import FILE_BYTES_MAX, PART_BYTES_MAX, PARTS_MAX, RECIPE_BYTES_MAX
from hanse.core.reading import Reader, canonical_json, parse_json
from hanse.parts.recipe import Part, Recipe, parse_part, parse_recipe, row_of

BASES_MAX = 16
BYTES_MAX = 3 * RECIPE_BYTES_MAX
_HEAD_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of every folded blob: its size, how much is kept of it, what it leans on."""

    size: int
    kept: int
    bases: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A part is copied from `base`, or it is a payload, alone or against `part` of `base`."""

    length: int
    base: Digest | None = None
    start: int = 0
    part: Part | None = None


@dataclass(frozen=True)
class Places:
    recipe: Recipe
    each: tuple[Place, ...]

    @cached_property
    def head(self) -> Head:
        bases = dict.fromkeys(place.base for place in self.each if place.base)
        return Head(self.recipe.size, sum(place.length for place in self.each), tuple(bases))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where in the blob each part begins, and where it ends."""
        return self.recipe.starts()

    @cached_property
    def payloads(self) -> tuple[int, ...]:
        """Where in the payloads each begins."""
        return tuple(accumulate((place.length for place in self.each), initial=0))

    def encode(self) -> bytes:
        head = self.head
        first = {
            "schema": 1,
            "size": head.size,
            "kept": head.kept,
            "bases": [base.hex for base in head.bases],
        }
        rows = [_row(place, head.bases) for place in self.each]
        lines = (canonical_json(first), self.recipe.encode(), canonical_json({"places": rows}))
        return b"\n".join(lines)


def parse_head(raw: bytes) -> Head:
    """Raises `Rejected` for what this did not write."""
    line = raw[:_HEAD_BYTES_MAX].partition(b"\n")[0]
    with Reader(parse_json(line, "places", bytes_max=_HEAD_BYTES_MAX), "places") as reader:
        reader.integer("schema", low=1, high=1)
        return Head(
            reader.integer("size", high=FILE_BYTES_MAX),
            reader.integer("kept", high=FILE_BYTES_MAX),
            reader.items("bases", lambda value, _: Digest(str(value)), count_max=BASES_MAX),
        )


def parse_places(raw: bytes) -> Places:
    """Raises `Rejected` for what this did not write."""
    head, lines = parse_head(raw), raw.split(b"\n")
    if len(lines) != 3:
        raise InvalidSpec("places: expected three lines")
    with Reader(parse_json(lines[2], "places", bytes_max=BYTES_MAX), "places") as reader:
        each = reader.items("places", lambda v, at: _place(v, at, head.bases), count_max=PARTS_MAX)
    places = Places(parse_recipe(lines[1]), each)
    if len(each) != len(places.recipe.parts) or places.head != head:
        raise InvalidSpec("places: not those of this recipe")
    return places


def _row(place: Place, bases: Sequence[Digest]) -> list[Any]:
    if place.base is None:
        return [place.length]
    row: list[Any] = [place.length, bases.index(place.base), place.start]
    return [*row, row_of(place.part)] if place.part else row


def _place(value: Any, path: str, bases: Sequence[Digest]) -> Place:
    part = None
    match value:
        case [int(length)]:
            return Place(length)
        case [int(length), int(base), int(start)]:
            pass
        case [int(length), int(base), int(start), list(row)]:
            part = parse_part(row, path)
        case _:
            raise InvalidSpec(f"{path}: no place of a part")
    if not (0 <= length <= PART_BYTES_MAX + 2 and 0 <= base < len(bases)):
        raise InvalidSpec(f"{path}: no place of a part")
    if not 0 <= start <= FILE_BYTES_MAX or (part is None) != (length == 0):
        raise InvalidSpec(f"{path}: no place of a part")
    return Place(length, bases[base], start, part)
