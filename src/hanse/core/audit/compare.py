"""Two audits side by side: does everybody see the same logs? (T21)

A log that is shorter in one place is behind; that is no lie. Two logs of one name of which
neither is a prefix of the other are one: somebody shows different histories to different
people, and both are signed.
"""

from __future__ import annotations

from dataclasses import dataclass

from hanse.core.audit.replay import Audit, LogAudit
from hanse.core.ids import Origin
from hanse.core.log.merkle import root_of

SAME, BEHIND, MISSING, FORK = "same", "behind", "missing", "fork"


@dataclass(frozen=True, slots=True)
class Difference:
    """How one log stands in two places; sizes are 0 where it is missing."""

    origin: Origin
    kind: str
    sizes: tuple[int, int]
    fork_at: int | None = None
    """The first event that differs, of a fork."""


def compare(one: Audit, other: Audit) -> list[Difference]:
    """Every log of either, by origin. Both audits have been verified."""
    found = []
    for origin in sorted({*one.logs, *other.logs}):
        a, b = one.logs.get(origin), other.logs.get(origin)
        sizes = (a.head.size if a else 0, b.head.size if b else 0)
        if a is None or b is None:
            found.append(Difference(origin, MISSING, sizes))
        elif consistent(a, b):
            found.append(Difference(origin, SAME if sizes[0] == sizes[1] else BEHIND, sizes))
        else:
            found.append(Difference(origin, FORK, sizes, fork_index(a, b)))
    return found


def consistent(one: LogAudit, other: LogAudit) -> bool:
    """Whether the shorter log is how the longer one began."""
    older, newer = sorted((one, other), key=lambda log: log.head.size)
    return root_of(newer.leaves[: older.head.size]) == older.head.root


def fork_index(one: LogAudit, other: LogAudit) -> int:
    return next(i for i, (a, b) in enumerate(zip(one.leaves, other.leaves, strict=False)) if a != b)


def states_contradict(one: Audit, other: Audit) -> bool:
    """Equal inputs must give equal states, or one of two programs computes something else."""
    return one.heads_digest == other.heads_digest and one.state_digest != other.state_digest
