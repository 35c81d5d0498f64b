"""The rollback target: a pure function of the records, the same everywhere, always fit."""

from __future__ import annotations

from dataclasses import replace

from federation import manifest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from hanse.core.catalog.lineage import ancestors, rollback_target
from hanse.core.catalog.manifest import Parent
from hanse.core.catalog.view import ModelView, Release
from hanse.core.ids import Digest, EventId, Origin, segment

COUNT = 8
DIGESTS = [Digest.of(str(i).encode()) for i in range(COUNT)]


def release(
    i: int,
    parents: tuple[int, ...] = (),
    *,
    proven: bool = True,
    held: bool = False,
    killed: bool = False,
    quarantined: bool = False,
    final: bool = True,
    by: str = "eu",
) -> Release:
    """Parents may name anything, also descendants: a view must survive what records claim."""
    made = manifest(f"{i}.0")
    made = replace(made, parents=tuple(Parent(DIGESTS[p], "replaces") for p in parents))
    return Release(
        DIGESTS[i],
        made.version,
        i,
        made,
        1,
        EventId(bytes(32)),
        "eu",
        ("eu",) if proven else (),
        ("us",) if held else (),
        killed,
        quarantined,
        final=final,
        logs=(Origin.parse(f"acme/{by}/{'a' * 32}/i1"),),
        proven_final=("eu",) if proven and final else (),
    )


def view(*releases: Release, floor: int = 0) -> ModelView:
    return ModelView(segment("ocr"), floor, releases, (), (), ())


flags = st.booleans()
lineages = st.lists(
    st.tuples(
        st.lists(st.integers(0, COUNT - 1), max_size=3, unique=True), flags, flags, flags, flags
    ),
    min_size=COUNT,
    max_size=COUNT,
)


@settings(deadline=None)
@given(lineages, st.integers(0, COUNT - 1), st.integers(0, COUNT), st.permutations(range(COUNT)))
def test_the_target_is_always_fit_and_the_same_for_everybody(
    lines: list[tuple[list[int], bool, bool, bool, bool]], bad: int, floor: int, order: list[int]
) -> None:
    releases = [
        release(i, tuple(p), proven=a, held=b and c, killed=c and d, quarantined=b and d)
        for i, (p, a, b, c, d) in enumerate(lines)
    ]
    target = rollback_target(view(*releases, floor=floor), DIGESTS[bad], "eu")
    event("found" if target else "none")
    shuffled = view(*(releases[i] for i in order), floor=floor)
    assert target == rollback_target(shuffled, DIGESTS[bad], "eu")
    if target is not None:
        assert target.digest != DIGESTS[bad]
        assert target.proven
        assert not target.killed
        assert not target.quarantined
        assert not target.held
        assert target.counter >= floor
        assert target in list(ancestors(shuffled, DIGESTS[bad]))


def test_the_nearest_fit_ancestor_is_the_target() -> None:
    chain = view(release(0), release(1, (0,)), release(2, (1,)), release(3, (2,)))
    assert rollback_target(chain, DIGESTS[3], "eu") == chain.releases[2]


def test_what_is_unproven_held_killed_or_quarantined_is_passed_over() -> None:
    for barred in ({"proven": False}, {"held": True}, {"killed": True}, {"quarantined": True}):
        chain = view(release(0), release(1, (0,), **barred), release(2, (1,)))
        target = rollback_target(chain, DIGESTS[2], "eu")
        assert target is not None
        assert target.digest == DIGESTS[0], barred


def test_a_region_falls_back_to_its_own_word_or_to_what_is_final() -> None:
    """A region that is cut off still has its own records; others must not rely on them yet."""
    own = release(1, (0,), final=False)
    chain = view(release(0), own, release(2, (1,)))
    assert rollback_target(chain, DIGESTS[2], "eu") == own
    assert rollback_target(chain, DIGESTS[2], "us") == chain.releases[0]
    recorded_elsewhere = view(release(0), release(1, (0,), final=False, by="ap"), release(2, (1,)))
    assert rollback_target(recorded_elsewhere, DIGESTS[2], "eu") == chain.releases[0]


def test_nothing_below_the_floor_is_a_target() -> None:
    chain = view(release(0), release(1, (0,)), floor=1)
    assert rollback_target(chain, DIGESTS[1], "eu") is None


def test_forks_are_searched_breadth_first() -> None:
    """3 descends from 1 and 2, which descend from 0; 1 and 2 are near, 0 is far."""
    fork = view(release(0), release(1, (0,), proven=False), release(2, (0,)), release(3, (1, 2)))
    target = rollback_target(fork, DIGESTS[3], "eu")
    assert target is not None
    assert target.digest == DIGESTS[2]


def test_a_cycle_ends() -> None:
    circle = view(release(0, (1,), proven=False), release(1, (0,), proven=False))
    assert rollback_target(circle, DIGESTS[1], "eu") is None
    assert [r.digest for r in ancestors(circle, DIGESTS[1])] == [DIGESTS[0]]


def test_an_unknown_parent_is_passed_over() -> None:
    orphan = view(release(1, (0, 2)), release(2))
    target = rollback_target(orphan, DIGESTS[1], "eu")
    assert target is not None
    assert target.digest == DIGESTS[2]
