"""Which denials of files are worth an entry in the log, where auditors find them.

A peer may ask a thousand times a second, and an entry goes to every daemon, for ever. So a peer's
denial of one release is told once a day, and only so many of all together; the rest is counted.
Times are the local monotonic clock, in seconds.
"""

from __future__ import annotations

from typing import Final

from hanse.core.gossip.budget import Budget
from hanse.core.ids import Digest

DAY_S: Final = 86_400.0
A_DAY: Final = 100


class Denials:
    def __init__(self, now_s: float) -> None:
        self._told: dict[tuple[str, Digest], float] = {}  # the newest last
        self._budget = Budget(A_DAY / DAY_S, A_DAY, now_s)

    def is_news(self, peer: str, release: Digest, now_s: float) -> bool:
        """Whether to tell of this one; who asks is taken to tell it."""
        last_s = self._told.get((peer, release))
        if last_s is not None and now_s - last_s < DAY_S:
            return False
        if not self._budget.take(1, now_s):
            return False
        self._told.pop((peer, release), None)
        self._told[peer, release] = now_s
        while len(self._told) > 2 * A_DAY:  # no more can be of one day
            del self._told[next(iter(self._told))]
        return True
