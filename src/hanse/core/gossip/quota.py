"""How much one author may write in a day before it is slowed down (L23).

Quotas decide nothing about validity: what an author signed counts whenever it arrives, or
daemons with other settings would disagree. One that writes without end, because its key was
stolen or its code is wrong, costs its peers a trickle instead of their disks.
"""

from __future__ import annotations

from hanse.core import limits
from hanse.core.gossip.budget import Budget
from hanse.core.ids import MemberId

DAY_S = 86_400.0


class Quotas:
    """Owned by `gossip.sync`; one budget of bytes for each author that we have taken from."""

    def __init__(self) -> None:
        self._budgets: dict[MemberId, Budget] = {}
        self._next_pull_s: dict[MemberId, float] = {}

    def spend(self, author: MemberId, size: int, now_s: float) -> None:
        if author not in self._budgets:
            day = limits.AUTHOR_BYTES_PER_DAY
            self._budgets[author] = Budget(day / DAY_S, day, now_s)
        self._budgets[author].spend(size, now_s)

    def is_spent(self, author: MemberId, now_s: float) -> bool:
        budget = self._budgets.get(author)
        return budget is not None and budget.left(now_s) <= 0

    def may_pull(self, author: MemberId, now_s: float) -> bool:
        """Whether to ask for more of this author now: at once, or now and then once it is spent."""
        return not self.is_spent(author, now_s) or now_s >= self._next_pull_s.get(author, 0.0)

    def pulled(self, author: MemberId, now_s: float) -> None:
        if self.is_spent(author, now_s):
            self._next_pull_s[author] = now_s + limits.AUTHOR_SLOW_PULL_S
