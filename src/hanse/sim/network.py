"""The network between regions: late, lossy, doubled, out of order, cut.

It decides only when a frame arrives, if it does. What travels are the bytes that gRPC would
carry. A healthy link keeps the order of its frames, as a stream does; a bad one need not.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Weather:
    """How the links behave. Latency is lognormal; the rest are chances per frame."""

    latency_s: float = 0.045
    spread: float = 0.4
    loss: float = 0.0
    doubled: float = 0.0
    disorder: float = 0.0


CLEAR = Weather()


class Network:
    """Owned by the world; names are those of regions."""

    def __init__(self, rng: Random, weather: Weather) -> None:
        self.weather = weather
        self._rng = rng
        self._blocked: dict[tuple[str, str], int] = {}
        self._latest_s: dict[tuple[str, str], float] = {}

    def latency_s(self) -> float:
        return self.weather.latency_s * self._rng.lognormvariate(0.0, self.weather.spread)

    def arrivals(self, source: str, target: str, now_s: float) -> list[float]:
        """When a frame sent now arrives: not at all, once or twice."""
        weather, rng = self.weather, self._rng
        if not self.reaches(source, target) or rng.random() < weather.loss:
            return []
        copies = 2 if rng.random() < weather.doubled else 1
        return [self._arrival_s(source, target, now_s) for _ in range(copies)]

    def _arrival_s(self, source: str, target: str, now_s: float) -> float:
        arrival_s = now_s + self.latency_s()
        if self._rng.random() < self.weather.disorder:
            return arrival_s
        arrival_s = max(arrival_s, self._latest_s.get((source, target), 0.0))
        self._latest_s[source, target] = arrival_s
        return arrival_s

    def block(self, source: str, target: str) -> None:
        """Frames from `source` to `target` are lost; cuts may overlap, so they are counted."""
        self._blocked[source, target] = self._blocked.get((source, target), 0) + 1

    def unblock(self, source: str, target: str) -> None:
        self._blocked[source, target] -= 1

    def reaches(self, source: str, target: str) -> bool:
        return not self._blocked.get((source, target))

    def joined(self, a: str, b: str) -> bool:
        """Whether a conversation is possible: both directions carry."""
        return self.reaches(a, b) and self.reaches(b, a)
