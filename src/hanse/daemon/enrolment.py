"""What the daemon does about machines that come in: tokens, certificates, requests to join.

The order is what makes a token good for one machine: its spending is stored, in a step of its
own, and only then is anything issued (T44). The node's name stands in the certificate, so two
nodes of one name are one node to everybody.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from hanse.core import token
from hanse.core.enrolment import Grant
from hanse.core.errors import Conflict, NotFound, Unavailable
from hanse.core.ids import MemberId, Segment, segment
from hanse.core.signing import SigningKey
from hanse.core.trust.members import Members
from hanse.daemon.config import Config
from hanse.daemon.doors import read_authority
from hanse.daemon.driver import Driver
from hanse.daemon.join_request import read_request
from hanse.daemon.private_files import read_private, read_seed
from hanse.rpc import certificates, tls
from hanse.rpc.certificates import Identity
from hanse.rpc.doorkeeper import utc_now
from hanse.rpc.tls import Peer

log = structlog.get_logger("hanse.daemon")


@dataclass(frozen=True, slots=True)
class Enrolment:
    """All that a node needs to know to speak with its daemon and nobody else."""

    node: Segment
    federation: Segment
    region: Segment
    identity: Identity
    daemon_address: str
    daemon_cert_pem: bytes
    daemon_key: str  # public, base64
    until: datetime.datetime


def enrol(config: Config, node: str, now: datetime.datetime) -> Enrolment:
    """Enrol a node from files alone, where the edge CA's key is; its key is made here then.

    Raises `InvalidName`, `NotFound` without the CA's key.
    """
    name = segment(node, "node")
    authority = read_edge_ca(config)
    uri = certificates.edge_uri(config.federation, config.region, name)
    span = certificates.from_now(now, certificates.LIFE)
    identity = certificates.issue(uri, authority, span)
    tls.check_issued(identity.cert_pem, authority.cert_pem, now=now)
    return Enrolment(
        node=name,
        federation=config.federation,
        region=config.region,
        identity=identity,
        daemon_address=config.advertise,
        daemon_cert_pem=config.tls_cert.read_bytes(),
        daemon_key=base64.b64encode(SigningKey(read_seed(config.daemon_key)).public).decode(),
        until=span[1],
    )


def read_edge_ca(config: Config) -> Identity:
    """Raises `NotFound` where the key is kept elsewhere, `NotPermitted` if others may read it."""
    return Identity(config.edge_ca_cert.read_bytes(), read_private(config.edge_ca_key))


class Enroller:
    """Serves `rpc.enrol_service` and the verbs about tokens; owned by the composition root."""

    def __init__(
        self, config: Config, driver: Driver, *, now: Callable[[], datetime.datetime] = utc_now
    ) -> None:
        self._config, self._driver, self._now = config, driver, now

    # -- tokens ----------------------------------------------------------------

    async def node_token(self, node: str, ttl_s: float) -> token.Token:
        """A token with which one machine becomes this node of our region."""
        name = segment(node, "node")
        read_edge_ca(self._config)  # or the token would be good for nothing
        why = _revoked_by_trust(self._members(), self._config.region, name)
        if why:
            raise Conflict(why, fix="choose another name, or have the trust file changed")
        return await self._token("edge", self._config.region, name, ttl_s)

    async def daemon_token(self, region: str, ttl_s: float) -> token.Token:
        """A token with which one daemon may ask to join as a daemon of `region`."""
        return await self._token("daemon", segment(region, "region"), "", ttl_s)

    async def _token(self, kind: str, region: Segment, node: str, ttl_s: float) -> token.Token:
        config, secret = self._config, secrets.token_bytes(token.SECRET_BYTES)
        until = self._now() + datetime.timedelta(seconds=ttl_s)
        expires_ms = int(until.timestamp() * 1000)
        name, authority = certificates.token_authority(secret, config.federation, region, until)
        grant = Grant(kind, region, node, expires_ms, authority.cert_pem.decode())
        await self._driver.do(lambda n, _: n.enrolment.issue(name, grant, self._now_ms()))
        log.info("token_made", token=name, kind=kind, region=region, node=node)
        return token.Token(
            kind=kind,
            id=name,
            federation=config.federation,
            region=region,
            node=node,
            address=config.advertise,
            daemon_key=SigningKey(read_seed(config.daemon_key)).public,
            trust=hashlib.sha256(self.trust_files()[0]).digest(),
            expires_ms=expires_ms,
            secret=secret,
            authority_der=certificates.to_der(read_authority(config).cert_pem),
        )

    # -- machines that come in ---------------------------------------------------

    def trust_files(self) -> Sequence[bytes]:
        return self._driver.node.book.chain.files

    async def on_enroll(self, caller: Peer, request: bytes) -> bytes:
        key = certificates.requested_key(request).hex()
        issuer = self._edge_ca()
        grant = await self._driver.do(
            lambda node, _: node.enrolment.spend(
                caller.name, "edge", caller.region, key, self._now_ms()
            )
        )
        log.info("node_enrolled", node=grant.node, token=caller.name)
        return self._certify(grant.node, request, issuer)

    async def on_renew(self, caller: Peer, request: bytes) -> bytes:
        if caller.region != self._config.region:
            raise Conflict(
                f"node {caller.name} belongs to {caller.region}, not to {self._config.region}",
                fix="point the node at its own region's daemon",
            )
        issuer = self._edge_ca()
        await self._driver.do(lambda n, _: n.enrolment.seen(caller.name, caller.spki.hex()))
        return self._certify(caller.name, request, issuer)

    async def on_join(self, caller: Peer, raw: bytes) -> None:
        request = read_request(raw)
        member = request.member.id
        if request.federation != self._config.federation:
            raise Conflict(
                f"the request is for {request.federation}, this is {self._config.federation}",
                fix="ask for a token of that federation",
            )
        if self._members().member(member) is not None:
            return  # it was admitted meanwhile
        await self._driver.do(
            lambda node, _: node.enrolment.ask(
                caller.name, request.member.region, member, raw, self._now_ms()
            )
        )
        log.info("daemon_asks_to_join", member=member, region=request.member.region)

    def _certify(self, node: str, request: bytes, issuer: Identity) -> bytes:
        uri = certificates.edge_uri(self._config.federation, self._config.region, node)
        return certificates.certify(
            uri, request, issuer, certificates.from_now(self._now(), certificates.LIFE)
        )

    def _edge_ca(self) -> Identity:
        try:
            return read_edge_ca(self._config)
        except NotFound:
            raise Unavailable(
                "this daemon does not hold the key of its region's edge CA",
                fix="renew the node where that key is: hanse agent enroll --via",
            ) from None

    # -- what people decide ------------------------------------------------------

    async def revoke(self, node: str, reason: str) -> None:
        """Cut this node off, now and until it is enrolled again with a new token."""
        name = segment(node, "node")
        await self._driver.do(lambda n, _: n.enrolment.deny(name, reason, self._now_ms()))
        log.warning("node_revoked", node=name, why=reason)

    async def refuse(self, member: MemberId) -> None:
        await self._driver.do(lambda n, _: n.enrolment.answered(member))

    def pending(self) -> dict[MemberId, bytes]:
        return dict(self._driver.node.enrolment.pending)

    def _members(self) -> Members:
        return self._driver.node.book.chain.current

    def _now_ms(self) -> int:
        return int(self._now().timestamp() * 1000)


def _revoked_by_trust(members: Members, region: str, node: str) -> str:
    found = members.region(region)
    return f"the trust file revokes node {node}" if found and node in found.revoked else ""
