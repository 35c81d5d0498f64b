"""A new edge node: a certificate from its region's edge CA, and whose word it obeys.

The node's name stands in the certificate, so two nodes of one name are one node to everybody.
Thirty days, because nothing revokes an edge certificate: what is lost stops by itself.
"""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass

from hanse.core.ids import Segment, segment
from hanse.core.signing import SigningKey
from hanse.daemon.config import Config
from hanse.daemon.private_files import read_private, read_seed
from hanse.rpc import tls

EDGE_DAYS = 30


@dataclass(frozen=True, slots=True)
class Enrolment:
    """All that a node needs to know to speak with its daemon and nobody else."""

    node: Segment
    federation: Segment
    region: Segment
    identity: tls.Identity
    daemon_address: str
    daemon_cert_pem: bytes
    daemon_key: str  # public, base64
    until: datetime.datetime


def enrol(config: Config, node: str, now: datetime.datetime) -> Enrolment:
    """Issue a certificate. Raises `InvalidName`, `NotFound` without the CA's key."""
    name = segment(node, "node")
    authority = tls.Identity(config.edge_ca_cert.read_bytes(), read_private(config.edge_ca_key))
    uri = tls.edge_uri(config.federation, config.region, name)
    identity = tls.issue(uri, days=EDGE_DAYS, now=now, issuer=authority)
    tls.verify_edge_certificate(identity.cert_pem, authority.cert_pem, now=now)
    return Enrolment(
        node=name,
        federation=config.federation,
        region=config.region,
        identity=identity,
        daemon_address=config.advertise,
        daemon_cert_pem=config.tls_cert.read_bytes(),
        daemon_key=base64.b64encode(SigningKey(read_seed(config.daemon_key)).public).decode(),
        until=now + datetime.timedelta(days=EDGE_DAYS),
    )
