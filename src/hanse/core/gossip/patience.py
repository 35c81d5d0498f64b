"""Which peers we listen to: whoever makes us verify much in vain is ignored for a while (L15).

The measure is work, not errors: an honest peer that passes on what somebody forged costs us
little, and one that is ignored for its own lies loses nothing that others do not bring. The
verdict is ours alone and is never passed on, or a liar could have others ignored.
"""

from __future__ import annotations

from hanse.core import limits
from hanse.core.errors import Conflict, NotPermitted, Rejected
from hanse.core.gossip.budget import Budget
from hanse.core.gossip.frames import Announce, Chunk, Frame, TrustFile
from hanse.core.ids import MemberId
from hanse.core.logbook import Stalled

# Seconds of one core, rounded up from measurements on 2 GHz.
_FRAME_S = 0.0005  # one signature, and what stands around it
_EVENT_S = 0.00003  # hashed, read and judged
_TRUST_FILE_S = 0.005


def cost_s(frame: Frame) -> float:
    """What verifying this frame costs us."""
    if isinstance(frame, Announce | Chunk):
        return _FRAME_S + _EVENT_S * len(frame.events)
    return _TRUST_FILE_S if isinstance(frame, TrustFile) else _FRAME_S


def is_in_vain(error: Rejected) -> bool:
    """Whether work was done before this refusal, and for nothing.

    A gap and an author that we do not know are seen before anything is verified; one whom we
    cannot judge yet has done nothing wrong, and neither has who passes it on.
    """
    return not isinstance(error, Conflict | NotPermitted | Stalled)


class Patience:
    """Owned by `gossip.sync`; times are the local monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._work: dict[MemberId, Budget] = {}
        self._ignored_until_s: dict[MemberId, float] = {}

    def ignores(self, peer: MemberId, now_s: float) -> bool:
        until_s = self._ignored_until_s.get(peer)
        if until_s is not None and now_s >= until_s:
            del self._ignored_until_s[peer]
            del self._work[peer]
        return peer in self._ignored_until_s

    def spend(self, peer: MemberId, work_s: float, now_s: float) -> bool:
        """Work in vain for this peer; False if from now on it is ignored."""
        budget = self._work.get(peer)
        if budget is None:
            share, burst_s = limits.FAILED_WORK_SHARE, limits.FAILED_WORK_BURST_S
            budget = self._work[peer] = Budget(share, burst_s, now_s)
        if budget.take(work_s, now_s):
            return True
        self._ignored_until_s[peer] = now_s + limits.PEER_IGNORED_S
        return False
