"""Where the parts of a recipe go in the file that they make up."""

from __future__ import annotations

from hanse.core.ids import Digest
from hanse.parts.recipe import Recipe


class Places:
    """The parts of a recipe and where each goes; one that occurs again is fetched once."""

    def __init__(self, recipe: Recipe) -> None:
        self.parts = recipe.parts
        self.sizes = [part.size for part in recipe.parts]
        starts = recipe.starts()
        first: dict[Digest, int] = {}
        self.same: list[int] = []  # for each part the first that is equal
        self._again: dict[int, list[int]] = {}
        for number, part in enumerate(recipe.parts):
            self.same.append(same := first.setdefault(part.digest, number))
            if same != number:
                self._again.setdefault(same, [starts[same]]).append(starts[number])
        self.first = list(first.values())
        self._starts = starts

    def starts_of(self, number: int) -> list[int]:
        return self._again.get(number) or [self._starts[number]]
