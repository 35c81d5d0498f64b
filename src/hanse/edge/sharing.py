"""The node's second port: parts of model files for other nodes of its region.

It knows nobody but the region's edge CA, which the signed assignment names, and gives nothing
without a ticket by the daemon that it obeys itself (`core.ticket`). It is opened once that CA is
known, and a port that cannot be opened stops nothing: the node serves, and takes, as before.

So many streams at once and no more, each peer its share of them, as many bytes a second as the
operator allows, and few while somebody asks the models here: who asks must not notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping

import structlog

from hanse.core import ticket
from hanse.core.catalog.manifest import Manifest
from hanse.core.counters import zeros
from hanse.core.errors import NotFound, Rejected, Unavailable
from hanse.core.fleet import SHARE_FACT
from hanse.core.ids import Digest, Segment
from hanse.core.ticket import Ticket
from hanse.core.transfer.wanted import Elsewhere, File, Wanted
from hanse.core.trust.members import Members, Region
from hanse.edge.cache import Cache
from hanse.edge.certificate import OwnCertificate
from hanse.edge.config import Config
from hanse.parts.recipe import Recipe
from hanse.rpc.admission import Admission, CallLimits
from hanse.rpc.blob_service import BlobService
from hanse.rpc.doorkeeper import Doorkeeper, Known
from hanse.rpc.pacing import Pace
from hanse.rpc.server import Server, build_server
from hanse.rpc.tls import Peer
from hanse.storage.recipes import recipe_in
from hanse.transfer.underway import Underway

STREAMS_MAX = 4
STREAMS_PER_PEER_MAX = 2
BUSY_BYTES_PER_S = 16 * 1024**2
"""While models answer; measured: with 250 MB/s an answer took eight times as long."""
CALLS = CallLimits(per_s=20, burst=100, at_once=8)
OPTIONS = (
    ("grpc.max_allowed_incoming_connections", 128),
    ("grpc.max_concurrent_streams", CALLS.at_once),
    ("grpc.max_connection_idle_ms", 60_000),
)
log = structlog.get_logger("hanse.share")


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class PolitePace(Pace):
    """At most `bytes_per_s`, 0 for no limit, and less while `busy`."""

    def __init__(self, bytes_per_s: int) -> None:
        super().__init__(bytes_per_s)
        self._slower = Pace(min(bytes_per_s or BUSY_BYTES_PER_S, BUSY_BYTES_PER_S))
        self.busy = False

    async def take(self, caller: Hashable, size: int) -> None:
        await (self._slower.take if self.busy else super().take)(caller, size)


class SharedFiles:
    """What lies in the node's store or has come of what is under way, for whoever shows a ticket
    (`rpc.blob_service.BlobSource`)."""

    def __init__(
        self,
        cache: Cache,
        manifest_of: Callable[[Digest], Manifest | None],
        underway: Underway,
        daemon_key: bytes,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._blobs, self._manifest_of = cache.blobs, manifest_of
        self._underway = underway
        self._daemon_key, self._now_ms = daemon_key, now_ms
        self.size = self._blobs.size
        self.refused = 0

    def may_fetch(self, peer: Peer, file: File, raw: bytes = b"") -> bool:
        asked = Ticket(Segment(peer.name), peer.spki, file.release, file.digest, 0)
        try:
            ticket.check(ticket.open_ticket(raw, self._daemon_key), asked, self._now_ms())
        except Rejected as error:
            self.refused += 1
            log.warning("ticket_refused", node=peer.name, file=str(file.digest), why=str(error))
            return False
        return self._underway.get(file.digest) is not None or self._blobs.has(file.digest)

    def may_lean(self, peer: Peer, base: File) -> bool:
        """It has shown a ticket; and what one node of a region may hold all others there may."""
        return self._blobs.has(base.digest)

    def read_range(self, digest: Digest, start: int, length: int) -> bytes:
        try:
            return self._underway.read(digest, start, length)
        except NotFound:
            return self._blobs.read_range(digest, start, length)

    def recipe(self, file: File) -> Recipe:
        if coming := self._underway.get(file.digest):
            return coming.recipe
        return recipe_in(self._blobs, self._manifest_of(file.release), file.digest)

    async def elsewhere(self, peer: Peer, wanted: Wanted) -> Mapping[int, Elsewhere]:
        return {}

    async def has_part(self, file: File, part: int, until_s: float) -> bool:
        coming = self._underway.get(file.digest)
        return await coming.has(part, until_s) if coming else True

    def on_damage(self, digest: Digest) -> None:
        """Whoever loads it hashes it, and fetches it anew."""


class Sharing:
    """The port, if there is one. `edge_ca` is asked for the CA's certificate, PEM, and `answers`
    for how many the models here have given."""

    def __init__(
        self,
        config: Config,
        own: OwnCertificate,
        files: SharedFiles,
        edge_ca: Callable[[], str],
        answers: Callable[[], int],
    ) -> None:
        self._config, self._own, self._edge_ca = config, own, edge_ca
        self._answers, self._answered = answers, 0
        self._pace = PolitePace(config.share_bytes_per_s)
        self._members = _only(config, "")
        self._keeper = Doorkeeper(Known(self._known))
        self._counters = zeros()
        self._files = files
        self._server: Server | None = None

    async def open(self) -> bool:
        """Whether it has been opened just now."""
        if self._server is not None or not self._config.share_listen or not self._edge_ca():
            return False
        try:
            self._server, port = await build_server(
                lambda: self._own.identity,
                self._keeper,
                [
                    BlobService(
                        self._files,
                        self._counters,
                        self._pace,
                        at_once=STREAMS_MAX,
                        of_a_peer=STREAMS_PER_PEER_MAX,
                    )
                ],
                address=self._config.share_listen,
                admission=Admission(self._counters, CALLS),
                options=OPTIONS,
            )
        except Unavailable as error:
            log.error("not_sharing", reason=str(error))
            return False
        await self._server.start()
        log.info("sharing", port=port, told=self.facts())
        return True

    def facts(self) -> dict[str, str]:
        """What the daemon is told: where others reach this node, once they can."""
        if self._server is None:
            return {}
        host, _, port = self._config.share_listen.rpartition(":")
        everywhere = host in ("0.0.0.0", "[::]", "[::0]")  # noqa: S104  # it is only compared
        here = f":{port}" if everywhere else self._config.share_listen
        return {SHARE_FACT: self._config.share_address or here}

    def look_again(self) -> None:
        """Once a second: hang up on whom it would not let in now, and see who asks the models."""
        self._keeper.look_again()
        answered = self._answers()
        self._pace.busy, self._answered = answered != self._answered, answered

    def describe(self) -> dict[str, object]:
        return {
            "address": self.facts().get(SHARE_FACT),
            "bytes_given": self._counters["blob_bytes_sent"],
            "tickets_refused": self._files.refused,
        }

    async def close(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    def _known(self) -> Members:
        """The same object for as long as the CA is the same: see `Doorkeeper`."""
        if self._members.regions[0].edge_ca_pem != self._edge_ca():
            self._members = _only(self._config, self._edge_ca())
        return self._members


def _only(config: Config, edge_ca_pem: str) -> Members:
    """A federation of which nothing is known but the nodes of one region."""
    region = Region(config.region, edge_ca_pem)
    return Members(config.federation, 0, (), 0, "", (region,), (), ())
