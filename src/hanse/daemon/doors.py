"""What the daemon shows of itself, who may come in, and who must leave at once."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable

import structlog

from hanse.core.node import Node
from hanse.daemon.config import Config
from hanse.daemon.private_files import read_private
from hanse.rpc import certificates
from hanse.rpc.certificates import Identity
from hanse.rpc.doorkeeper import Doorkeeper, Known, utc_now
from hanse.rpc.link import GrpcTransport
from hanse.rpc.renewal import Renewed
from hanse.rpc.tls import Peer

LOOK_S = 0.25  # how long a revocation may go unnoticed
log = structlog.get_logger("hanse.daemon")


class Doors:
    """Owned by the composition root; `watch` runs for as long as the daemon does."""

    def __init__(
        self,
        config: Config,
        node: Node,
        authority: Identity,
        *,
        now: Callable[[], datetime.datetime] = utc_now,
    ) -> None:
        self._node, self._now = node, now
        uri = certificates.daemon_uri(config.federation, config.region, node.me.member)
        self._shown = Renewed(uri, authority, now())
        enrolment = node.enrolment
        known = Known(
            members=lambda: node.book.chain.current,
            tokens=lambda: {k: g.authority_pem for k, g in enrolment.grants.items()},
            denied=self._why_denied,
            revision=lambda: enrolment.revision,
        )
        self.doorkeeper = Doorkeeper(known, now=now)
        self.transport = GrpcTransport(
            node.me.member,
            self.shown,
            known.members,
            counters=node.counters,
            boot_nonce=node.sync.selves.boot_nonce,
        )

    def shown(self) -> Identity:
        """The certificate that this daemon shows now, as client and as server."""
        return self._shown.current

    async def watch(self) -> None:
        """Renew our certificate in time, and hang up on whoever may not stay."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        if self._shown.refresh(self._now()):
            _, until = certificates.span_of(self.shown().cert_pem)
            log.info("certificate_renewed", until=until.isoformat())
        self.doorkeeper.look_again()
        self.transport.look_again()

    def _why_denied(self, peer: Peer) -> str:
        if peer.kind != "edge":
            return ""
        region = self._node.book.chain.current.region(peer.region)
        if region is not None and region.revoked:
            serial = certificates.serial_number(peer.cert_pem)
            if not region.revoked.isdisjoint({peer.name, serial}):
                return "the trust file says so"
        if peer.region != self._node.me.region:
            return ""
        return self._node.enrolment.why_denied(peer.name, peer.spki.hex())


def read_authority(config: Config) -> Identity:
    """This daemon's own authority, which the members file pins.

    Raises `NotFound`, `NotPermitted`.
    """
    return Identity(config.tls_cert.read_bytes(), read_private(config.tls_key))
