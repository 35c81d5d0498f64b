"""What the files of a release must be before this daemon records it, whoever publishes it.

The command line looks at them too, but whoever holds a publisher's key may leave it out. So each
file is looked at here, in a process of its own, and what its manifest says is held against what
the file says: needs may be tighter, never looser, inputs and outputs are the same. What a digest
stands for never changes: a file that was looked at is not looked at again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

from hanse.artefacts.content import GOLDEN
from hanse.artefacts.onnx_walk import check_beside
from hanse.core.catalog.manifest import File, Manifest, Variant
from hanse.core.compat import check_format, looser
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Digest
from hanse.daemon.inspection import inspect_files
from hanse.daemon.onnx_file import Inspection
from hanse.storage.blobs import Blobs

KNOWN_MAX: Final = 4096

Known = tuple[Digest, str]
"""A file, and as what it was looked at."""


class Examiner:
    """Owned by the composition root; looks at one release at a time."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._known: OrderedDict[Known, Inspection | None] = OrderedDict()
        self._turn = asyncio.Lock()

    async def check(self, manifest: Manifest) -> None:
        """Raises `InvalidSpec`, `TooLarge`, or `Unavailable` where it cannot be done.

        All files have to be in the store.
        """
        roles = _roles(manifest)
        async with self._turn:
            fresh = [f for f in manifest.files if (f.digest, roles[f.name]) not in self._known]
            if fresh:
                found = await asyncio.to_thread(self._look, fresh, roles)
                for file in fresh:
                    self._known[file.digest, roles[file.name]] = found.get(file.name)
            said = {f.name: self._known[f.digest, roles[f.name]] for f in manifest.files}
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        for variant in manifest.variants:
            check_format(variant.format, variant.requires, f"variant {variant.id}")
            if (inspection := said[variant.file]) is not None:
                _compare(manifest, variant, inspection)

    def _look(self, files: list[File], roles: Mapping[str, str]) -> dict[str, Inspection]:
        with ExitStack() as stack:
            paths = {
                str(f.name): stack.enter_context(self._blobs.laid_out(f.digest)) for f in files
            }
            return inspect_files(paths, {name: roles[name] for name in paths})


def _roles(manifest: Manifest) -> dict[str, str]:
    roles: dict[str, str] = {file.name: "" for file in manifest.files}
    stands_for = [(variant.file, variant.format) for variant in manifest.variants]
    if manifest.golden is not None:
        stands_for.append((manifest.golden.file, GOLDEN))
    for name, role in stands_for:
        if roles[name] not in ("", role):
            raise InvalidSpec(
                f"{name} is {roles[name]} and {role} at once", fix="name one file for each"
            )
        roles[name] = role
    return roles


def _compare(manifest: Manifest, variant: Variant, found: Inspection) -> None:
    sizes = {str(file.name): file.size for file in manifest.files}
    check_beside(variant.file, found.external, sizes.get)
    for key, need in found.requires.items():
        if key not in variant.requires or looser(variant.requires[key], need):
            raise InvalidSpec(
                f"variant {variant.id} needs {key} {need}, and the manifest says "
                f"{variant.requires.get(key, 'nothing')!r}",
                fix="publish it with hanse: it reads the needs from the file",
            )
    for what, said, real in (
        ("inputs", manifest.inputs, found.inputs),
        ("outputs", manifest.outputs, found.outputs),
    ):
        if said != real:
            raise InvalidSpec(
                f"the {what} of {variant.file} are not those of the manifest",
                fix="publish it with hanse: it reads them from the file",
            )
