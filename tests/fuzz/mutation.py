"""Good bytes made bad: a few edits, each where a reader written in Python may be too kind."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import strategies as st

from fuzz.samples import TRAPS

Edit = tuple[int, int, int, bytes]
"""What to do, two places, and bytes to do it with."""

edits = st.lists(
    st.tuples(
        st.integers(0, 8),
        st.integers(0, 2**16),
        st.integers(0, 2**16),
        st.sampled_from(TRAPS) | st.binary(max_size=8),
    ),
    max_size=5,
)


def mutated(seeds: Sequence[bytes], which: int, what: Sequence[Edit]) -> bytes:
    raw = seeds[which % len(seeds)]
    for kind, first, second, more in what:
        raw = _edited(raw, seeds[second % len(seeds)], kind, first, second, more)
    return raw


def _edited(raw: bytes, other: bytes, kind: int, first: int, second: int, more: bytes) -> bytes:
    start, stop = sorted((first % (len(raw) + 1), second % (len(raw) + 1)))
    match kind:
        case 0:  # one bit
            flipped = bytes([raw[start] ^ 1 << second % 8]) if start < len(raw) else b""
            return raw[:start] + flipped + raw[start + 1 :]
        case 1:
            return raw[:start] + raw[stop:]
        case 2:
            return raw[:stop] + raw[start:]  # a part twice
        case 3:
            return raw[:start]
        case 4:
            return raw[:start] + more + raw[start + len(more) :]
        case 5:
            return raw[:start] + other[first % (len(other) + 1) :]
        case 6:  # a field of many
            part = raw[start : min(stop, start + 64)]
            return raw[:start] + part * (second % 40) + raw[start:]
        case _:
            return raw[:start] + more + raw[start:]


def drawn(seeds: Sequence[bytes], rng: Random) -> bytes:
    """As `mutated`, without hypothesis, which is slower than most decoders."""
    what = [
        (rng.randrange(9), rng.randrange(2**16), rng.randrange(2**16), rng.choice(TRAPS))
        for _ in range(rng.randrange(1, 6))
    ]
    return mutated(seeds, rng.randrange(len(seeds)), what)
