"""Is our clock right? Judged by what our peers say, and only to stop ourselves (T10).

No time enters what is agreed on, and no clock is ever set by another one. But a daemon whose
clock runs ahead would stamp what it writes with times that have not come, and let holds and
certificates lapse too early. So one that is far ahead of the median of its peers makes no
forward move until somebody has set it right. Going back needs no clock.

Of two medians the higher one counts, so that no single clock that is behind stops a federation.
"""

from __future__ import annotations

from statistics import median_high

from hanse.core import limits
from hanse.core.ids import MemberId


class Clocks:
    """Owned by `bulletin`. Wall times are POSIX milliseconds; `now_s` is our monotonic clock."""

    def __init__(self) -> None:
        self._peers: dict[MemberId, tuple[int, float]] = {}

    def heard(self, peer: MemberId, wall_ms: int, now_s: float) -> None:
        """A peer has just told us its wall time."""
        self._peers[peer] = (wall_ms, now_s)

    def ahead_s(self, wall_ms: int, now_s: float) -> float | None:
        """How far our wall clock is ahead of the median of our peers; None if none was heard."""
        old_s = now_s - limits.CLOCK_HEARD_S
        self._peers = {peer: said for peer, said in self._peers.items() if said[1] >= old_s}
        if not self._peers:
            return None
        theirs = median_high(at_ms + (now_s - at_s) * 1000 for at_ms, at_s in self._peers.values())
        return (wall_ms - theirs) / 1000
