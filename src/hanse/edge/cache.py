"""Releases on the node's disk: one folder each, with exactly the files that its manifest names.

The bytes live in the blob store; a folder holds hard links to them, so a file that two releases
share is there once. A folder appears under its name only when it is complete. Because it holds
nothing else, a model's external data can only be a file that the publisher signed for.

    <folder>/blobs/…             see storage.blobs
    <folder>/releases/<hex>/     model.onnx, golden.npz, …

All functions block: call them through `asyncio.to_thread`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from hanse.core.catalog.manifest import Manifest
from hanse.core.errors import NotFound, Unavailable
from hanse.core.ids import Digest
from hanse.storage.blobs import BlobStore


class Cache:
    def __init__(self, folder: Path) -> None:
        self.blobs = BlobStore(folder)
        self.blobs.sweep_temporaries()
        self._releases = folder / "releases"
        self._releases.mkdir(mode=0o700, parents=True, exist_ok=True)
        for unfinished in self._releases.glob("*.new"):
            shutil.rmtree(unfinished)

    def releases(self) -> frozenset[Digest]:
        """The releases whose folders are complete."""
        return frozenset(Digest(each.name) for each in self._releases.iterdir())

    def folder(self, release: Digest) -> Path:
        return self._releases / release.hex

    def lay_out(self, release: Digest, manifest: Manifest) -> Path:
        """Make the folder of a release from blobs that are all here. Raises `NotFound`."""
        folder = self.folder(release)
        if folder.exists():
            return folder
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        for file in manifest.files:
            _link(self.blobs.path(file.digest), new / file.name)
        new.replace(folder)
        return folder

    def verify(self, release: Digest, manifest: Manifest) -> Path:
        """Hash the files again, because disks forget. Raises `Unavailable` after removing what
        is missing or damaged, so that it can be fetched anew."""
        folder = self.folder(release)
        for file in manifest.files:
            if not _matches(folder / file.name, file.digest):
                shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(NotFound, Unavailable):
                    self.blobs.open_verified(file.digest).close()
                raise Unavailable(f"{file.name} of release {release.short} is missing or damaged")
        return folder

    def forget(self, release: Digest, needed: Collection[Digest]) -> None:
        """Delete the folder of a release, and every blob that is not `needed` by another."""
        shutil.rmtree(self.folder(release), ignore_errors=True)
        for digest in self.blobs.list():
            if digest not in needed:
                self.blobs.delete(digest)

    def abandon(self, manifest: Manifest) -> None:
        """Drop what has arrived of files that will not be fetched to their end."""
        for file in manifest.files:
            if not self.blobs.has(file.digest):
                with contextlib.suppress(Unavailable):
                    self.blobs.unfinished(file.size, file.digest).abort()


def _link(blob: Path, path: Path) -> None:
    try:
        os.link(blob, path)
    except OSError:  # a file system without hard links
        shutil.copyfile(blob, path)


def _matches(path: Path, digest: Digest) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest.hex
    except OSError:
        return False
