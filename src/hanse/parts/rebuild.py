"""A file from its parts, bit for bit or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from hanse.core.errors import InvalidProof
from hanse.core.ids import Digest
from hanse.parts.payload import BaseOf, decode
from hanse.parts.recipe import Recipe


def rebuild(
    recipe: Recipe, held: BaseOf, payload_of: Callable[[Digest], bytes | None]
) -> Iterator[bytes | memoryview]:
    """The parts in order, from what is held and what was sent, each only after it was verified.

    Raises `InvalidProof` for a part that is not what the recipe says, or is missing, and at the end
    if the whole is not the file: a file gets its name only when this has come to its end.
    """
    whole = hashlib.sha256()
    for part in recipe.parts:
        if base := held(part.digest):
            data = base.data
            if Digest.of(data) != part.digest:
                raise InvalidProof(f"what is held is not {part.digest}", fix="fetch the part again")
        elif payload := payload_of(part.digest):
            data = decode(part, payload, held)
        else:
            raise InvalidProof(f"the part {part.digest} is missing", fix="fetch it")
        whole.update(data)
        yield data
    if whole.hexdigest() != recipe.digest.hex:
        raise InvalidProof(
            f"the parts of a recipe do not make up {recipe.digest}",
            fix="fetch the file whole, and distrust whoever sent the recipe",
        )
