"""A million mutated signatures, judged by our verifier and by libsodium."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

from fuzz.signatures import check

MUTATIONS, A_ROUND = 1_000_000, 10_000


def rounds(seed: int) -> Iterator[Mapping[str, int]]:
    rng = Random(seed)  # a failure repeats by its seed
    for _ in range(MUTATIONS // A_ROUND):
        yield {"signatures": A_ROUND, "that stood": sum(check(rng) for _ in range(A_ROUND))}
