"""Mutual TLS, pinned: membership comes from the trust file, never from a CA alone.

Each member has an authority of its own, which the members file pins; a client trusts exactly the
one authority of the member it means to reach. An edge node's certificate is issued by its
region's edge CA. Identities are SPIFFE-like URIs in the subject alternative name:

    spiffe://<federation>/<region>/daemon/<member id>
    spiffe://<federation>/<region>/edge/<node>
    spiffe://<federation>/<region>/token/<token id>      whoever is about to enrol

gRPC in Python cannot set the minimum TLS version, so servers read `ssl_tls_version` after
the handshake and refuse anything below 1.3 (T43). Peers never use compression (T24).
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import grpc
from cryptography import x509

from hanse.core import limits
from hanse.core.errors import NotPermitted
from hanse.core.ids import MemberId, Segment, parse_member_id, segment
from hanse.core.trust.members import Member, Members
from hanse.rpc.certificates import (
    NODE_NAME,
    SERVER_NAME,
    UNREADABLE,
    Identity,
    is_issued_by,
    load,
    span_of,
    spki_hash,
)

KINDS = ("daemon", "edge", "token")
_PROVED_MAX = limits.NODES_MAX + 1_000
_NO_COMPRESSION = ("grpc.compression_enabled_algorithms_bitset", 1)
CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    _NO_COMPRESSION,
    ("grpc.max_receive_message_length", limits.BLOB_CHUNK_BYTES + 64 * 1024),
    # What a peer may send of a stream before we have read it. Left to itself the window grows with
    # the line, and a slow disk then has us hold hundreds of MiB (measured); at a round trip of
    # 100 ms this much still is 40 MB/s.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4 * limits.BLOB_CHUNK_BYTES),
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
]
SERVER_OPTIONS: list[tuple[str, int | str]] = [
    _NO_COMPRESSION,
    ("grpc.max_receive_message_length", limits.FRAME_BYTES_MAX + 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.server_handshake_timeout_ms", int(limits.HANDSHAKE_S * 1000)),
    ("grpc.max_allowed_incoming_connections", limits.CONNECTIONS_MAX),
    ("grpc.max_concurrent_streams", limits.STREAMS_PER_CONNECTION_MAX),
    ("grpc.http2.max_ping_strikes", 2),
    # gRPC spreads the age by a tenth by itself. Each new connection is a new handshake, and so
    # a new look at who is accepted.
    ("grpc.max_connection_age_ms", int(limits.CONNECTION_AGE_S * 1000)),
    ("grpc.max_connection_age_grace_ms", int(limits.CONNECTION_GRACE_S * 1000)),
    # A peer whose machine has gone without a word must not hold its connection until then.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]


@dataclass(frozen=True, slots=True)
class Peer:
    """Whoever stands at the other end of a connection, as its certificate proves."""

    federation: Segment
    region: Segment
    kind: str  # one of `KINDS`
    name: str  # member id | node name | token id
    spki: bytes
    cert_pem: bytes = field(default=b"", repr=False, compare=False)


def open_channel(
    address: str, identity: Identity, authority_pem: bytes, name: str = SERVER_NAME
) -> grpc.aio.Channel:
    """A channel that reaches whoever this one authority vouches for by this name, or nobody."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=authority_pem,
        private_key=identity.key_pem,
        certificate_chain=identity.cert_pem,
    )
    options = dict(CHANNEL_OPTIONS) | {"grpc.ssl_target_name_override": name}
    if name == NODE_NAME:  # who cannot be reached is given up after 3 s, not 20: there are more
        options["grpc.min_reconnect_backoff_ms"] = 3_000
    return grpc.aio.secure_channel(address, credentials, options=list(options.items()))


def server_credentials(
    identity: Callable[[], Identity], accepted: Callable[[], Sequence[bytes]]
) -> grpc.ServerCredentials:
    """Credentials that demand a client certificate.

    Both are asked again at each handshake, from a thread of gRPC's: `identity` for what to show
    and `accepted` for the PEM authorities whose certificates may come in. A member that is added
    or removed and a certificate that is renewed need no restart.
    """
    last: list[tuple[Identity, bytes]] = []

    def configuration(shown: Identity, roots: bytes) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(shown.key_pem, shown.cert_pem)], root_certificates=roots
        )

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        now = (identity(), b"".join(accepted()))
        if last and last[0] == now:
            return None
        last[:] = [now]
        return configuration(*now)

    return grpc.dynamic_ssl_server_credentials(
        configuration(identity(), b"".join(accepted())),
        fetch,  # type: ignore[arg-type]  # grpc documents None as "unchanged", its stub does not
        require_client_authentication=True,
    )


def certificate_of(context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    """The caller's certificate, PEM. Raises `NotPermitted`, also where a fact is missing."""
    auth = context.auth_context()
    versions = list(auth.get("ssl_tls_version", ()))
    if versions != [b"TLSv1.3"]:
        spoken = versions[0].decode() if versions else "no TLS"
        raise NotPermitted(f"the caller speaks {spoken}, not TLS 1.3", fix="upgrade the client")
    pems = list(auth.get("x509_pem_cert", ()))
    if len(pems) != 1:
        raise NotPermitted("no client certificate", fix="enrol this node or daemon first")
    return pems[0]


def peer_of(context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
    """Read the caller's identity from its certificate. Raises `NotPermitted`."""
    return peer_of_certificate(certificate_of(context))


@lru_cache(maxsize=_PROVED_MAX)
def peer_of_certificate(pem: bytes) -> Peer:
    """The one identity that this certificate claims. Raises `NotPermitted`, `InvalidName`."""
    certificate = load(pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        raise NotPermitted("the certificate names nobody", fix="enrol again") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    parts = uris[0].removeprefix("spiffe://").split("/") if len(uris) == 1 else []
    if len(parts) != 4 or parts[2] not in KINDS:
        raise NotPermitted("the certificate does not carry one Hanse identity", fix="enrol again")
    name = parse_member_id(parts[3]) if parts[2] == "daemon" else segment(parts[3], "node")
    return Peer(segment(parts[0]), segment(parts[1]), parts[2], name, spki_hash(pem), pem)


def check_issued(
    pem: bytes, authority_pem: bytes, *, now: datetime.datetime | None = None
) -> datetime.datetime:
    """Until when both are in date, if this authority has issued the certificate.

    The TLS layer accepts whatever any listed authority has signed, so that alone does not say
    whose certificate it is: a region's CA could name a node of another. Raises `NotPermitted`.
    """
    if not _is_issued_by(pem, authority_pem):
        raise NotPermitted(
            "the certificate was not issued by the authority of whom it names",
            fix="enrol again, with that region's daemon",
        )
    for each in (pem, authority_pem):
        check_dates(each, now=now)
    return min(_span(pem)[1], _span(authority_pem)[1])


def check_dates(pem: bytes, *, now: datetime.datetime | None = None) -> None:
    """Raises `NotPermitted` unless the certificate is in date."""
    moment, (since, until) = now or datetime.datetime.now(datetime.UTC), _span(pem)
    if not since <= moment <= until:
        raise NotPermitted(
            f"a certificate is valid from {since} to {until}, not now",
            fix="enrol the node again, or set its clock",
        )


# A signature stands, or does not, for ever; to look takes a tenth of a millisecond.
_is_issued_by = lru_cache(maxsize=_PROVED_MAX)(is_issued_by)
_span = lru_cache(maxsize=2 * _PROVED_MAX)(span_of)


def listed(peer: Peer, members: Members) -> Member:
    """The member that this peer says it is. Raises `NotPermitted`."""
    member = members.member(MemberId(peer.name)) if peer.kind == "daemon" else None
    if member is None or (peer.federation, peer.region) != (members.federation, member.region):
        raise NotPermitted(
            f"{peer.kind} {peer.name} of {peer.region} is no member under trust version "
            f"{members.version}",
            fix="add it to the members file, or bring this daemon's trust up to date",
        )
    return member


def check_member(peer: Peer, members: Members) -> Member:
    """The member that this peer is: whom its own pinned authority vouches for, and nobody else.

    Raises `NotPermitted`.
    """
    member = listed(peer, members)
    check_issued(peer.cert_pem, member.tls_cert_pem.encode())
    return member


def pinned_peer(member: Member) -> Peer:
    """The member as both ends of a link name it: by its authority, which renewal leaves alone."""
    return peer_of_certificate(member.tls_cert_pem.encode())


def authority_of(peer: Peer, members: Members) -> bytes:
    """The authority, PEM, that alone may have issued the certificate of this daemon or node.

    TLS accepts the CA of every region, so the certificate must be held against its own:
    otherwise one region's CA could speak for a node of another (T35). Raises `NotPermitted`.
    """
    if peer.kind == "daemon":
        return listed(peer, members).tls_cert_pem.encode()
    region = members.region(peer.region) if peer.kind == "edge" else None
    if region is None or peer.federation != members.federation:
        raise NotPermitted(f"there is no region {peer.region} here", fix="enrol the node again")
    return region.edge_ca_pem.encode()


def check_known(peer: Peer, members: Members) -> None:
    """A member, or a node that the edge CA of the region it names has enrolled."""
    check_issued(peer.cert_pem, authority_of(peer, members))
