"""A token bucket: what may be spent at once, and how fast that comes back.

It reads no clock: whoever spends says when. Times are the local monotonic clock in seconds.
"""

from __future__ import annotations


class Budget:
    """`burst` at first, growing by `per_s` up to `burst` again."""

    __slots__ = ("_burst", "_left", "_per_s", "_then_s")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self._per_s, self._burst = per_s, float(burst)
        self._left, self._then_s = float(burst), now_s

    def left(self, now_s: float) -> float:
        grown = self._left + max(0.0, now_s - self._then_s) * self._per_s
        self._left, self._then_s = min(self._burst, grown), now_s
        return self._left

    def spend(self, cost: float, now_s: float) -> None:
        """Spend whether or not it is there: what has been done has been done."""
        self._left = self.left(now_s) - cost

    def take(self, cost: float, now_s: float) -> bool:
        """Spend it if it is there."""
        enough = self.left(now_s) >= cost
        if enough:
            self._left -= cost
        return enough

    def wait_s(self, now_s: float) -> float:
        """Seconds until nothing is owed any more; 0 if nothing is."""
        return max(0.0, -self.left(now_s) / self._per_s)
