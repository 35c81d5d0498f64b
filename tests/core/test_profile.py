"""The signed profile of a release: bins that everybody counts into alike."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hanse.core.catalog.manifest import Manifest, parse_manifest
from hanse.core.catalog.profile import Series, references
from hanse.core.errors import InvalidSpec
from hanse.sim.story import manifest

OUTPUT = Series("y", "output", None, (-1.5, 0, 2.25), (120, 5012, 4811, 57))
INPUT = Series("x", "input", 3, (0.5,), (9, 1))


def with_profile(*profile: Series) -> Manifest:
    return replace(manifest("1.0.0"), profile=profile)


def test_a_profile_is_part_of_what_was_signed() -> None:
    signed = with_profile(OUTPUT, INPUT)
    assert parse_manifest(signed.encode()) == signed
    assert signed.encode() != with_profile(OUTPUT).encode()


def test_plans_and_telemetry_call_a_series_by_its_tensor() -> None:
    found = references((OUTPUT, INPUT))
    assert list(found) == ["output:y", "input:x[3]"]
    assert found["output:y"].counts == OUTPUT.counts


@pytest.mark.parametrize(
    "bad",
    [
        replace(OUTPUT, tensor="z"),
        replace(OUTPUT, counts=(1, 2)),
        replace(OUTPUT, counts=(0, 0, 0, 0)),
        replace(OUTPUT, counts=(1, -1, 1, 1)),
        replace(OUTPUT, edges=(0, 0, 1)),
        replace(OUTPUT, edges=(2, 1, 0)),
        replace(OUTPUT, edges=(), counts=(1,)),
        replace(OUTPUT, edges=tuple(range(64)), counts=(1,) * 65),
        replace(OUTPUT, edges=("0", 1, 2)),
        replace(OUTPUT, side="label"),
        replace(INPUT, element=-1),
        replace(INPUT, element=True),
    ],
)
def test_a_series_that_nobody_could_count_is_refused(bad: Series) -> None:
    with pytest.raises(InvalidSpec):
        parse_manifest(with_profile(bad).encode())


def test_a_series_stands_once() -> None:
    with pytest.raises(InvalidSpec, match="twice"):
        parse_manifest(with_profile(OUTPUT, OUTPUT).encode())
