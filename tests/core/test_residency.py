"""T35: a model file goes only where its release, its region and whoever gives it all let it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hanse.core.catalog.manifest import File, Manifest, Variant
from hanse.core.catalog.residency import may_go, may_lie
from hanse.core.catalog.view import Release
from hanse.core.ids import Digest, EventId, Origin, Segment, Version, member_id, segment
from hanse.core.trust.members import Members, Region

NAMES = tuple(map(Segment, ("eu", "us", "ap")))
SETS = st.sampled_from([("*",), (), ("eu",), ("us",), ("ap",), ("eu", "us"), ("us", "ap")])
TABLES = st.dictionaries(st.sampled_from(NAMES), SETS)
ANY = ("*",)


Table = dict[Segment, tuple[str, ...]]


def members(ceiling: Table, own: Table) -> Members:
    regions = tuple(Region(name, "", residency=own.get(name, ANY)) for name in NAMES)
    return Members(Segment("hansa"), 1, (), 1, "", regions, (), (), residency=ceiling)


def released(residency: tuple[str, ...], *published_in: Segment) -> Release:
    file = File(segment("m.onnx"), Digest.of(b"m"), 1)
    variant = Variant(segment("v"), "onnx", file.name)
    manifest = Manifest(
        Segment("m"), Version("1"), (file,), (variant,), (), (), residency=residency
    )
    logs = tuple(Origin(Segment("hansa"), r, member_id(r.encode()), 1) for r in published_in)
    release = Release(
        Digest.of(b"r"), manifest.version, 1, manifest, 1, EventId(bytes(32)), published_in[0]
    )
    return replace(release, logs=logs)


@given(SETS, TABLES, TABLES, *[st.sampled_from(NAMES)] * 3)
def test_whoever_is_left_out_by_anyone_gets_nothing(
    said: tuple[str, ...],
    ceiling: Table,
    own: Table,
    publisher: Segment,
    source: Segment,
    target: Segment,
) -> None:
    known = members(ceiling, own)
    release = released(said, publisher)

    def lets(rule: tuple[str, ...]) -> bool:
        return "*" in rule or target in rule

    gives = {
        region: region == target or (lets(ceiling.get(region, ANY)) and lets(own.get(region, ANY)))
        for region in NAMES
    }
    assert may_lie(release, target, known) == (lets(said) and gives[publisher])
    assert may_go(release, source, target, known) == (
        lets(said) and gives[publisher] and gives[source]
    )


def test_no_third_region_passes_on_what_the_publishing_one_would_not_give() -> None:
    """eu gives to us alone, us gives to everybody: still nothing of eu's comes to ap."""
    known = members({}, {NAMES[0]: ("us",)})
    eu, us, ap = NAMES
    release = released(ANY, eu)
    assert may_go(release, eu, us, known)
    assert not may_go(release, us, ap, known)
    assert may_go(released(ANY, us), us, ap, known)


def test_a_second_record_of_a_release_is_no_new_limit() -> None:
    eu, us, ap = NAMES
    known = members({us: ()}, {})
    assert may_go(released(ANY, eu, us), eu, ap, known)
    assert not may_go(released(ANY, us), eu, ap, known)
