"""What each blob is made of, kept beside it: made at the first call, and again if damaged.

    <folder>/recipes/<hex>       the recipe, see `sealed`

A recipe follows from its file, so none is ever taken from a peer, and losing one costs only time.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from hanse.core.catalog.manifest import Manifest
from hanse.core.errors import NotFound, Rejected
from hanse.core.ids import Digest
from hanse.core.limits import RECIPE_BYTES_MAX
from hanse.parts.recipe import Recipe, parse_recipe, split
from hanse.parts.tensors import Span, external_spans
from hanse.storage.sealed import read_sealed, write_sealed

External: TypeAlias = Callable[[], tuple[Span, ...] | None]
"""The tensors of a file that a model has outside itself, see `parts.tensors.external_spans`."""


MAPPED_BYTES_MAX = 16 * 1024**2
"""Of a file that is split, so much at most is held in memory, and a part."""


class Holds(Protocol):
    def laid_out(self, digest: Digest) -> AbstractContextManager[Path]: ...
    def recipe(self, digest: Digest, external: External | None = None) -> Recipe: ...


def kept_recipe(path: Path, digest: Digest) -> Recipe | None:
    """None if there is none, or it is not what was written."""
    raw = read_sealed(path, RECIPE_BYTES_MAX)
    if raw is None:
        return None
    try:
        recipe = parse_recipe(raw)
    except Rejected:  # of another version
        return None
    return recipe if recipe.digest == digest else None


def keep_recipe(path: Path, recipe: Recipe) -> None:
    """Not synced: what a power cut leaves is found to be damaged."""
    write_sealed(path, recipe.encode())


def made_recipe(file: BinaryIO, external: External | None) -> Recipe:
    data, kept = mapped(file), 0

    def passed(end: int) -> None:
        """Pages that were read belong to the process until it says otherwise."""
        nonlocal kept
        if end - kept >= MAPPED_BYTES_MAX and isinstance(data.obj, mmap.mmap):
            end -= end % mmap.ALLOCATIONGRANULARITY
            data.obj.madvise(mmap.MADV_DONTNEED, kept, end - kept)
            kept = end

    return split(data, external() if external else None, passed)


def mapped(file: BinaryIO) -> memoryview:
    """The bytes of a file that nobody changes; unmapped with the last view of them."""
    if not os.fstat(file.fileno()).st_size:
        return memoryview(b"")
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def recipe_in(blobs: Holds, manifest: Manifest | None, digest: Digest) -> Recipe:
    """The recipe of a file of this release; from the release it is known what the file is for."""
    for file in manifest.files if manifest else ():
        if manifest and file.digest == digest:
            return blobs.recipe(digest, external_of(blobs, manifest, file.name))
    raise NotFound(f"{digest} is in no such release", fix="name the release that has it")


def external_of(blobs: Holds, manifest: Manifest, name: str) -> External:
    """What the models of a release say of another of its files, asked only if it is needed."""

    def told() -> tuple[Span, ...] | None:
        models = [f for f in manifest.files if f.name.endswith(".onnx") and f.name != name]
        for model in models:
            with contextlib.suppress(NotFound), blobs.laid_out(model.digest) as path:
                with path.open("rb") as file:
                    found = external_spans(mapped(file), name, manifest.file(name).size)
                if found:
                    return found
        return None

    return told
