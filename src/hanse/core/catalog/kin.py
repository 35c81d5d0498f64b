"""Which file of which release a file is most like: that of its parent, or of the one before."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from hanse.core.catalog.manifest import File
from hanse.core.catalog.view import ModelView, Release
from hanse.core.ids import Digest


@dataclass(frozen=True, slots=True)
class Kin:
    """`file` of `release`, and a file of an older one under the same name."""

    release: Release
    file: File
    elder: Release
    older: File


def kin(view: ModelView, here: Collection[Digest]) -> Iterator[Kin]:
    """For the files of the releases that are here, the oldest release first: so that what all of
    them are like is what they lean on."""
    known = {release.digest: release for release in view.releases if release.digest in here}
    before: list[Release] = []
    for release in sorted(known.values(), key=lambda each: each.counter):
        parents = [parent.release for parent in release.manifest.parents]
        elders = [known[digest] for digest in parents if digest in known] or before
        for elder in elders:
            names = {file.name: file for file in elder.manifest.files}
            for file in release.manifest.files:
                older = names.get(file.name)
                if older is not None and older.digest != file.digest:
                    yield Kin(release, file, elder, older)
        before = [release]
