"""hanse.v1.EdgeService: what a region's daemon tells its nodes, and what they report.

A node is who its certificate says. `rpc.doorkeeper` has held that against the edge CA of the
region that it names; here it must be *this* region, and the node that the request names.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import unquote

from hanse.core import limits
from hanse.core.counters import Counters, zeros
from hanse.core.errors import InvalidName, NotPermitted, TooLarge, Unavailable
from hanse.core.fleet import SHARE_FACT
from hanse.core.ids import Segment, check_address, segment
from hanse.rpc import tls
from hanse.rpc.assignments import AssignmentFeed, Watcher
from hanse.rpc.methods import Described
from hanse.rpc.status import Context, refuse, translated
from hanse.rpc.tls import Peer
from hanse.v1 import edge_pb2 as pb

NONCE_BYTES_MAX = 64


class EdgeHandler(Protocol):
    """What the daemon does about its nodes; every name has been proved by then."""

    def on_watch(self, peer: Peer, node: Segment, facts: Mapping[str, str]) -> None: ...

    def on_gone(self, peer: Peer, node: Segment) -> None:
        """The node's newest stream has ended; called once for each `on_watch` not replaced."""
        ...

    async def on_report(
        self, peer: Peer, node: Segment, boot_nonce: bytes, seq: int, report: bytes
    ) -> int:
        """The highest sequence number that is counted and durable. May raise `Rejected`."""
        ...


class EdgeService(Described):
    described = pb.DESCRIPTOR.services_by_name["EdgeService"]

    def __init__(
        self,
        federation: Segment,
        region: Segment,
        handler: EdgeHandler,
        counters: Counters | None = None,
    ) -> None:
        self._counters = zeros() if counters is None else counters
        self._federation = federation
        self._region = region
        self._handler = handler
        self._feed = AssignmentFeed()
        self._nodes: dict[Segment, Watcher] = {}

    def publish(self, assignment: bytes, signature: bytes) -> None:
        """Tell every node that watches, now and later, until this is called again."""
        message = pb.WatchResponse(assignment=assignment, signature=signature)
        self._feed.publish(message.SerializeToString())

    @translated
    async def watch(self, request: pb.WatchRequest, context: Context) -> None:
        peer, node = self._node(request.node, context)
        facts = _facts(request.facts, context.peer())
        if len(self._nodes) >= limits.NODES_MAX and node not in self._nodes:
            self._counters["nodes_refused"] += 1
            raise Unavailable(
                f"{limits.NODES_MAX} nodes watch this daemon", fix="watch another daemon"
            )
        watcher = Watcher(context)
        older, self._nodes[node] = self._nodes.get(node), watcher
        if older is not None:
            older.end(Unavailable("the node has opened another stream"))
        try:
            self._handler.on_watch(peer, node, facts)
            await context.send_initial_metadata(())
            self._feed.register(watcher)
            await watcher.over.wait()
        finally:
            self._feed.unregister(watcher)
            if self._nodes.get(node) is watcher:
                del self._nodes[node]
                self._handler.on_gone(peer, node)
        if watcher.error is not None:
            await refuse(context, watcher.error)

    @translated
    async def report(self, request: pb.ReportRequest, context: Context) -> pb.ReportResponse:
        peer, node = self._node(request.node, context)
        if len(request.report) > limits.REPORT_BYTES_MAX:
            self._counters["reports_refused"] += 1
            raise TooLarge(f"a report has at most {limits.REPORT_BYTES_MAX} bytes")
        if not 0 < len(request.boot_nonce) <= NONCE_BYTES_MAX:
            raise TooLarge(f"a boot nonce has 1 to {NONCE_BYTES_MAX} bytes")
        seq = await self._handler.on_report(
            peer, node, request.boot_nonce, request.seq, request.report
        )
        return pb.ReportResponse(acknowledged_seq=seq)

    async def close(self) -> None:
        await self._feed.close()

    def _node(self, claimed: str, context: Context) -> tuple[Peer, Segment]:
        """Who calls, if it is the node that it claims to be. Raises `NotPermitted`."""
        node = segment(claimed, "node")
        peer = tls.peer_of(context)
        if (peer.kind, peer.name) != ("edge", node):
            raise NotPermitted(
                f"the certificate is that of {peer.kind} {peer.name}, not of node {node}",
                fix="use the name under which this node was enrolled",
            )
        if (peer.federation, peer.region) != (self._federation, self._region):
            raise NotPermitted(
                f"node {node} belongs to {peer.federation}/{peer.region}, "
                f"not to {self._federation}/{self._region}",
                fix="point the node at its own region's daemon",
            )
        return peer, node


def _facts(claimed: Mapping[str, str], caller: str) -> dict[str, str]:
    facts = dict(claimed)
    longest = max((len(text.encode()) for pair in facts.items() for text in pair), default=0)
    if len(facts) > limits.LABELS_MAX or longest > limits.TEXT_BYTES_MAX:
        raise TooLarge(
            f"at most {limits.LABELS_MAX} facts of {limits.TEXT_BYTES_MAX} bytes each",
            fix="report fewer or shorter facts",
        )
    if share := facts.pop(SHARE_FACT, ""):
        address = f"{_host(caller)}{share}" if share.startswith(":") else share
        with contextlib.suppress(InvalidName):  # then nobody is sent there
            facts[SHARE_FACT] = check_address(address, SHARE_FACT)
    return facts


def _host(caller: str) -> str:
    """The host of a gRPC peer such as `ipv4:10.0.0.7:4312`, as an address is written."""
    text = unquote(caller.partition(":")[2].rpartition(":")[0]).strip("[]")
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return text
    if isinstance(found, ipaddress.IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped) if mapped else f"[{found}]"
    return text
