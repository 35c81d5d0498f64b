"""Virtual time on one seed: a heap of (time, tie-break, deed), and a trace of what happened.

Deeds of one moment happen in an order that the seed chooses. Each deed that matters leaves a
record, so two runs of one seed can be compared by the hash of their traces.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from random import Random


class Timeline:
    """Owns time, and the randomness of whatever happens in it."""

    def __init__(self, seed: int) -> None:
        self.seed, self.now_s = seed, 0.0
        self.rng = Random(f"world/{seed}")  # noqa: S311  # a simulation repeats itself on purpose
        self._heap: list[tuple[float, float, int, Callable[[], None]]] = []
        self._deeds = 0
        self._trace = hashlib.sha256()

    def after(self, delay_s: float, deed: Callable[[], None]) -> None:
        self._deeds += 1
        heapq.heappush(self._heap, (self.now_s + delay_s, self.rng.random(), self._deeds, deed))

    def run_until(self, end_s: float) -> None:
        while self._heap and self._heap[0][0] <= end_s:
            self.now_s, _, _, deed = heapq.heappop(self._heap)
            deed()
        self.now_s = end_s

    def record(self, kind: str, who: str, detail: bytes = b"") -> None:
        digest = hashlib.sha256(detail).hexdigest()[:16]
        self._trace.update(f"{self.now_s!r} {kind} {who} {digest}\n".encode())

    @property
    def trace_hash(self) -> str:
        return self._trace.hexdigest()
