"""Mutual TLS, pinned: membership comes from the trust file, never from a CA alone.

A daemon's certificate is self-signed and listed in the members file; a client trusts exactly
the one certificate of the member it means to reach. An edge node's certificate is issued by
its region's edge CA. Identities are SPIFFE-like URIs in the subject alternative name:

    spiffe://<federation>/<region>/daemon/<member id>
    spiffe://<federation>/<region>/edge/<node>

gRPC in Python cannot set the minimum TLS version, so servers read `ssl_tls_version` after
the handshake and refuse anything below 1.3 (T43). Peers never use compression (T24).
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hanse.core import limits
from hanse.core.errors import NotPermitted
from hanse.core.ids import MemberId, Segment, parse_member_id, segment
from hanse.core.trust.members import Member, Members

SERVER_NAME = "hanse"  # the one DNS name in every certificate; identity is the URI
_NO_COMPRESSION = ("grpc.compression_enabled_algorithms_bitset", 1)
CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    _NO_COMPRESSION,
    ("grpc.max_receive_message_length", limits.BLOB_CHUNK_BYTES + 64 * 1024),
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
class Identity:
    """A certificate and its private key, both PEM."""

    cert_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return f"Identity(spki={spki_hash(self.cert_pem).hex()[:12]})"


@dataclass(frozen=True, slots=True)
class Peer:
    """Whoever stands at the other end of a connection, as its certificate proves."""

    federation: Segment
    region: Segment
    kind: str  # daemon | edge
    name: str  # member id | node name
    spki: bytes
    cert_pem: bytes = field(default=b"", repr=False, compare=False)


def open_channel(address: str, identity: Identity, server_cert_pem: bytes) -> grpc.aio.Channel:
    """A channel that reaches this one certificate or nobody."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=server_cert_pem,
        private_key=identity.key_pem,
        certificate_chain=identity.cert_pem,
    )
    return grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS)


def server_credentials(
    identity: Identity, accepted: Callable[[], Sequence[bytes]]
) -> grpc.ServerCredentials:
    """Credentials that demand a client certificate and re-read who is accepted.

    `accepted` returns the PEM certificates of members and edge CAs; it is asked again at
    each handshake, so that a member added or removed needs no restart.
    """
    last: list[bytes] = []

    def configuration(roots: bytes) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(identity.key_pem, identity.cert_pem)], root_certificates=roots
        )

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        roots = b"".join(accepted())
        if last and last[0] == roots:
            return None
        last[:] = [roots]
        return configuration(roots)

    first = b"".join(accepted())
    return grpc.dynamic_ssl_server_credentials(
        configuration(first),
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


def peer_of_certificate(pem: bytes) -> Peer:
    """The one identity that this certificate claims. Raises `NotPermitted`, `InvalidName`."""
    certificate = _load(pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        raise NotPermitted("the certificate names nobody", fix="enrol again") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    parts = uris[0].removeprefix("spiffe://").split("/") if len(uris) == 1 else []
    if len(parts) != 4 or parts[2] not in ("daemon", "edge"):
        raise NotPermitted("the certificate does not carry one Hanse identity", fix="enrol again")
    name = parse_member_id(parts[3]) if parts[2] == "daemon" else segment(parts[3], "node")
    return Peer(segment(parts[0]), segment(parts[1]), parts[2], name, spki_hash(pem), pem)


def verify_edge_certificate(
    pem: bytes, edge_ca_pem: bytes, *, now: datetime.datetime | None = None
) -> None:
    """Raises `NotPermitted` unless this CA issued the certificate and both are in date.

    The TLS layer accepts whatever any listed CA or member has signed, so that alone does not
    say whose node this is: a region's CA could name a node of another region.
    """
    certificate, authority = _load(pem), _load(edge_ca_pem)
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise NotPermitted(
            "this region's edge CA did not issue the certificate", fix="enrol the node here"
        ) from None
    for each in (pem, edge_ca_pem):
        check_dates(each, now=now)


def check_dates(pem: bytes, *, now: datetime.datetime | None = None) -> None:
    """Raises `NotPermitted` unless the certificate is in date."""
    moment, certificate = now or datetime.datetime.now(datetime.UTC), _load(pem)
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        raise NotPermitted(
            f"a certificate is valid from {certificate.not_valid_before_utc} "
            f"to {certificate.not_valid_after_utc}, not now",
            fix="enrol the node again, or set its clock",
        )


def check_member(peer: Peer, members: Members) -> Member:
    """The member that this peer is, by the pinned key and not by what it calls itself.

    Raises `NotPermitted`.
    """
    member = members.member(MemberId(peer.name)) if peer.kind == "daemon" else None
    if (
        member is None
        or (peer.federation, peer.region) != (members.federation, member.region)
        or peer.spki != spki_hash(member.tls_cert_pem.encode())
    ):
        raise NotPermitted(
            f"{peer.kind} {peer.name} of {peer.region} is no member under trust version "
            f"{members.version}",
            fix="add it to the members file, or bring this daemon's trust up to date",
        )
    return member


def check_known(peer: Peer, members: Members) -> None:
    """A member, or a node that the edge CA of the region it names has enrolled.

    TLS accepts the CA of every region, so the certificate must be held against its own:
    otherwise one region's CA could speak for a node of another (T35). Raises `NotPermitted`.
    """
    if peer.kind == "daemon":
        check_member(peer, members)
        return
    region = members.region(peer.region)
    if region is None or peer.federation != members.federation:
        raise NotPermitted(f"there is no region {peer.region} here", fix="enrol the node again")
    verify_edge_certificate(peer.cert_pem, region.edge_ca_pem.encode())


def _load(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise NotPermitted("the certificate cannot be read", fix="enrol again") from None


def spki_hash(cert_pem: bytes) -> bytes:
    """SHA-256 of the certificate's SubjectPublicKeyInfo (DER)."""
    key = _load(cert_pem).public_key()
    return hashlib.sha256(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ).digest()


def issue(
    uri: str,
    *,
    days: int,
    now: datetime.datetime,
    issuer: Identity | None = None,
    ca: bool = False,
) -> Identity:
    """Make a key and a certificate for `uri`: self-signed, or signed by `issuer`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, uri.rsplit("/", 1)[-1][:64])])
    issuer_name, signing_key = subject, key
    if issuer is not None:
        issuer_name = x509.load_pem_x509_certificate(issuer.cert_pem).subject
        loaded = serialization.load_pem_private_key(issuer.key_pem, password=None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signing_key = loaded
    names: list[x509.GeneralName] = [
        x509.DNSName(SERVER_NAME),
        x509.UniformResourceIdentifier(uri),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        # TLS looks an issuer up by its name; only these tell two CAs of one name apart.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
            critical=False,
        )
        .sign(signing_key, hashes.SHA256())
    )
    return Identity(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def daemon_uri(federation: str, region: str, member: str) -> str:
    return f"spiffe://{federation}/{region}/daemon/{member}"


def edge_uri(federation: str, region: str, node: str) -> str:
    return f"spiffe://{federation}/{region}/edge/{node}"
