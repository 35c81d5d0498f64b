"""How the release that answers users has done lately, for people to look at.

Verdicts rest on windows that name their rollout; a region without a rollout has none. So the
counts of the stable arm are kept beside them, per model and release, in coarse buckets of the
last five minutes. Nothing decides on them, and nothing of them is stored or sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hanse.core.ids import Digest
from hanse.core.telemetry import Counts

BUCKET_S = 30.0
BUCKETS = 10
RELEASES_MAX = 8  # a node may claim to run anything; the oldest claims go first


@dataclass(slots=True)
class Recent:
    """One model. Owned by the fleet; times are the local monotonic clock, in seconds."""

    heard_s: dict[Digest, float] = field(default_factory=dict)
    _buckets: dict[tuple[Digest, int], Counts] = field(default_factory=dict)

    def add(self, release: Digest, counts: Counts, now_s: float) -> None:
        key = (release, int(now_s // BUCKET_S))
        held = self._buckets.get(key, Counts())
        self._buckets[key] = held + replace(counts, latency={})
        self.heard_s.pop(release, None)
        self.heard_s[release] = now_s
        while len(self.heard_s) > RELEASES_MAX:
            del self.heard_s[next(iter(self.heard_s))]
        self._prune(now_s)

    def total(self, release: Digest, now_s: float) -> Counts:
        """The counts of `release` over the last `BUCKETS` buckets, without latencies."""
        self._prune(now_s)
        found = (c for (r, _), c in self._buckets.items() if r == release)
        return sum(found, Counts())

    def _prune(self, now_s: float) -> None:
        oldest = int(now_s // BUCKET_S) - BUCKETS
        self._buckets = {
            key: counts
            for key, counts in self._buckets.items()
            if key[1] > oldest and key[0] in self.heard_s
        }
