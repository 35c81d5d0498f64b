"""Where to cut bytes of unknown form so that equal content is cut alike, wherever it stands.

A gear hash over the last 32 bytes: h(i) = sum of G[byte(i - k)] << k, here for a whole block at
once by doubling the window five times. A chunk ends behind a byte with a small hash: one in two
means below the mean size, four in one above it (FastCDC's normalisation, sizes lie close together).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

CHUNK_BYTES_MEAN = 64 * 1024
CHUNKS_MAX = 16_384
_WINDOW = 32
_BLOCK_BYTES = 1024 * 1024
_GEAR = np.frombuffer(
    b"".join(hashlib.sha256(b"hanse-gear/v1\n%d" % byte).digest()[:4] for byte in range(256)), "<u4"
)


def cuts(data: memoryview) -> Iterator[int]:
    """Ends of the chunks in order, the last one being the end of the data. Mean 64 KiB, from a
    quarter to twice that; for more than 1 GiB the mean doubles as often as it must."""
    mean, start = CHUNK_BYTES_MEAN, 0
    while len(data) > mean * CHUNKS_MAX:
        mean *= 2
    for end, rare in _candidates(data, mean):
        while end - start > 2 * mean:
            start += 2 * mean
            yield start
        if end - start >= (mean // 4 if rare else mean):
            start = end
            yield end
    while start < len(data):
        start = min(start + 2 * mean, len(data))
        yield start


def _candidates(data: memoryview, mean: int) -> Iterator[tuple[int, bool]]:
    """Possible ends, four in `mean` bytes, and whether each is one of those of two means."""
    often, rare = (np.uint32(2**32 // mean * times) for times in (4, 0.5))
    for at in range(0, len(data), _BLOCK_BYTES):
        before = max(0, at - _WINDOW + 1)
        hashes = _GEAR[np.frombuffer(data[before : at + _BLOCK_BYTES], np.uint8)]
        for shift in (1, 2, 4, 8, 16):
            hashes[shift:] += hashes[:-shift] << np.uint32(shift)
        ends = np.flatnonzero(hashes[at - before :] < often)
        yield from zip(
            (ends + at + 1).tolist(), (hashes[ends + at - before] < rare).tolist(), strict=True
        )
