"""A payload gives exactly the part or an error; the smallest way is taken."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
import zstandard
from fuzz.mutation import drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import InvalidProof
from hanse.core.ids import Digest
from hanse.parts import numbers
from hanse.parts.payload import Base, Method, decode, encode
from hanse.parts.recipe import Part, Tensor
from hanse.parts.tensors import WIDTHS


def part_of(data: bytes, dtype: str = "", lead: int = 0) -> Part:
    tensor = Tensor(lead, dtype, (), "t", 0) if dtype else None
    return Part(Digest.of(data), len(data), tensor)


def round_trip(part: Part, data: bytes, base: Base | None) -> Method:
    payload = encode(part, data, base)
    assert payload == encode(part, data, base)
    assert len(payload) <= len(data) + 2
    assert decode(part, payload, lambda digest: base) == data
    return Method(payload[1])


@given(
    dtype=st.sampled_from(sorted(WIDTHS)), old=st.binary(max_size=300), new=st.binary(max_size=300),
    times=st.integers(1, 200), leads=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    changed=st.integers(0, 40),
)  # fmt: skip
@settings(max_examples=150, database=None)
def test_any_two_tensors(
    dtype: str, old: bytes, new: bytes, times: int, leads: tuple[int, int], changed: int
) -> None:
    """Of one size, or nearly the same, or not at all alike; with any bits, NaN as well."""
    width = WIDTHS[dtype]
    one = bytes(leads[0]) + (old + bytes(width))[: (len(old) // width + 1) * width] * times
    size = (len(one) - leads[0]) // width * width
    raw = bytearray(one[leads[0] :])
    for at in range(changed):
        raw[at * 7919 % len(raw)] ^= 1 + at
    for elements in (
        bytes(raw),
        (new * 99_999)[:size] or one[leads[0] :],
        (new + bytes(8))[:width],
    ):
        two = b"header123"[: leads[1]] + elements
        base = Base(part_of(one, dtype, leads[0]), one)
        round_trip(part_of(two, dtype, leads[1]), two, base)
        round_trip(part_of(two, dtype, leads[1]), two, None)
        round_trip(part_of(two), two, base)


def tuned(share: float) -> tuple[Part, bytes, Base]:
    rng = np.random.default_rng(1)
    old = rng.standard_normal(20_000).astype("f4")
    new = old + np.where(rng.random(20_000) < share, 1e-4, 0).astype("f4")
    one, two = b"lead" + old.tobytes(), b"head" + new.tobytes()
    return part_of(two, "F32", 4), two, Base(part_of(one, "F32", 4), one)


@pytest.mark.parametrize(
    ("method", "case"),
    [
        (Method.RAW, lambda: (part_of(b"x"), b"x", None)),
        (Method.PACKED, lambda: (part_of(b"x" * 999), b"x" * 999, None)),
        (Method.PLANES, lambda: (*tuned(1)[:2], None)),
        (Method.DENSE, lambda: tuned(1)),
        (Method.SPARSE, lambda: tuned(0.01)),
        (
            Method.AGAINST,
            lambda: (
                part_of(a := Random(1).randbytes(999)),
                a,
                Base(part_of(b := a[:500] + b"!" + a[500:]), b),
            ),
        ),
    ],
)
def test_the_smallest_way_is_taken_and_no_edit_of_it_gives_other_bytes(
    method: Method, case: Callable[[], tuple[Part, bytes, Base | None]]
) -> None:
    part, data, base = case()
    assert round_trip(part, data, base) is method
    payload, rng = encode(part, data, base), Random(method)
    edits = [drawn((payload,), rng) for _ in range(300)]
    edits += [payload[:end] for end in range(min(len(payload), 60))]
    edits += [bytes([1, other]) + payload[2:] for other in range(256)]
    for edited in edits:
        try:
            assert decode(part, edited, lambda digest: base) == data
        except InvalidProof:
            continue


def test_another_lead_over_the_same_elements() -> None:
    rows = bytes(4000)
    base = Base(part_of(b"long lead" + rows, "F32", 9), b"long lead" + rows)
    for lead in (b"", b"x", b"long Lead", b"longer lead"):
        round_trip(part_of(lead + rows, "F32", len(lead)), lead + rows, base)


def test_a_frame_that_claims_much_is_refused_before_memory_is_taken() -> None:
    part = part_of(bytes(64))
    bomb = zstandard.ZstdCompressor().compress(bytes(65))
    claim = b"\x28\xb5\x2f\xfd\xe0" + (2**50).to_bytes(8, "little")  # 1 PiB in one segment
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64))
    for frame in (bomb, claim, unsized, b""):
        with pytest.raises(InvalidProof):
            decode(part, b"\x01\x01" + frame)


def test_more_differences_than_elements_are_refused() -> None:
    part, data, base = tuned(0.01)
    payload = encode(part, data, base)
    with pytest.raises(InvalidProof, match="more differences"):
        decode(part, payload[:34] + b"\xff\xff\xff\xff" + payload[38:], lambda digest: base)


def test_a_base_that_is_not_here_is_said_so() -> None:
    part, data, base = tuned(1)
    with pytest.raises(InvalidProof, match="not here"):
        decode(part, encode(part, data, base))


def test_a_base_of_other_bytes_gives_no_wrong_part() -> None:
    part, data, base = tuned(1)
    other = Base(base.part, bytes(len(base.data)))
    with pytest.raises(InvalidProof):
        decode(part, encode(part, data, base), lambda digest: other)


@given(st.lists(st.integers(0, 100_000), unique=True).map(sorted))
@settings(max_examples=100, database=None)
def test_gaps_tell_the_positions(found: list[int]) -> None:
    positions = np.array(found, np.int64)
    assert numbers.positions(numbers.gaps(positions)).tolist() == found
