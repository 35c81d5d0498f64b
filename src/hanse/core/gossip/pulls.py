"""What to ask of whom: suffixes that somebody claims to hold and we do not.

A claim is a hint. It steers what is asked next and is dropped when it is not kept; what counts
is checked against signatures when the events arrive.
"""

from __future__ import annotations

from collections.abc import Sequence

from hanse.core.effects import Send
from hanse.core.gossip.links import Link
from hanse.core.gossip.quota import Quotas
from hanse.core.ids import Origin
from hanse.core.logbook import Logbook

CLAIMS_SPARE = 1000  # logs of earlier incarnations and former members


class Pulls:
    """Owned by `gossip.sync`."""

    def __init__(self, book: Logbook, quotas: Quotas) -> None:
        self._book, self._quotas = book, quotas
        self._lacking: dict[Origin, None] = {}  # logs of which somebody claims more than we have

    def learn(self, link: Link, origin: Origin, size: int) -> bool:
        """Note a claim, unless it is of a log that could never enter: claims take memory."""
        members = len(self._book.chain.current.members)
        if not self._book.knows(origin) or len(link.theirs) >= members + CLAIMS_SPARE:
            return False
        link.learn(origin, size)
        self._lacking[origin] = None
        return True

    def next(self, links: Sequence[Link], now_s: float) -> list[Send]:
        """Ask the proven `links` for as much as may be asked now."""
        out: list[Send] = []
        for origin in list(self._lacking):
            if all(link.busy for link in links):
                break
            have = self._book.size(origin)
            holders = [link for link in links if link.theirs.get(origin, 0) > have]
            if not holders or not self._book.wants(origin):
                del self._lacking[origin]
            elif self._waits(origin, links, now_s):
                continue
            elif link := next((link for link in holders if not link.busy), None):
                self._quotas.pulled(origin.member, now_s)
                out.append(Send(link.peer, link.pull(origin, have, now_s)))
        return out

    def _waits(self, origin: Origin, links: Sequence[Link], now_s: float) -> bool:
        asked = any(origin in link.pulls for link in links)
        slowed = not self._quotas.may_pull(origin.member, now_s)
        return asked or slowed or origin in self._book.stalled
