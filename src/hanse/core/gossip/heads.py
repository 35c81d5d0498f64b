"""The head map: how far we hold each author's log, and its digest.

For logs that only grow, (size, root) per author is the smallest honest summary: two daemons
with equal digests hold the same events, and act under the same trust, whose digest is part
of it: a members file that was lost on its way is missed at the next ping, like an event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from hanse.core.gossip.frames import LogHead
from hanse.core.ids import Origin
from hanse.core.step import Head

PREFIX_BYTES = 8


def digest(heads: Mapping[Origin, Head], trust: bytes) -> bytes:
    """SHA-256 over the trust digest and (origin hash, size, root) in origin order; 32 B."""
    state = hashlib.sha256(b"hanse-heads/v1\n" + trust)
    for origin in sorted(heads):
        head = heads[origin]
        state.update(origin.hash + head.size.to_bytes(8, "big") + head.root)
    return state.digest()


def summary(heads: Iterable[Head]) -> tuple[LogHead, ...]:
    ordered = sorted(heads, key=lambda h: h.origin)
    return tuple(LogHead(h.origin, h.size, h.root[:PREFIX_BYTES]) for h in ordered)
