"""What is new of a file beside another one: each part copied, or packed as small as it gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hanse.core.ids import Digest
from hanse.parts import payload, plan
from hanse.parts.payload import Base
from hanse.parts.recipe import Part, Recipe
from hanse.storage.places import Place, Places

ReadPart = Callable[[Part, int], bytes]
"""The bytes of a part that begins there, hashed: damage must not be folded in."""


def fold_up(
    target: Recipe,
    base: Recipe,
    read_target: ReadPart,
    read_base: ReadPart,
    write: Callable[[bytes], None],
    most: int,
) -> Places | None:
    """Writes the payloads in order. None as soon as they have more than `most` bytes."""
    starts = _starts(base)
    held = {part.digest: part for part in base.parts}
    against = plan.bases(target, base)
    each: list[Place] = []
    kept = 0
    for part, start in zip(target.parts, target.starts(), strict=False):
        same = held.get(part.digest)
        if same is not None:
            read_base(same, starts[same.digest])
            each.append(Place(0, base.digest, starts[same.digest]))
            continue
        old = against.get(part.digest)
        leaning = Base(old, read_base(old, starts[old.digest])) if old else None
        packed = payload.encode(part, read_target(part, start), leaning)
        kept += len(packed)
        if kept > most:
            return None
        write(packed)
        if old is not None and payload.base_of(packed) is not None:
            each.append(Place(len(packed), base.digest, starts[old.digest], old))
        else:
            each.append(Place(len(packed)))
    return Places(target, tuple(each))


def _starts(recipe: Recipe) -> Mapping[Digest, int]:
    return {p.digest: at for p, at in zip(recipe.parts, recipe.starts(), strict=False)}
