"""Daemons and nodes with real certificates, for tests that speak over sockets."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from hanse.core.ids import MemberId, Segment, member_id
from hanse.core.trust.members import Member, Members, Region
from hanse.rpc import tls
from hanse.rpc.tls import Identity, Peer

FEDERATION = Segment("hansa")
REGION = Segment("eu-north")
NOW = datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Daemon:
    key: bytes
    identity: Identity

    @property
    def id(self) -> MemberId:
        return member_id(self.key)

    @property
    def peer(self) -> Peer:
        return tls.peer_of_certificate(self.identity.cert_pem)

    def listed(self, address: str) -> Member:
        return Member(REGION, self.key, self.identity.cert_pem.decode(), address)


def daemon(number: int, *, now: datetime.datetime = NOW, days: int = 30) -> Daemon:
    key = bytes([number]) * 32
    uri = tls.daemon_uri(FEDERATION, REGION, member_id(key))
    return Daemon(key, tls.issue(uri, days=days, now=now))


def two_daemons() -> tuple[Daemon, Daemon]:
    """The first has the smaller id."""
    first, second = sorted((daemon(1), daemon(2)), key=lambda d: d.id)
    return first, second


def edge_ca(name: str = "eu-north") -> Identity:
    return tls.issue(f"spiffe://{FEDERATION}/{name}/edge/ca", days=30, now=NOW, ca=True)


def node(name: str, ca: Identity, *, region: str = REGION, days: int = 30) -> Identity:
    return tls.issue(tls.edge_uri(FEDERATION, region, name), days=days, now=NOW, issuer=ca)


def members(listed: Sequence[Member], ca: Identity | None = None) -> Members:
    regions = (Region(REGION, ca.cert_pem.decode() if ca else ""),)
    return Members(FEDERATION, 1, (), 1, "seed", regions, tuple(listed), ())
