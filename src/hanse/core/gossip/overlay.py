"""Whom to talk to: a union of rings that everybody computes alike, plus random links.

Ring k orders members by hash(seed, k, member). The union of D/2 rings is connected and
regular, and a join moves only neighbours. The random link, re-drawn hourly, keeps a daemon
from being surrounded (T22). Of two neighbours the one with the lower id dials.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random

from hanse.core.ids import MemberId


def degree(members: int) -> int:
    """Links a daemon keeps: 4 up to 50 daemons, 6 up to 500, 8 above."""
    return 4 if members <= 50 else 6 if members <= 500 else 8


def neighbours(me: MemberId, members: Sequence[MemberId], seed: str) -> tuple[MemberId, ...]:
    """The ring neighbours of `me`, sorted; everybody else when there are few."""
    if len(members) <= 1:
        return ()
    found: set[MemberId] = set()
    for ring in range(degree(len(members)) // 2):
        order = sorted(members, key=lambda m, ring=ring: _place(seed, ring, m))  # type: ignore[misc]  # default binds the loop variable
        at = order.index(me)
        found |= {order[at - 1], order[(at + 1) % len(order)]}
    return tuple(sorted(found - {me}))


def random_link(
    me: MemberId, members: Sequence[MemberId], near: Sequence[MemberId], rng: Random
) -> MemberId | None:
    """One member beyond the rings, or None when the rings reach everybody."""
    others = sorted(set(members) - set(near) - {me})
    return rng.choice(others) if others else None


def _place(seed: str, ring: int, member: MemberId) -> bytes:
    return hashlib.sha256(f"{seed}/{ring}/{member}".encode()).digest()
