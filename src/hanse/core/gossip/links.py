"""One link to one peer: what it has told us, what we have told it, what we asked of it.

All of it is the peer's claim and only steers what we ask next; what counts is checked
against signatures when the events arrive. A link forgets everything when it closes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hanse.core import limits
from hanse.core.gossip.frames import LogHead, Pull
from hanse.core.gossip.reconcile import salt
from hanse.core.ids import MemberId, Origin
from hanse.core.trust.members import Members


@dataclass(slots=True)
class Link:
    """Owned by `gossip.sync`; times are the local monotonic clock, in seconds."""

    peer: MemberId
    spki: bytes
    nonce: bytes
    opened_at_s: float
    heard_s: float = 0.0
    peer_nonce: bytes = b""
    peer_boot: bytes = b""  # of its process: two at once are two processes
    yours: tuple[LogHead, ...] = ()  # what it holds of our own logs
    proven: bool = False
    theirs: dict[Origin, int] = field(default_factory=dict)
    told: dict[Origin, int] = field(default_factory=dict)
    pulls: dict[Origin, float] = field(default_factory=dict)
    pinged_s: float = -1.0
    answered: int = 0  # ranges and heads told in answer since the last round

    def learn(self, origin: Origin, size: int) -> None:
        self.theirs[origin] = max(size, self.theirs.get(origin, 0))

    def knows(self, origin: Origin) -> int:
        """How far this peer has, or has been told of, that log."""
        return max(self.theirs.get(origin, 0), self.told.get(origin, 0))

    @property
    def busy(self) -> bool:
        return len(self.pulls) >= limits.PULLS_IN_FLIGHT_MAX

    @property
    def salt(self) -> bytes:
        return salt(self.nonce, self.peer_nonce)

    def pull(self, origin: Origin, start: int, now_s: float) -> Pull:
        """Ask for a suffix, and remember until when it should be here."""
        self.pulls[origin] = now_s + limits.PULL_TIMEOUT_S
        return Pull(origin, start)

    def expire(self, now_s: float) -> list[Origin]:
        """Drop the pulls that were not answered in time, so that another peer is asked."""
        late = [origin for origin, deadline in self.pulls.items() if deadline <= now_s]
        for origin in late:
            del self.pulls[origin]
            self.theirs.pop(origin, None)
        return late


def heard_by_region(links: Iterable[Link], members: Members, now_s: float) -> dict[str, float]:
    """Per region, seconds since one of its daemons last spoke to us on one of these links."""
    heard: dict[str, float] = {}
    for link in links:
        member = members.member(link.peer)
        if member is not None:
            ago = now_s - link.heard_s
            heard[member.region] = min(ago, heard.get(member.region, ago))
    return heard
