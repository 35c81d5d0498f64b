"""A daemon asks to join: what it claims, signed by the key that it claims to hold.

    DSSE {federation, region, key, witness, tls, edge_ca, address}, signed by both keys

The signatures prove possession of both keys; the TLS certificate must carry the very identity
that the request claims. Whether the daemon *may* join is decided by whoever admits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hanse.core.dsse import open_envelope, parse_envelope, sign_envelope
from hanse.core.encoding import to_base64
from hanse.core.errors import InvalidSignature, InvalidSpec, NotPermitted, Rejected
from hanse.core.ids import Segment, check_address, member_id, segment
from hanse.core.limits import JOIN_REQUEST_BYTES_MAX
from hanse.core.reading import Reader, canonical_json, parse_json
from hanse.core.signing import SigningKey
from hanse.core.trust.documents import parse_key
from hanse.core.trust.members import Member
from hanse.rpc import certificates, tls

REQUEST_TYPE = "application/vnd.hanse.join-request+json"
PEM_BYTES_MAX = 8192


@dataclass(frozen=True, slots=True)
class Request:
    """A daemon that wants to join, as its own key signed it."""

    federation: Segment
    member: Member
    edge_ca_pem: str


def sign_request(
    federation: Segment,
    member: Member,
    authority: certificates.Identity,
    keys: Sequence[SigningKey],
) -> bytes:
    """The request of `member`, signed by its daemon key and its witness key."""
    payload = {
        "federation": federation,
        "region": member.region,
        "key": to_base64(member.key),
        "witness": to_base64(member.witness_key or b""),
        "tls": member.tls_cert_pem,
        "edge_ca": authority.cert_pem.decode(),
        "address": member.address,
    }
    return sign_envelope(REQUEST_TYPE, canonical_json(payload), keys)


def read_request(raw: bytes) -> Request:
    """Verify that whoever asks holds the key and the certificate says the same."""
    envelope = parse_envelope(raw, JOIN_REQUEST_BYTES_MAX)
    if envelope.payload_type != REQUEST_TYPE:
        raise InvalidSpec(
            f"this is no join request but {envelope.payload_type}",
            fix="name the join-request.json that hanse daemon join wrote",
        )
    document = parse_json(envelope.payload, "join request", bytes_max=JOIN_REQUEST_BYTES_MAX)
    with Reader(document, "request") as reader:
        region = segment(reader.text("region"), "region")
        request = Request(
            federation=segment(reader.text("federation"), "federation"),
            member=Member(
                region=region,
                key=parse_key(reader.text("key"), "request.key"),
                tls_cert_pem=_pem(reader, "tls"),
                address=check_address(reader.text("address"), "address"),
                witness_key=parse_key(reader.text("witness"), "request.witness"),
            ),
            edge_ca_pem=_pem(reader, "edge_ca"),
        )
    member = request.member
    asked = {member_id(key): key for key in (member.key, member.witness_key) if key}
    _, proven = open_envelope(raw, asked, bytes_max=JOIN_REQUEST_BYTES_MAX)
    if len(proven) != 2:
        raise InvalidSignature("the request is not signed by two keys of its own", fix="join again")
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
    _check_authority(member.tls_cert_pem, "request.tls")
    _check_authority(request.edge_ca_pem, "request.edge_ca")


def _check_authority(pem: str, what: str) -> None:
    """Exactly one certificate, of a CA: any other in the same text would be trusted with it."""
    try:
        whole = certificates.to_pem(certificates.to_der(pem.encode())) == pem.encode()
    except Rejected:
        raise InvalidSpec(f"{what}: not a PEM certificate", fix="join again") from None
    if not whole:
        raise InvalidSpec(f"{what}: not exactly one certificate", fix="join again")
    if not certificates.is_authority(pem.encode()):
        raise InvalidSpec(f"{what}: not the certificate of a CA", fix="join again")


def _pem(reader: Reader, key: str) -> str:
    value = reader.raw(key)
    if not isinstance(value, str) or len(value) > PEM_BYTES_MAX:
        raise InvalidSpec(f"{reader.path}.{key}: expected a PEM certificate", fix="join again")
    return value
