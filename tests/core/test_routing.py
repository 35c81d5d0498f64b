"""A unit's bucket is fixed; raising a weight only adds units; shadow and canary are independent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hanse.core.routing import BUCKETS, bucket, shadow_salt, threshold

UNITS = [f"req-{i}" for i in range(10_000)]


@given(st.text(), st.text(), st.integers(0, 10_000), st.integers(0, 10_000))
def test_raising_the_weight_only_adds_units(salt: str, unit: str, a: int, b: int) -> None:
    low, high = sorted((a, b))
    assert not bucket(salt, unit) < threshold(low) or bucket(salt, unit) < threshold(high)


def test_no_weight_takes_nobody_and_full_weight_takes_everybody() -> None:
    assert threshold(0) == 0
    assert threshold(10_000) == BUCKETS
    assert all(0 <= bucket("s", unit) < BUCKETS for unit in UNITS[:100])


def test_the_share_is_the_weight() -> None:
    share = sum(bucket("r-17/12", unit) < threshold(500) for unit in UNITS)
    assert 420 < share < 580  # 500 expected, 4 standard deviations are 87


def test_canary_and_shadow_samples_are_independent() -> None:
    canary = [bucket("r-17", unit) < threshold(2000) for unit in UNITS]
    shadow = [bucket(shadow_salt("r-17"), unit) < threshold(2000) for unit in UNITS]
    both = sum(c and s for c, s in zip(canary, shadow, strict=True))
    assert 320 < both < 480  # 400 expected if independent


def test_salt_and_unit_never_blur() -> None:
    assert bucket("ab", "c") != bucket("a", "bc")
