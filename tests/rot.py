"""Models that are alike, and bits that flip."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hanse.core.reading import canonical_json

ELEMENTS = 20_000


def model(seed: int, tuned: tuple[int, ...] = (), layers: int = 6, label: str = "1") -> bytes:
    """Safetensors of `layers` tensors of 80 kB; some differ a little from those of the seed."""
    rng = np.random.default_rng(seed)
    tensors = [rng.standard_normal(ELEMENTS).astype("<f4") for _ in range(layers)]
    for number in tuned:
        noise = np.random.default_rng(1000 + number).standard_normal(ELEMENTS)
        tensors[number] += (1e-4 * noise).astype("<f4")
    header: dict[str, object] = {"__metadata__": {"version": label}}
    for n in range(layers):
        offsets = [n * 4 * ELEMENTS, (n + 1) * 4 * ELEMENTS]
        header[f"layer{n}"] = {"dtype": "F32", "shape": [ELEMENTS], "data_offsets": offsets}
    head = canonical_json(header)
    return len(head).to_bytes(8, "little") + head + b"".join(t.tobytes() for t in tensors)


def tuned_pair() -> tuple[bytes, bytes]:
    return model(1), model(1, (2, 4), label="2")


def flip(path: Path, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    bit %= len(raw) * 8
    raw[bit // 8] ^= 1 << bit % 8
    path.chmod(0o600)
    path.write_bytes(raw)
