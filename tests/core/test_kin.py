"""What a file is most like: the file of that name in a parent, or in the release before."""

from __future__ import annotations

from dataclasses import replace

from test_lineage import DIGESTS, release, view

from hanse.core.catalog.kin import kin
from hanse.core.catalog.manifest import File
from hanse.core.catalog.view import Release
from hanse.core.ids import Digest, segment


def made(i: int, parents: tuple[int, ...] = (), **files: str) -> Release:
    """With files that have the given contents."""
    each = tuple(
        File(segment(f"{name}.bin"), Digest.of(text.encode()), 1) for name, text in files.items()
    )
    plain = release(i, parents)
    return replace(plain, manifest=replace(plain.manifest, files=each))


def found(*releases: Release, here: set[int]) -> list[tuple[int, str, int]]:
    return [
        (each.release.counter, each.file.name, each.elder.counter)
        for each in kin(view(*releases), {DIGESTS[i] for i in here})
    ]


def test_a_file_is_like_its_namesake_in_each_parent_that_is_here() -> None:
    releases = [made(0, a="0"), made(1, a="1"), made(2, (1, 0, 5), a="2"), made(3, (1,), b="3")]
    assert found(*releases, here={0, 1, 2, 3}) == [
        (1, "a.bin", 0),
        (2, "a.bin", 1),
        (2, "a.bin", 0),
    ]
    assert found(*releases, here={0, 2}) == [(2, "a.bin", 0)]


def test_without_a_parent_here_it_is_like_the_release_before() -> None:
    releases = [made(2, (1,), a="2"), made(0, a="0"), made(3, (7,), a="3")]
    assert found(*releases, here={0, 2, 3}) == [(2, "a.bin", 0), (3, "a.bin", 2)]


def test_what_is_equal_is_one_file_already() -> None:
    assert found(made(0, a="0", b="0"), made(1, a="0", b="1"), here={0, 1}) == [(1, "b.bin", 0)]


def test_a_release_that_names_itself_or_its_child_is_like_it_only_by_name() -> None:
    releases = [made(0, (0, 1), a="0"), made(1, (0,), a="1")]
    assert found(*releases, here={0, 1}) == [(0, "a.bin", 1), (1, "a.bin", 0)]
