"""When a certificate is renewed, and how a daemon renews its own."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable

from hanse.rpc.certificates import LIFE, Identity, Span, from_now, issue, span_of


def renewal_due(span: Span, spread: float) -> datetime.datetime:
    """Between a half and two thirds of the life, by `spread` from 0 to 1.

    Half a week is then left for a daemon that is away, and a fleet that was enrolled in one
    minute does not come back in one.
    """
    since, until = span
    return since + (until - since) * (0.5 + spread / 6)


class Renewed:
    """What a daemon shows to others: issued by its own authority, again and again.

    The key of each certificate is made here and lives in memory only. Owned by the event loop;
    `current` may be read from any thread.
    """

    def __init__(
        self,
        uri: str,
        issuer: Identity,
        now: datetime.datetime,
        *,
        life: datetime.timedelta = LIFE,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._uri, self._issuer, self._life, self._spread = uri, issuer, life, spread
        self.current = issuer
        self._due = now
        self.refresh(now)

    def refresh(self, now: datetime.datetime) -> bool:
        """Issue the next one if it is time, or if the clock has been set back below this one."""
        since, _ = span_of(self.current.cert_pem)
        if since <= now < self._due:
            return False
        span = from_now(now, self._life)
        self.current = issue(self._uri, self._issuer, span)
        self._due = renewal_due(span, self._spread())
        return True
