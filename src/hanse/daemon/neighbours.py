"""Whom this daemon names to a node of its region, instead of sending it what others there have.

Two copies of each part leave; then nodes have it from each other. A node says on its watch where
others reach it, and in its reports what it holds. What it may have is judged here alone, before
anybody is named: neighbours see a ticket (`core.ticket`), which is written to the log when it is
signed, one for each node and file and half of its life.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import SystemRandom

import structlog

from hanse.core import ticket
from hanse.core.ids import Digest, Segment
from hanse.core.limits import NODES_MAX, TICKET_S
from hanse.core.node import Clock, Node
from hanse.core.signing import SigningKey
from hanse.core.ticket import Ticket
from hanse.core.transfer.handed import Handed
from hanse.core.transfer.wanted import Elsewhere, File, Neighbour, Wanted
from hanse.daemon.driver import now
from hanse.rpc.tls import Peer

WHOLE_S = 5.0
LOOKED_AT_MAX = 256
TICKETS_MAX = 2 * NODES_MAX
log = structlog.get_logger("hanse.gate")


class Neighbours:
    """Reads the fleet; owned by the gate."""

    def __init__(self, node: Node, key: SigningKey, clock: Callable[[], Clock] = now) -> None:
        self._node, self._key, self._clock = node, key, clock
        self._chance = SystemRandom()
        self._handed = Handed(lambda name: bool(self._address(name)), self._chance)
        self._tickets: dict[tuple[bytes, File], tuple[bytes, int]] = {}
        self._whole: tuple[float, Digest, tuple[Segment, ...]] | None = None

    def elsewhere(self, peer: Peer, wanted: Wanted) -> Mapping[int, Elsewhere]:
        """For a peer that may have the file: which parts it shall get from whom."""
        me, clock = self._node.me, self._clock()
        if peer.kind != "edge" or (peer.federation, peer.region) != (me.federation, me.region):
            return {}
        found = self._handed.elsewhere(
            Segment(peer.name),
            wanted.file.digest,
            wanted.parts,
            clock.now_s,
            insist=wanted.insist,
            whole=self._who_holds(wanted.file.release, clock.now_s),
        )
        self._node.counters["parts_pointed"] += len(found)
        self._node.counters["parts_insisted"] += len(wanted.parts) if wanted.insist else 0
        shown = self._ticket(peer, wanted.file, clock.wall_ms) if found else b""
        return {
            part: Elsewhere(tuple(Neighbour(n, self._address(n)) for n in named), shown)
            for part, named in found.items()
        }

    def _address(self, name: Segment) -> str:
        status = self._node.fleet.nodes.get(name)
        return status.share if status else ""

    def _who_holds(self, release: Digest, now_s: float) -> tuple[Segment, ...]:
        """Some nodes that said that all of it is on their disk; looked for every few seconds."""
        if self._whole is None or self._whole[1] != release or now_s - self._whole[0] > WHOLE_S:
            nodes = list(self._node.fleet.nodes.values())
            some = self._chance.sample(nodes, min(len(nodes), LOOKED_AT_MAX))
            holders = tuple(n.name for n in some if n.share and release in n.on_disk)
            self._whole = (now_s, release, holders)
        return self._whole[2]

    def _ticket(self, peer: Peer, file: File, now_ms: int) -> bytes:
        kept, until_ms = self._tickets.pop((peer.spki, file), (b"", 0))
        if not TICKET_S / 2 < (until_ms - now_ms) / 1000 <= TICKET_S:
            until_ms = now_ms + int(TICKET_S * 1000)
            made = Ticket(Segment(peer.name), peer.spki, file.release, file.digest, until_ms)
            kept = ticket.sign(made, self._key)
            self._node.counters["tickets_signed"] += 1
            log.info(
                "ticket",
                node=peer.name,
                release=file.release.short,
                file=str(file.digest),
                until_ms=until_ms,
            )
        if len(self._tickets) >= TICKETS_MAX:
            del self._tickets[next(iter(self._tickets))]
        self._tickets[peer.spki, file] = (kept, until_ms)
        return kept
