"""Whom to talk to: a union of rings that everybody computes alike, bridges, and a random link.

Ring k orders members by hash(seed, k, member). The union of D/2 rings is connected and
regular, and a join moves only neighbours. Of two neighbours the one with the lower id dials.
Bridges lead into other regions where the rings do not, so that no region is all that a daemon
hears; the random link, re-drawn hourly, keeps it from being surrounded (T22). Bridges and the
random link are dialled by whoever needs them: nobody else can make them end with himself.

Another trust means other rings. A link that they do not have is kept for `LINGER_S`, or the
news of that trust might be cut off with it, and its reader left to the links that it has (T22).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from random import Random

from hanse.core import limits
from hanse.core.effects import Dial, Undial
from hanse.core.ids import MemberId, Segment
from hanse.core.trust.members import Members

REGIONS_MIN = 2  # other regions that a daemon hears from, if there are so many


def degree(members: int) -> int:
    """Links a daemon keeps in the rings: 4 up to 50 daemons, 6 up to 500, 8 above."""
    return 4 if members <= 50 else 6 if members <= 500 else 8


def neighbours(me: MemberId, members: Sequence[MemberId], seed: str) -> tuple[MemberId, ...]:
    """The ring neighbours of `me`, sorted; everybody else when there are few."""
    found = set(members) if len(members) <= degree(len(members)) + 1 else set[MemberId]()
    for order, places in _rings(tuple(members), seed):
        at = places[me]
        found |= {order[at - 1], order[(at + 1) % len(order)]}
    return tuple(sorted(found - {me}))


def bridges(
    me: MemberId, regions: Mapping[MemberId, Segment], near: Collection[MemberId], seed: str
) -> tuple[MemberId, ...]:
    """Members of other regions to dial, so that with the rings two other regions are heard."""
    reached = {regions[member] for member in near} - {regions[me]}
    beyond = set(regions.values()) - reached - {regions[me]}
    chosen = sorted(beyond, key=lambda region: _place(seed, f"{me}/{region}"))
    return tuple(
        min((m for m in regions if regions[m] == region), key=lambda m: _place(seed, f"{me}/{m}"))
        for region in chosen[: max(0, REGIONS_MIN - len(reached))]
    )


def random_link(
    me: MemberId, members: Sequence[MemberId], near: Collection[MemberId], rng: Random
) -> MemberId | None:
    """One member beyond these, or None when they are everybody."""
    others = sorted(set(members) - set(near) - {me})
    return rng.choice(others) if others else None


class Overlay:
    """The links that one daemon dials; owned by its node."""

    def __init__(self, me: MemberId, rng: Random) -> None:
        self._me, self._rng = me, rng
        self.must_hear: frozenset[MemberId] = frozenset()  # daemons whose word is waited for
        self._wanted: set[MemberId] = set()
        self._leaving: dict[MemberId, float] = {}
        self._trust: bytes | None = None
        self._near: tuple[MemberId, ...] = ()
        self._fixed: frozenset[MemberId] = frozenset()
        self._random: MemberId | None = None
        self._random_until_s = 0.0

    def changes(
        self, current: Members, must_hear: Collection[str], now_s: float
    ) -> list[Dial | Undial]:
        """What to dial and what to leave since the last call. Time is the monotonic clock."""
        if current.member(self._me) is None:
            return []
        if current.digest != self._trust:
            self._read(current)
        if now_s >= self._random_until_s:
            self._random_until_s = now_s + limits.RANDOM_LINK_S
            ids = [m.id for m in current.members]
            self._random = random_link(self._me, ids, self._fixed.union(self._near), self._rng)
        wanted = set(self._fixed) | ({self._random} if self._random else set())
        self.must_hear = frozenset(
            m.id for m in (current.members if must_hear else ()) if m.region in must_hear
        )
        wanted |= self.must_hear - {self._me, *self._near}
        before = self._wanted
        for member in before - wanted:
            self._leaving.setdefault(member, now_s + limits.LINGER_S)
        self._leaving = {
            m: until_s
            for m, until_s in self._leaving.items()
            if m not in wanted and now_s < until_s
        }
        self._wanted = {m for m in wanted.union(self._leaving) if current.member(m)}
        new = [current.member(member) for member in sorted(self._wanted - before)]
        dials = [Dial(member.id) for member in new if member]
        return [*dials, *(Undial(member) for member in sorted(before - self._wanted))]

    def _read(self, current: Members) -> None:
        self._trust = current.digest
        regions = {m.id: m.region for m in current.members}
        self._near = neighbours(self._me, list(regions), current.ring_seed)
        across = bridges(self._me, regions, self._near, current.ring_seed)
        self._fixed = frozenset({m for m in self._near if self._me < m}.union(across))


@lru_cache(maxsize=8)
def _rings(
    members: tuple[MemberId, ...], seed: str
) -> list[tuple[list[MemberId], dict[MemberId, int]]]:
    """Each ring: its order, and everybody's place in it."""
    rings = []
    for ring in range(degree(len(members)) // 2):
        order = sorted(members, key=lambda m, ring=ring: _place(seed, f"{ring}/{m}"))  # type: ignore[misc]  # default binds the loop variable
        rings.append((order, {member: at for at, member in enumerate(order)}))
    return rings


def _place(seed: str, of: str) -> bytes:
    return hashlib.sha256(f"{seed}/{of}".encode()).digest()
