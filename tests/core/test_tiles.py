"""Tiles as C2SP describes them, and proofs from tiles, judged by another implementation."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree
from pymerkle.core import _inclusion_path_layout
from pymerkle.proof import InclusionProof

from hanse.core.errors import InvalidProof
from hanse.core.log import proofs
from hanse.core.log.merkle import leaf_hash, root_of
from hanse.core.log.tiles import (
    ENTRIES,
    Tile,
    bundle,
    entries_of,
    hashes_of,
    subtrees,
    tile_at,
    tiles_of,
)

SIZE = 70_000  # the example of the specification
ENTRY = [b"entry %d" % i for i in range(SIZE)]
LEAVES = [leaf_hash(entry) for entry in ENTRY]


def level(number: int) -> list[bytes]:
    """Every hash of a level by its definition: the roots of subtrees of 256 ** n leaves."""
    hashes = LEAVES
    for _ in range(number):
        whole = len(hashes) // 256
        hashes = [root_of(hashes[i * 256 : (i + 1) * 256]) for i in range(whole)]
    return hashes


LEVELS = [level(number) for number in range(3)]


def read(tile: Tile) -> list[bytes]:
    return LEVELS[tile.level][tile.start : tile.stop]


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1_234_067), "tile/0/x001/x234/067"),
        (Tile(0, 0), "tile/0/000"),
        (Tile(1, 0, 17), "tile/1/000.p/17"),
        (Tile(0, 273, 112), "tile/0/273.p/112"),
        (Tile(ENTRIES, 999, 255), "tile/entries/999.p/255"),
        (Tile(7, 0, 1), "tile/7/000.p/1"),
        (Tile(0, 1000), "tile/0/x001/000"),
    ],
)
def test_a_path_names_one_tile_and_a_tile_has_one_path(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert Tile.parse(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/00/000", "tile/64/000", "tile/8/000.p/1", "tile/0/0", "tile/0/x000/000",
        "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/001/067",
        "tile/0/x001/x067", "tile/0/000/", "tile/-1/000", "tile/0/000.p/1/", "/tile/0/000",
        "tile/0/../000", "tile/0/\u0660\u0660\u0660", "tile/0/" + "x999/" * 6 + "999",
        "tile/0/" + "x001/" * 7 + "000", "tile/data/000", "",
    ],
)  # fmt: skip
def test_no_other_path_is_read(path: str) -> None:
    with pytest.raises(InvalidProof):
        Tile.parse(path)


@given(st.text(max_size=60))
def test_whatever_is_read_as_a_path_is_written_the_same(text: str) -> None:
    for path in (text, f"tile/0/{text}", f"tile/entries/{text}"):
        with contextlib.suppress(InvalidProof):
            assert Tile.parse(path).path == path


def test_a_log_of_70000_has_the_tiles_of_the_specification() -> None:
    counts: dict[int, list[int]] = {}
    for tile in tiles_of(SIZE):
        counts.setdefault(tile.level, []).append(tile.width)
    assert counts[0] == [256] * 273 + [112]
    assert counts[1] == [256, 17]
    assert counts[2] == [1]
    assert counts[ENTRIES] == counts[0]
    assert sorted(counts) == [ENTRIES, 0, 1, 2]


def test_a_log_of_256_has_one_whole_tile_and_one_of_width_1() -> None:
    assert [t.path for t in tiles_of(256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    assert list(tiles_of(0)) == []


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_536, 65_537, SIZE])
def test_the_root_of_any_size_is_folded_from_tiles(size: int) -> None:
    assert subtrees(size, read)(0, size) == root_of(LEAVES[:size])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_proofs_from_tiles_stand_and_another_implementation_accepts_them(
    data: st.DataObject,
) -> None:
    size = data.draw(st.integers(1, SIZE))
    index = data.draw(st.integers(0, size - 1))
    path = proofs.inclusion_path(subtrees(size, read), size, index)
    root = root_of(LEAVES[:size])
    proofs.verify_inclusion(LEAVES[index], index, size, path, root)
    rule, _ = _inclusion_path_layout(index + 1, size)
    theirs = InclusionProof("sha256", True, size, index + 1, rule, [LEAVES[index], *path])
    theirs.verify(LEAVES[index], root, index=index + 1, size=size)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, SIZE), st.integers(0, SIZE))
def test_consistency_from_tiles_stands(one: int, other: int) -> None:
    old, size = sorted((one, other))
    path = proofs.consistency_path(subtrees(size, read), old, size)
    proofs.verify_consistency(old, size, path, root_of(LEAVES[:old]), root_of(LEAVES[:size]))


def test_another_implementation_finds_the_same_roots_and_heads_consistent() -> None:
    tree = InmemoryTree(algorithm="sha256")
    theirs = [b""]
    for entry in ENTRY[:80]:
        tree.append_entry(entry)
        theirs.append(tree.get_root())
    ours = [root_of(LEAVES[:n]) for n in range(81)]
    assert theirs[1:] == ours[1:]
    for size in (1, 2, 33, 64, 79, 80):
        for old in range(1, size + 1):
            # Its proofs have another form, so each side judges its own over the other's roots.
            proof = proofs.consistency_proof(LEAVES[:size], old)
            proofs.verify_consistency(old, size, proof, theirs[old], theirs[size])
            judged = tree.prove_consistency(old, size)
            judged.verify(ours[old], ours[size], prior_size=old, later_size=size)


def test_a_bundle_gives_back_its_entries_and_nothing_else_is_one() -> None:
    entries = [b"", b"a", b"b" * 16_384]
    raw, tile = bundle(entries), Tile(ENTRIES, 0, 3)
    assert entries_of(tile, raw) == entries
    assert raw[:5] == b"\0\0\0\1a"
    for wrong in (raw[:-1], raw + b"\0", raw + b"\0\0", b"", raw[2:]):
        with pytest.raises(InvalidProof):
            entries_of(tile, wrong)
    with pytest.raises(InvalidProof):
        hashes_of(Tile(0, 0, 2), bytes(63))


@given(st.binary(max_size=600), st.integers(1, 256))
def test_any_bytes_are_a_bundle_of_just_that_width_or_are_refused(raw: bytes, width: int) -> None:
    with contextlib.suppress(InvalidProof):
        assert bundle(entries_of(Tile(ENTRIES, 0, width), raw)) == raw


def test_a_tile_beyond_the_log_does_not_exist() -> None:
    with pytest.raises(InvalidProof):
        tile_at(0, 1, 256)
    with pytest.raises(InvalidProof):
        tile_at(1, 0, 255)
