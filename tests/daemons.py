"""Daemons and nodes with real certificates, for tests that speak over sockets."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hanse.core.ids import MemberId, Segment, member_id
from hanse.core.trust.members import Member, Members, Region
from hanse.rpc import certificates, tls
from hanse.rpc.certificates import Identity, from_now
from hanse.rpc.doorkeeper import Doorkeeper, Known
from hanse.rpc.tls import Peer

FEDERATION = Segment("hansa")
REGION = Segment("eu-north")
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Daemon:
    """`authority` is what the members file pins, `identity` what it has issued."""

    key: bytes
    authority: Identity
    identity: Identity

    @property
    def id(self) -> MemberId:
        return member_id(self.key)

    @property
    def peer(self) -> Peer:
        return tls.peer_of_certificate(self.authority.cert_pem)

    def listed(self, address: str) -> Member:
        return Member(REGION, self.key, self.authority.cert_pem.decode(), address)

    def shown(self) -> Identity:
        return self.identity

    def renewed(self, now: datetime.datetime, days: int = 30) -> Identity:
        """Another certificate by the same authority."""
        uri = certificates.daemon_uri(FEDERATION, REGION, self.id)
        return certificates.issue(uri, self.authority, from_now(now, days * DAY))


def daemon(number: int, *, federation: str = FEDERATION) -> Daemon:
    key = bytes([number]) * 32
    name = member_id(key)
    uri = certificates.daemon_uri(federation, REGION, name)
    authority = certificates.authority(uri, (NOW - 90 * DAY, NOW + 90 * DAY), f"daemon-{name}")
    return Daemon(key, authority, certificates.issue(uri, authority, from_now(NOW, 30 * DAY)))


def two_daemons() -> tuple[Daemon, Daemon]:
    """The first has the smaller id."""
    first, second = sorted((daemon(1), daemon(2)), key=lambda d: d.id)
    return first, second


def edge_ca(name: str = "eu-north") -> Identity:
    uri = f"spiffe://{FEDERATION}/{name}/edge-ca/ca-{name}"
    return certificates.authority(uri, from_now(NOW, 30 * DAY), f"ca-{name}")


def node(name: str, ca: Identity, *, region: str = REGION, days: int = 30) -> Identity:
    uri = certificates.edge_uri(FEDERATION, region, name)
    return certificates.issue(uri, ca, from_now(NOW, days * DAY))


def members(listed: Sequence[Member], ca: Identity | None = None, **others: Identity) -> Members:
    """With more regions by name and CA; `_` stands for `-`."""
    regions = [Region(REGION, ca.cert_pem.decode() if ca else "")]
    regions += [
        Region(Segment(n.replace("_", "-")), o.cert_pem.decode()) for n, o in others.items()
    ]
    return Members(FEDERATION, 1, (), 1, "seed", tuple(regions), tuple(listed), ())


def doorkeeper(known: Callable[[], Members]) -> Doorkeeper:
    return Doorkeeper(Known(known))
