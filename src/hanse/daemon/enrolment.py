"""A new edge node: a certificate from its region's edge CA, and whose word it obeys.

The node's name stands in the certificate, so two nodes of one name are one node to everybody.
"""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass

from hanse.core.ids import Segment, segment
from hanse.core.signing import SigningKey
from hanse.daemon.config import Config
from hanse.daemon.private_files import read_private, read_seed
from hanse.rpc import certificates, tls
from hanse.rpc.certificates import Identity


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
    """Issue a certificate. Raises `InvalidName`, `NotFound` without the CA's key."""
    name = segment(node, "node")
    authority = Identity(config.edge_ca_cert.read_bytes(), read_private(config.edge_ca_key))
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
