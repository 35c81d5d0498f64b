"""The life of one release on one edge node, as a table: what is not in it does not happen.

    absent -> fetching -> stored -> loading -> ready
                 |           ^         |         |
                 v           +---------|---------+  (no longer warm)
              absent, later            v
              or failed             failed, or absent if the disk lost it

What is in memory answers on if the disk lost it: ready -> worn -> mending -> ready.

`failed` is final for one (rollout, generation): a node never retries by itself what it has
judged, only what it could not get.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 120.0


class State(StrEnum):
    ABSENT = "absent"
    FETCHING = "fetching"
    STORED = "stored"
    LOADING = "loading"
    READY = "ready"
    WORN = "ready, and its files are gone"
    MENDING = "ready, and its files are fetched again"
    FAILED = "failed"


ANSWERS = frozenset({State.READY, State.WORN, State.MENDING})
ASKS = frozenset({State.ABSENT, State.WORN})
"""Its files are to be fetched."""


class Happened(StrEnum):
    FETCH = "fetch begins"
    FETCHED = "fetched and verified"
    UNREACHED = "no source served it"
    REFUSED = "judged unfit"
    LOAD = "load begins"
    LOADED = "loaded and golden inputs passed"
    LOST = "its files are missing or damaged"
    UNLOAD = "unloaded"
    REOPENED = "a new generation may try again"


_TABLE: dict[tuple[State, Happened], State] = {
    (State.ABSENT, Happened.FETCH): State.FETCHING,
    (State.ABSENT, Happened.REFUSED): State.FAILED,
    (State.FETCHING, Happened.FETCHED): State.STORED,
    (State.FETCHING, Happened.UNREACHED): State.ABSENT,
    (State.FETCHING, Happened.REFUSED): State.FAILED,
    (State.STORED, Happened.LOAD): State.LOADING,
    (State.STORED, Happened.REFUSED): State.FAILED,
    (State.STORED, Happened.LOST): State.ABSENT,
    (State.LOADING, Happened.LOADED): State.READY,
    (State.LOADING, Happened.REFUSED): State.FAILED,
    (State.LOADING, Happened.LOST): State.ABSENT,
    (State.READY, Happened.UNLOAD): State.STORED,
    (State.READY, Happened.LOST): State.WORN,
    (State.WORN, Happened.FETCH): State.MENDING,
    (State.WORN, Happened.UNLOAD): State.ABSENT,
    (State.MENDING, Happened.FETCHED): State.READY,
    (State.MENDING, Happened.UNREACHED): State.WORN,
    (State.MENDING, Happened.REFUSED): State.READY,
    (State.MENDING, Happened.UNLOAD): State.FETCHING,
    (State.FAILED, Happened.REOPENED): State.ABSENT,
}


@dataclass(frozen=True, slots=True)
class Slot:
    """`tried` is the (rollout, generation) under which it failed; times are local seconds."""

    state: State = State.ABSENT
    reason: str = ""
    attempts: int = 0
    retry_at: float = 0.0
    tried: tuple[str, int] = ("", 0)

    def after(self, happened: Happened) -> Slot | None:
        """The next slot, or None if this cannot happen now (a stale report: ignore it)."""
        state = _TABLE.get((self.state, happened))
        return None if state is None else replace(self, state=state)

    def refused(self, reason: str, tried: tuple[str, int]) -> Slot | None:
        slot = self.after(Happened.REFUSED)
        return slot and replace(slot, reason=reason, tried=tried)

    def unreached(self, reason: str, now: float, jitter: float) -> Slot | None:
        """Wait twice as long after each failed fetch; `jitter` in [0, 1) spreads a fleet out."""
        slot = self.after(Happened.UNREACHED)
        if slot is None:
            return None
        wait_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(self.attempts, 16))
        return replace(
            slot,
            reason=reason,
            attempts=self.attempts + 1,
            retry_at=now + wait_s * (0.5 + jitter),
        )
