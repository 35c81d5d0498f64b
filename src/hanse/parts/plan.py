"""Which parts have to travel, and against which others: the same wherever it is worked out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hanse.core.ids import Digest
from hanse.parts.recipe import Part, Recipe


def unlike(target: Recipe, held: Recipe) -> int:
    """Bytes that travel at most to whoever holds that file: of the parts that are not in it."""
    here = {part.digest for part in held.parts}
    return sum({p.digest: p.size for p in target.parts if p.digest not in here}.values())


def bases(target: Recipe, ancestor: Recipe) -> dict[Digest, Part]:
    """For each part that the ancestor lacks, the one of its parts that is most like it, if any.

    A tensor is found by its name, type and shape, else by its name alone; other bytes by their
    place: behind the part that the ones before them came from.
    """
    held = {part.digest: index for index, part in enumerate(ancestor.parts)}
    exact = {key: part for part, key, _ in _named(ancestor)}
    by_name = {name: part for part, _, name in _named(ancestor)}
    keys = {id(part): (key, name) for part, key, name in _named(target)}
    found: dict[Digest, Part] = {}
    after = 0
    for part in target.parts:
        here = held.get(part.digest)
        if here is None and part.tensor is None:
            here = after if after < len(ancestor.parts) else None
            base = ancestor.parts[here] if here is not None else None
        elif here is None:
            key, name = keys[id(part)]
            base = exact.get(key) or by_name.get(name)
            here = held[base.digest] if base else None
        else:
            base = None
        if base is not None:
            found.setdefault(part.digest, base)
        if here is not None:
            after = here + 1
    return found


def _named(recipe: Recipe) -> Iterator[tuple[Part, tuple[object, ...], tuple[object, ...]]]:
    """Tensors with their keys; of several of one name the n-th is the n-th."""
    seen: Counter[tuple[object, ...]] = Counter()
    for part in recipe.parts:
        if (tensor := part.tensor) is not None:
            name = (tensor.name, tensor.slab)
            key = (*name, tensor.dtype, tensor.shape)
            yield part, (*key, seen[key]), (*name, seen[name])
            seen.update((key, name))
