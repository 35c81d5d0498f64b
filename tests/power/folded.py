"""The store that folds, on a disk whose power fails: a blob is whole or folded, never neither."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from random import Random
from typing import Any

from hanse.core.errors import NotFound
from hanse.core.ids import Digest
from hanse.storage.folded import FoldedBlobs
from power.blobs import Store

BASE = Random(7).randbytes(9000)
NEW = (BASE[:8000] + b"two" * 40, b"three" * 30 + BASE[200:], BASE[:4000] + BASE[5000:] + b"four")


class Folding(Store):
    """As `Store`, and what is alike is folded and unfolded now and then."""

    make = FoldedBlobs
    contents = [BASE, *NEW]  # noqa: RUF012
    changes_max = 120

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.folded = self.unfolded = 0

    def _deeds(self) -> tuple[Callable[[Any, Digest, bytes], None], ...]:
        return (self._put, self._put, self._fold, self._fold, self._unfold, self._delete)

    def _fold(self, store: FoldedBlobs, digest: Digest, _: bytes) -> None:
        with contextlib.suppress(NotFound):
            other = Digest.of(self._rng.choice((BASE, BASE, *NEW)))
            self.folded += store.fold(digest, other) > 0

    def _unfold(self, store: FoldedBlobs, digest: Digest, _: bytes) -> None:
        if store.leans_on(digest):
            store.unfold(digest)
            self.unfolded += 1
