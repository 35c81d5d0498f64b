"""A file from its parts, bit for bit or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from hanse.core.errors import InvalidProof
from hanse.core.ids import Digest
from hanse.parts.recipe import Part, Recipe


def rebuild(recipe: Recipe, bytes_of: Callable[[Part], bytes | memoryview]) -> Iterator[bytes]:
    """The parts in order, each only after its own digest was right.

    Raises `InvalidProof` for a part that is not what the recipe says, and at the end if the whole
    is not the file: whoever writes it gives it its name only when this has come to its end.
    """
    whole = hashlib.sha256()
    for part in recipe.parts:
        data = bytes(bytes_of(part))
        if len(data) != part.size or Digest.of(data) != part.digest:
            raise InvalidProof(f"these bytes are not the part {part.digest}", fix="fetch it again")
        whole.update(data)
        yield data
    if whole.hexdigest() != recipe.digest.hex:
        raise InvalidProof(
            f"the parts of a recipe do not make up {recipe.digest}",
            fix="fetch the file whole, and distrust whoever sent the recipe",
        )
