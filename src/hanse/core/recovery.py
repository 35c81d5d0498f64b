"""May this daemon write, and does it go on in the log that it has?

A disk may be older than it looks: restored from a backup, cloned, robbed of its last pages. A
daemon that wrote on from there would sign a second event for a number that it has used before,
and nothing tells such an accident from treason. So, at every start, it asks before it writes:

    recovering  it authors nothing, and serves, answers and keeps its nodes as they are. Peers
                say in `Hello` how much of its logs they hold; what is longer is pulled back
    writing     enough peers have answered, the others had `STRAGGLERS_S` to do so too, and we
                hold all that was claimed; or too few did until the deadline, and then the next
                event opens a new incarnation
    rivalled    another process speaks with our key. Both stop; whoever is left alone goes on
                in a new incarnation, and so does the one that an operator picks

A witness says nothing before it has written undisturbed for `RIVAL_QUIET_S`: another self, or
the one that it was before its disk was put back, may have cosigned what it does not remember,
and by then a living one was noticed and a former one's cosignatures have come back from peers.

A peer that claims what it cannot show has not answered. What peers merely say can keep us from
writing only if a majority says it; our own signature on what we did not write is enough alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from hanse.core import limits
from hanse.core.ids import MemberId


class Phase(StrEnum):
    RECOVERING = "recovering"
    WRITING = "writing"
    RIVALLED = "rivalled"


@dataclass(slots=True)
class Recovery:
    """Owned by the node; times are the local monotonic clock, in seconds."""

    phase: Phase = Phase.WRITING
    needed: int = 0
    """Peers that have to answer: a majority of all other members."""
    others: int = 0
    """How many there are. One of them alone may hold what we wrote last."""
    answered: int = 0
    asking: bool = False
    because: str = ""
    """Why the log that we have may not go on; empty if nothing speaks against it."""
    vouches: bool = True
    """Whether our word as a witness can be relied on: nobody else gives it, or gave it."""
    _writing_s: float | None = None
    _deadline_s: float = 0.0
    _enough_s: float = inf
    _rival_until_s: float = -inf
    _refused_s: dict[MemberId, float] = field(default_factory=dict)
    _told_s: dict[MemberId, tuple[bytes, float]] = field(default_factory=dict)
    _overruled: set[bytes] = field(default_factory=set)

    @property
    def reopen(self) -> str:
        """Why the next event opens a new incarnation; empty if it continues the log."""
        if self.because or not self.asking:
            return self.because
        return f"only {self.answered} of {self.needed} peers said how much of the log they hold"

    @property
    def extends(self) -> bool:
        """Whether our log grows by our own hand only: then nobody else may extend it."""
        return self.phase is Phase.WRITING and not self.reopen

    @property
    def why(self) -> str:
        """What keeps us from writing, or from going on in our log; empty if nothing does."""
        if self.phase is Phase.RIVALLED:
            return "another process speaks with this daemon's key"
        if self.phase is Phase.RECOVERING:
            said = f"{self.answered} of {self.needed} peers"
            return f"it asks how much of its log others hold; {said} have answered"
        return self.reopen

    @property
    def fix(self) -> str:
        if self.phase is Phase.RIVALLED:
            return "stop the other daemon, or pick this one with hanse daemon claim"
        if self.phase is Phase.RECOVERING:
            return "wait until peers are reached; hanse daemon claim goes on without them"
        return ""

    def ask(self, others: int, until_s: float) -> None:
        """Begin. A federation of one has nobody to ask."""
        if others:
            self.others, self.needed = others, others // 2 + 1
            self.asking, self._deadline_s = True, until_s
            self.phase, self.vouches = Phase.RECOVERING, False

    def review(self, answered: int, now_s: float) -> None:
        """Once a step: `answered` peers claim nothing that we do not hold."""
        self.answered = answered
        self._enough_s = min(self._enough_s, now_s) if answered >= self.needed else inf
        waited = now_s >= min(self._enough_s + limits.STRAGGLERS_S, self._deadline_s)
        if answered >= self.others or (answered >= self.needed and waited):
            self.asking = False
        told = [p for p, (_, at_s) in self._told_s.items() if now_s - at_s < limits.RIVAL_QUIET_S]
        if told and len(told) >= max(1, self.needed):
            self._rivalled(now_s)
        refused = any(now_s - at_s < limits.RIVAL_QUIET_S for at_s in self._refused_s.values())
        if self.asking and refused:
            self._deadline_s = max(self._deadline_s, now_s + limits.RIVAL_QUIET_S)
        if now_s < self._rival_until_s or (self.asking and refused):
            self.phase = Phase.RIVALLED
        elif self.asking and now_s < self._deadline_s:
            self.phase = Phase.RECOVERING
        else:
            self.phase = Phase.WRITING
        if self.phase is not Phase.WRITING:
            self.vouches, self._writing_s = False, None
        elif not self.vouches:
            self._writing_s = now_s if self._writing_s is None else self._writing_s
            self.vouches = now_s - self._writing_s >= limits.RIVAL_QUIET_S

    def opened(self) -> None:
        """A new incarnation has begun: no former self can have written in it."""
        self.asking, self.because = False, ""

    # -- who else speaks with our key ------------------------------------------------

    def usurped(self, now_s: float) -> None:
        """Our own signature stands on what we did not write."""
        self._rivalled(now_s)

    def told(self, peer: MemberId, nonce: bytes, now_s: float) -> None:
        """A peer says that a process with this boot nonce dials it with our key."""
        if nonce not in self._overruled:
            self._told_s[peer] = (nonce, now_s)

    def refused(self, peer: MemberId, now_s: float) -> None:
        """A peer refuses our link, because it has one with us that we do not have."""
        self._refused_s[peer] = now_s

    def linked(self, peer: MemberId) -> None:
        self._refused_s.pop(peer, None)

    def claim(self) -> None:
        """An operator picks this daemon: it goes on at once, in a new incarnation."""
        self._overruled |= {nonce for nonce, _ in self._told_s.values()}
        self._told_s.clear()
        self._refused_s.clear()
        self._rival_until_s = -inf
        self.asking, self.because = False, "an operator picked this daemon"
        self.phase, self.vouches, self._writing_s = Phase.WRITING, False, None

    def _rivalled(self, now_s: float) -> None:
        self._rival_until_s = now_s + limits.RIVAL_QUIET_S
        self.because = self.because or "another process wrote with this daemon's key"
