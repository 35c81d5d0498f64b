"""A daemon asks to join: what it claims, signed by the key that it claims to hold.

    DSSE {federation, region, key, tls, edge_ca, address}, signed by `key`

The signature proves possession of the key; the TLS certificate must carry the very identity
that the request claims. Whether the daemon *may* join is decided by whoever admits it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hanse.core.dsse import open_envelope, parse_envelope, sign_envelope
from hanse.core.errors import InvalidSpec, NotPermitted
from hanse.core.ids import Segment, segment
from hanse.core.reading import Reader, canonical_json, parse_json
from hanse.core.signing import SigningKey
from hanse.core.trust.members import Member, parse_key
from hanse.daemon.config import check_address
from hanse.rpc import tls

REQUEST_TYPE = "application/vnd.hanse.join-request+json"
REQUEST_BYTES_MAX = 64 * 1024
PEM_BYTES_MAX = 8192


@dataclass(frozen=True, slots=True)
class Request:
    """A daemon that wants to join, as its own key signed it."""

    federation: Segment
    member: Member
    edge_ca_pem: str


def sign_request(
    federation: Segment, member: Member, authority: tls.Identity, key: SigningKey
) -> bytes:
    payload = {
        "federation": federation,
        "region": member.region,
        "key": base64.b64encode(member.key).decode(),
        "tls": member.tls_cert_pem,
        "edge_ca": authority.cert_pem.decode(),
        "address": member.address,
    }
    return sign_envelope(REQUEST_TYPE, canonical_json(payload), [key])


def read_request(raw: bytes) -> Request:
    """Verify that whoever asks holds the key and the certificate says the same."""
    envelope = parse_envelope(raw, REQUEST_BYTES_MAX)
    if envelope.payload_type != REQUEST_TYPE:
        raise InvalidSpec(
            f"this is no join request but {envelope.payload_type}",
            fix="name the join-request.json that hanse daemon join wrote",
        )
    document = parse_json(envelope.payload, "join request", bytes_max=REQUEST_BYTES_MAX)
    with Reader(document, "request") as reader:
        region = segment(reader.text("region"), "region")
        request = Request(
            federation=segment(reader.text("federation"), "federation"),
            member=Member(
                region=region,
                key=parse_key(reader.text("key"), "request.key"),
                tls_cert_pem=_pem(reader, "tls"),
                address=check_address(reader.text("address"), "address"),
            ),
            edge_ca_pem=_pem(reader, "edge_ca"),
        )
    member = request.member
    open_envelope(raw, {member.id: member.key}, bytes_max=REQUEST_BYTES_MAX)
    _check_certificates(request)
    return request


def _check_certificates(request: Request) -> None:
    member = request.member
    peer = tls.peer_of_certificate(member.tls_cert_pem.encode())
    claimed = (peer.federation, peer.region, peer.kind, peer.name)
    if claimed != (request.federation, member.region, "daemon", member.id):
        raise NotPermitted(
            "the TLS certificate names another daemon than the request", fix="join again"
        )
    _certificate(member.tls_cert_pem, "request.tls")
    authority = _certificate(request.edge_ca_pem, "request.edge_ca")
    try:
        found = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound):
        found = False
    if not found:
        raise InvalidSpec("request.edge_ca: not the certificate of a CA", fix="join again")


def _certificate(pem: str, what: str) -> x509.Certificate:
    """Exactly one: any other in the same text would be trusted along with it."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise InvalidSpec(f"{what}: not a PEM certificate", fix="join again") from None
    if certificate.public_bytes(serialization.Encoding.PEM) != pem.encode():
        raise InvalidSpec(f"{what}: not exactly one certificate", fix="join again")
    return certificate


def _pem(reader: Reader, key: str) -> str:
    value = reader.raw(key)
    if not isinstance(value, str) or len(value) > PEM_BYTES_MAX:
        raise InvalidSpec(f"{reader.path}.{key}: expected a PEM certificate", fix="join again")
    return value
