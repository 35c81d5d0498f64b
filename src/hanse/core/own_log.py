"""The log that this daemon writes: which of its incarnations, and whether now.

`recovery` weighs what peers say; here it is heard, and here the log is chosen that follows.
"""

from __future__ import annotations

from random import Random

from hanse.core.effects import Log
from hanse.core.events import LogOpen
from hanse.core.gossip.links import Link
from hanse.core.gossip.sync import Sync
from hanse.core.ids import Origin
from hanse.core.logbook import Logbook, empty_head
from hanse.core.recovery import Phase, Recovery


class OwnLog:
    """Owned by the node, which follows `log`."""

    def __init__(self, me: Origin, book: Logbook, sync: Sync, rng: Random) -> None:
        self.log = me
        self.recovery = Recovery()
        self._book, self._sync, self._rng = book, sync, rng

    def choose(self) -> None:
        """Write on in the newest log of ours."""
        held = (head.origin for head in self._book.logs_of(self.log.member))
        self.log = self._sync.me = max(held, default=self.log)
        if self._book.forks.get(self.log) or self._book.cut_of(self.log):
            self.recovery.because = self.recovery.because or "its log has ended"
        self._sync.selves.extends = self.recovery.extends

    @property
    def is_empty(self) -> bool:
        """Whether it is to be begun now."""
        return self.recovery.extends and self._book.size(self.log) == 0

    def review(self, now_s: float) -> bool:
        """Weigh what peers said of our own log; whether anything follows."""
        recovery, selves = self.recovery, self._sync.selves
        before = (recovery.phase, recovery.reopen)
        for origin in selves.usurped:
            self._say("error", "own_log_extended_by_another", log=str(origin))
            recovery.usurped(now_s)
        for peer, nonce in selves.rivals.items():
            recovery.told(peer, nonce, now_s)
        selves.usurped.clear()
        selves.rivals.clear()
        recovery.review(sum(map(self._answered, self._sync.proven())), now_s)
        if before == (recovery.phase, recovery.reopen):
            return False
        self.choose()
        level = "error" if recovery.phase is Phase.RIVALLED else "info"
        phase, why = recovery.phase.value, recovery.why
        self._say(level, "recovery", log=str(self.log), phase=phase, why=why)
        return True

    def reopen(self) -> LogOpen:
        """Go on in a new incarnation; the event that opens it."""
        why = self.recovery.reopen
        self.choose()
        before = self.log
        self.log = self._sync.me = before.next(self._rng.randbytes(4))
        self.recovery.opened()
        self._sync.selves.extends = True
        self._say("warning", "new_incarnation", log=str(self.log), after=str(before), why=why)
        head = self._book.heads.get(before, empty_head(before))
        return LogOpen(self.log.incarnation, str(before), head.size, head.root, why)

    def _answered(self, link: Link) -> bool:
        """Whether this peer claims nothing of our logs that we do not hold."""
        return all(self._book.size(held.origin) >= held.size for held in link.yours)

    def _say(self, level: str, event: str, **fields: str) -> None:
        self._sync.effects.append(Log(level, event, tuple(sorted(fields.items()))))
