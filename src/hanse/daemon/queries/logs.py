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
    for origin, fork in sorted(node.book.forks.items()):
        if node.book.cut_of(origin) is None:
            head = node.book.heads.get(origin)
            end = max(fork.index, head.final_size if head else 0)
            reason = f"its key signed two histories; what follows event {end} counts nowhere"
            found.append(_row(str(origin), origin.region, "frozen", reason, FROZEN))
    for cut in node.book.chain.current.cuts:
        reason = f"the root cut it: what follows event {cut.void_from} counts nowhere"
        found.append(_row(str(cut.origin), cut.origin.region, "cut", reason, CUT))
    current = node.book.chain.current
    for member, at_s in sorted(node.sync.selves.doubles.items()):
        listed = current.member(member)
        ago = f"two processes speak with its key, last seen {clock.now_s - at_s:.0f} s ago"
        found.append(_row(member, listed.region if listed else "", "doubled", ago, DOUBLED))
    return found


FROZEN = "find out who else has that key; a cut in the trust file says which history was meant"
CUT = "nothing: its daemon goes on in a new incarnation, or under a new key"
STALLED = "upgrade this daemon, or bring it the newest trust file"
DOUBLED = "stop one of the two daemons, then hanse daemon claim on the other"


def _row(log: str, region: str, state: str, reason: str, fix: str) -> Answer:
    return {"log": log, "region": region, "state": state, "reason": reason, "fix": fix}
