"""A file as an ordered list of parts, each with its digest: what it is made of, not from what.

    {"schema": 1, "digest": "sha256:…", "size": 10857958, "parts": [
        ["<64 hex digits>", 65536],
        ["<64 hex digits>", 3145789, 61, "F32", [1024, 768], "encoder.w", 0], …]}

A part is its digest and size, and for a tensor: how many bytes lead up to its elements (what the
file says of it), type, shape, name, and which slab of 4 MiB of the tensor this is. Parts one after
another are the file, whatever its bytes are. A file has one recipe, and a recipe one encoding, so
two peers that hold the same file hold the same recipe without a word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from hanse.core.errors import InvalidSpec, TooLarge
from hanse.core.ids import Digest
from hanse.core.limits import FILE_BYTES_MAX, PART_BYTES_MAX, PARTS_MAX, RECIPE_BYTES_MAX
from hanse.core.reading import Reader, canonical_json, parse_json
from hanse.parts.chunks import cuts
from hanse.parts.tensors import RANK_MAX, WIDTHS, Span, name_fits, spans

TENSOR_BYTES_MIN = 512
"""Smaller ones stay with the bytes around them: a part costs some 70 bytes in the recipe."""
LEAD_BYTES_MAX = 4096
SLAB_BYTES = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a part is that follows a tensor. `lead`: bytes before its first element."""

    lead: int
    dtype: str
    shape: tuple[int, ...]
    name: str
    slab: int

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return WIDTHS[self.dtype]


@dataclass(frozen=True, slots=True)
class Part:
    digest: Digest
    size: int
    tensor: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    digest: Digest
    size: int
    parts: tuple[Part, ...]

    def starts(self) -> tuple[int, ...]:
        """Where in the file each part begins, and where the last one ends."""
        return tuple(accumulate((part.size for part in self.parts), initial=0))

    def encode(self) -> bytes:
        parts = [row_of(part) for part in self.parts]
        return canonical_json(
            {"schema": 1, "digest": str(self.digest), "size": self.size, "parts": parts}
        )


def split(
    data: bytes | memoryview,
    found: tuple[Span, ...] | None = None,
    passed: Callable[[int], None] = lambda _: None,
) -> Recipe:
    """The recipe of any file: by its tensors if it is a model, else by its content.

    Of the external data of an ONNX model the tensors are `found` by `external_spans`. Map the file
    if it is large: `passed` is told up to where it has been read. Raises `TooLarge` over
    `FILE_BYTES_MAX`.
    """
    if len(data) > FILE_BYTES_MAX:
        raise TooLarge(f"a file of {len(data)} bytes", fix=f"at most {FILE_BYTES_MAX} are taken")
    view = memoryview(data)
    recipe = _recipe(view, spans(view) if found is None else found, passed)
    if len(recipe.parts) > PARTS_MAX or len(recipe.encode()) > RECIPE_BYTES_MAX:
        recipe = _recipe(view, (), passed)
    return recipe


def _recipe(data: memoryview, found: tuple[Span, ...], passed: Callable[[int], None]) -> Recipe:
    parts, start, whole = [], 0, hashlib.sha256()
    for end, tensor in _ends(data, found):
        piece = data[start:end]
        whole.update(piece)
        parts.append(Part(Digest.of(piece), end - start, tensor))
        passed(end)
        start = end
    return Recipe(Digest(whole.hexdigest()), len(data), tuple(parts))


def _ends(data: memoryview, found: tuple[Span, ...]) -> Iterator[tuple[int, Tensor | None]]:
    done = 0
    for span in found:
        if span.end - span.start < TENSOR_BYTES_MIN:
            continue
        if span.start - done > LEAD_BYTES_MAX:
            yield from ((done + end, None) for end in cuts(data[done : span.start]))
            done = span.start
        for slab, start in enumerate(range(span.start, span.end, SLAB_BYTES)):
            tensor = Tensor(start - done, span.dtype, span.shape, span.name, slab)
            done = min(start + SLAB_BYTES, span.end)
            yield done, tensor
    yield from ((done + end, None) for end in cuts(data[done:]))


def parse_recipe(raw: bytes) -> Recipe:
    """Read a peer's recipe. Raises `Rejected` unless it is one that `encode` could have written.

    Whether the parts make up the file is known only once they are there.
    """
    value = parse_json(raw, "recipe", bytes_max=RECIPE_BYTES_MAX)
    with Reader(value, "recipe") as reader:
        reader.integer("schema", low=1, high=1)
        recipe = Recipe(
            Digest.parse(reader.text("digest")),
            reader.integer("size", high=FILE_BYTES_MAX),
            reader.items("parts", parse_part, count_max=PARTS_MAX),
        )
    if sum(part.size for part in recipe.parts) != recipe.size:
        raise InvalidSpec("recipe: the sizes of the parts do not add up to that of the file")
    if recipe.encode() != raw:
        raise InvalidSpec("recipe: not in canonical form", fix="take it from another peer")
    return recipe


def row_of(part: Part) -> list[Any]:
    """A part as a line of a recipe."""
    row: list[Any] = [part.digest.hex, part.size]
    if (tensor := part.tensor) is not None:
        row += [tensor.lead, tensor.dtype, list(tensor.shape), tensor.name, tensor.slab]
    return row


def parse_part(value: Any, path: str) -> Part:
    """What `row_of` made of a part. Raises `Rejected`."""
    match value:
        case [str(digest), int(size)]:
            tensor = None
        case [str(digest), int(size), int(lead), str(dtype), list(shape), str(name), int(slab)]:
            tensor = Tensor(lead, dtype, tuple(shape), name, slab)
            elements = size - lead
            if (
                not type(slab) is type(lead) is int
                or not 0 <= lead <= LEAD_BYTES_MAX
                or elements < 1
                or elements % WIDTHS.get(dtype, elements + 1)
                or len(shape) > RANK_MAX
                or not all(type(n) is int and 0 <= n < 2**40 for n in shape)
                or not name_fits(name)
                or not 0 <= slab < FILE_BYTES_MAX // SLAB_BYTES
            ):
                raise InvalidSpec(f"{path}: no part of a tensor")
        case _:
            raise InvalidSpec(f"{path}: expected a part: a digest, a size, and what it is")
    if type(size) is not int or not 1 <= size <= PART_BYTES_MAX:
        raise InvalidSpec(f"{path}: a part has 1 to {PART_BYTES_MAX} bytes")
    return Part(Digest(digest), size, tensor)
