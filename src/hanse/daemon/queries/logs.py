"""Whether this daemon may write, and which logs do not go on here: each with what to do."""

from __future__ import annotations

from hanse.core.node import Clock, Node
from hanse.daemon.queries.matter import Answer


def logs(node: Node, clock: Clock) -> list[Answer]:
    """Every log that stands still here, or that two processes write; by origin."""
    found = [
        _row(str(origin), origin.region, "stalled", reason, STALLED)
        for origin, reason in sorted(node.book.stalled.items())
    ]
    current = node.book.chain.current
    for member, at_s in sorted(node.sync.selves.doubles.items()):
        listed = current.member(member)
        ago = f"two processes speak with its key, last seen {clock.now_s - at_s:.0f} s ago"
        found.append(_row(member, listed.region if listed else "", "doubled", ago, DOUBLED))
    return found


STALLED = "upgrade this daemon, or bring it the newest trust file"
DOUBLED = "stop one of the two daemons, then hanse daemon claim on the other"


def _row(log: str, region: str, state: str, reason: str, fix: str) -> Answer:
    return {"log": log, "region": region, "state": state, "reason": reason, "fix": fix}
