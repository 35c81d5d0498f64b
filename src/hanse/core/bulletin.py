"""What this daemon says of itself now and then, and what it makes of what others say.

    attest      which state was computed from which logs: every hour; one a day is logged
    health      how many nodes, what time, what is wrong: every ten minutes
    evidence    what was measured in the rollouts under way (see `testimony`): every half minute

The first two go to the daemons at the other ends of our links and no further: what they cost does
not grow with the federation, and whoever differs has several such peers, who wait and say so. What
they say may stop this daemon's own forward moves (`barriers`); it never undoes any. Evidence is
passed on to everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

from hanse.core import limits, testimony
from hanse.core.agreement import Agreement, Attest
from hanse.core.clocks import Clocks
from hanse.core.counters import Counters
from hanse.core.effects import Log
from hanse.core.errors import NotPermitted
from hanse.core.events import StateAttest
from hanse.core.fleet import Fleet
from hanse.core.gossip.frames import Status
from hanse.core.gossip.statuses import ATTEST, EVIDENCE, HEALTH, Statuses
from hanse.core.ids import MemberId, Origin
from hanse.core.rollout.stimuli import Cause
from hanse.core.signing import SigningKey
from hanse.core.step import Write
from hanse.core.testimony import Words
from hanse.core.trust.members import Members

_QUIET_S = 5.0  # logs that stood still so long are likely to be everybody's
_OVERDUE_S = 60.0


class Bulletin:
    """Owned by the node. Times are the local monotonic clock, wall times POSIX milliseconds."""

    def __init__(
        self, me: Origin, key: SigningKey, fleet: Fleet, rng: Random, counters: Counters
    ) -> None:
        self.statuses = Statuses(me, key, counters)
        self.agreement = Agreement()
        self.clocks = Clocks()
        self._me, self._fleet, self._rng, self._counters = me, fleet, rng, counters
        self._ours: Attest | None = None
        self._changed_s = 0.0
        self._next_attest_s: float | None = None
        self._next_health_s = 0.0
        self.measured: Callable[[], dict[str, Any]] = dict  # the body of our word of evidence
        self._next_evidence_s = 0.0
        self._told: dict[MemberId, Mapping[str, Mapping[str, tuple[int, ...]]]] = {}
        self._evidence: tuple[float, dict[str, Any]] = (0.0, {})
        self._to_log: Attest | None = None
        self._ahead = False

    def restore(self, stored: Mapping[str, bytes], members: Members) -> None:
        """Take back the latest words; of ours, so that the next one is newer."""
        self.statuses.restore(stored)
        for heard in self.statuses.of(ATTEST, members):
            if heard.status.origin.member != self._me.member:
                self.agreement.heard(heard.status.origin.member, Attest.read(heard.said))
        for heard in self.statuses.of(EVIDENCE, members):
            self._told[heard.status.origin.member] = testimony.read(heard.said)

    def linked(self, peer: MemberId, now_s: float) -> list[Status]:
        """What a new link is told at once; how we are follows soon."""
        self._next_health_s = min(self._next_health_s, now_s + limits.STATUS_S)
        return self.statuses.for_new_link(peer)

    def heard(
        self, status: Status, peer: MemberId, members: Members, now_s: float, now_ms: int
    ) -> bool:
        """Take a word that came over the link to `peer`; whether our other peers should have it.

        Ours may come back too, from before our disk was set back: the next one follows it.
        Raises `Rejected` if it is not its author's, or none that `peer` may pass on.
        """
        author = status.origin.member
        if author not in (peer, self._me.member):
            if status.kind != EVIDENCE:
                raise NotPermitted(f"a word of {author} on the link of another member")
            if members.member(author) is None:
                return False  # a member in the trust that our peer has
        heard = self.statuses.take(status, members, now_s, now_ms)
        if heard is None or author == self._me.member:
            return False
        if status.kind == EVIDENCE:
            self._told[author] = testimony.read(heard.said)
            return True
        if status.kind == ATTEST:
            self.agreement.heard(peer, Attest.read(heard.said))
        elif isinstance(wall_ms := heard.said.get("wall_ms"), int):
            self.clocks.heard(peer, wall_ms, now_s)
        return False

    def words(self, members: Members) -> Words:
        """The other regions' evidence. Of two daemons of a region that with the lower id speaks:
        a region counts once."""
        said: dict[str, Mapping[str, Mapping[str, tuple[int, ...]]]] = {}
        for author in sorted(self._told):
            member = members.member(author)
            if member is not None and member.region != self._me.region:
                said.setdefault(member.region, self._told[author])
        return said

    def computed(self, ours: Attest, now_s: float) -> None:
        """The state after a step, and the logs that it follows from."""
        if ours != self._ours:
            self._ours, self._changed_s = ours, now_s
            self.agreement.reached(ours)

    def speak(self, members: Members, now_s: float, now_ms: int) -> Iterator[Status]:
        """What is due to be said now, to every peer."""
        if now_s >= self._next_health_s:
            self._next_health_s = now_s + limits.HEALTH_S
            yield self.statuses.say(HEALTH, self._health(now_s, now_ms), now_ms)
        if self._ours is not None and self._attest_due(members, now_s):
            self._next_attest_s = now_s + limits.ATTEST_S
            said = self.statuses.say(ATTEST, self._ours.say(), now_ms)
            if said.serial % limits.ATTESTS_A_DAY == 1:
                self._to_log = self._ours
            yield said
        yield from self._measured(now_s, now_ms)

    def _measured(self, now_s: float, now_ms: int) -> Iterator[Status]:
        """Due by the clock, never by what it says; the same again for whoever missed it."""
        if now_s < self._next_evidence_s:
            return
        self._next_evidence_s = now_s + limits.EVIDENCE_S
        (said_s, before), body = self._evidence, self.measured()
        if body.get("rollouts") and (body != before or now_s - said_s >= limits.HEALTH_S):
            self._evidence = (now_s, body)
            yield self.statuses.say(EVIDENCE, body, now_ms)

    def to_log(self, trust_version: int) -> StateAttest | None:
        """The event that keeps a day's first word for auditors. No clock is asked for it."""
        said, self._to_log = self._to_log, None
        return StateAttest(said.heads, said.state, trust_version) if said else None

    def differing(self, members: Members) -> list[MemberId]:
        """Whose state is another one than ours. Who is no member any more does not count."""
        return sorted(m for m in self.agreement.differing if members.member(m) is not None)

    def ahead_s(self, now_s: float, now_ms: int) -> float | None:
        """How far our clock is too far ahead; None if it is not."""
        ahead_s = self.clocks.ahead_s(now_ms, now_s)
        return ahead_s if ahead_s is not None and ahead_s > limits.CLOCK_AHEAD_S else None

    def barriers(self, members: Members, now_s: float, now_ms: int) -> Iterator[tuple[str, str]]:
        """Why we make no forward move, as reason codes and sentences."""
        if differing := self.differing(members):
            names = ", ".join(map(members.name_of, differing))
            yield Cause.DISAGREEMENT, f"{names} computed another state from the same logs"
        if (ahead_s := self.ahead_s(now_s, now_ms)) is not None:
            yield Cause.CLOCK, f"our clock is {ahead_s:.0f} s ahead of the median of our peers"

    def alarms(self, members: Members, now_s: float, now_ms: int) -> Iterator[Log]:
        """What people should see, each thing once."""
        for member in self.agreement.alarms():
            self._counters["states_differed"] += 1
            theirs = self.agreement.differing[member]
            said = {
                "fix": "export both: hanse audit export; then hanse audit compare",
                "heads": theirs.heads.hex(),
                "member": members.name_of(member),
                "theirs": theirs.state.hex(),
            }
            yield Log("error", "state_differs", tuple(said.items()))
        ahead_s = self.ahead_s(now_s, now_ms)
        if ahead_s is not None and not self._ahead:
            said = {"ahead_s": f"{ahead_s:.0f}", "fix": "set this machine's clock"}
            yield Log("warning", "clock_ahead", tuple(said.items()))
        self._ahead = ahead_s is not None

    def _attest_due(self, members: Members, now_s: float) -> bool:
        if self._next_attest_s is None:
            # Soon after a start, which may be that of a new program; not all at once.
            self._next_attest_s = now_s + self._rng.uniform(_QUIET_S, _OVERDUE_S)
        if self.differing(members):  # more often, or the end of it would be seen late
            self._next_attest_s = min(self._next_attest_s, now_s + limits.DIFFERS_S)
        late_s = now_s - self._next_attest_s
        quiet = now_s - self._changed_s >= _QUIET_S
        return late_s >= _OVERDUE_S or (late_s >= 0 and quiet)

    def _health(self, now_s: float, now_ms: int) -> dict[str, Any]:
        return {
            "differing": len(self.agreement.differing),
            "known": len(self._fleet.nodes),
            "online": len(self._fleet.online(now_s)),
            "wall_ms": now_ms,
        }

    def writes(self) -> list[Write]:
        return self.statuses.writes()
