"""Making certificates: who vouches for whom, and for how long.

    a member's own authority   ten years, pinned by the members file  -> the daemon, 7 days
    a region's edge CA         ten years, listed by the members file  -> a node, 7 days
    a token's key              as long as the token                   -> whoever spends it

Members, regions and tokens are known by the authority; what it has issued comes and goes without
anybody being told. Keys are P-256: BoringSSL takes no Ed25519 certificates.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hanse.core import limits
from hanse.core.errors import InvalidSpec, NotPermitted, TooLarge

SERVER_NAME = "hanse"  # the one DNS name in every certificate but a node's; identity is the URI
NODE_NAME = "hanse-node"  # so that no node is taken for a daemon, whichever authority is trusted
LIFE = datetime.timedelta(days=7)
AUTHORITY_LIFE = datetime.timedelta(days=3650)
CLOCKS_APART = datetime.timedelta(days=1)  # an issuer's clock may be this much ahead of a reader's
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

# What the library raises for certificates that are none; not all of it is a ValueError.
UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

Span = tuple[datetime.datetime, datetime.datetime]


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key, both PEM."""

    cert_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return f"Identity(spki={spki_hash(self.cert_pem).hex()[:12]})"


def from_now(now: datetime.datetime, life: datetime.timedelta) -> Span:
    """From a little before `now`, since clocks differ, until `life` later."""
    return now - min(CLOCKS_APART, life / 7), now + life


def authority(
    uri: str, span: Span, name: str, key: ec.EllipticCurvePrivateKey | None = None
) -> Identity:
    """A self-signed certificate that issues others. TLS finds it by `name`: no two alike."""
    key = key or _new_key()
    subject = _subject(name)
    pem = _sign(uri, subject, key.public_key(), subject, key, span, ca=True)
    return Identity(pem, _private_pem(key))


def issue(uri: str, issuer: Identity, span: Span) -> Identity:
    """A new key and its certificate."""
    key = _new_key()
    return Identity(_issue(uri, key.public_key(), issuer, span), _private_pem(key))


def certify(uri: str, request: bytes, issuer: Identity, span: Span) -> bytes:
    """A certificate, PEM, for the key of a signing request that was read with `requested_key`."""
    return _issue(uri, _requested(request), issuer, span)


def request(key_pem: bytes) -> bytes:
    """A signing request (PKCS #10, DER) by this key. It names nobody: the daemon decides that."""
    key = _load_key(key_pem)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def requested_key(der: bytes) -> bytes:
    """SHA-256 of the public key in a signing request, whose holder has signed it.

    Raises `TooLarge`, `InvalidSpec`.
    """
    return _hash(_requested(der))


def new_key_pem() -> bytes:
    return _private_pem(_new_key())


def token_authority(
    secret: bytes, federation: str, region: str, until: datetime.datetime
) -> tuple[str, Identity]:
    """The id and the authority of a token: whoever has the secret makes the same key.

    The dates come from the token, so that the clock of the node does not matter.
    """
    seed = HKDF(hashes.SHA256(), 48, None, b"hanse-token/v1\n").derive(secret)
    number = int.from_bytes(seed) % (_P256_ORDER - 1) + 1
    key = ec.derive_private_key(number, ec.SECP256R1())
    token = _hash(key.public_key()).hex()[:32]
    span = (until - 2 * CLOCKS_APART, until)
    return token, authority(token_uri(federation, region, token), span, f"token-{token}", key)


def span_of(cert_pem: bytes) -> Span:
    """From when until when the certificate is valid. Raises `NotPermitted`."""
    certificate = load(cert_pem)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def load(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except UNREADABLE:
        raise NotPermitted("the certificate cannot be read", fix="enrol again") from None


def is_issued_by(pem: bytes, issuer_pem: bytes) -> bool:
    """Whether this very authority has signed the certificate, whatever the dates."""
    try:
        load(pem).verify_directly_issued_by(load(issuer_pem))
    except (TypeError, InvalidSignature, *UNREADABLE):
        return False
    return True


def serial_number(pem: bytes) -> str:
    """Lower-case hex without leading zeros: how a trust file names one certificate."""
    return f"{load(pem).serial_number:x}"


def is_authority(pem: bytes) -> bool:
    try:
        found = load(pem).extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, *UNREADABLE):
        return False
    return found.value.ca


def spki_hash(cert_pem: bytes) -> bytes:
    """SHA-256 of the certificate's SubjectPublicKeyInfo (DER). Raises `NotPermitted`."""
    try:
        return _hash(load(cert_pem).public_key())
    except UNREADABLE:
        raise NotPermitted("the certificate's key cannot be read", fix="enrol again") from None


def to_der(cert_pem: bytes) -> bytes:
    return load(cert_pem).public_bytes(serialization.Encoding.DER)


def to_pem(cert_der: bytes) -> bytes:
    """Raises `InvalidSpec`."""
    try:
        return x509.load_der_x509_certificate(cert_der).public_bytes(serialization.Encoding.PEM)
    except UNREADABLE:
        raise InvalidSpec("the certificate cannot be read") from None


def _issue(uri: str, key: ec.EllipticCurvePublicKey, issuer: Identity, span: Span) -> bytes:
    signer = _load_key(issuer.key_pem)
    subject = _subject(uri.rsplit("/", 1)[-1])
    return _sign(uri, subject, key, load(issuer.cert_pem).subject, signer, span, ca=False)


def _sign(
    uri: str,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    span: Span,
    *,
    ca: bool,
) -> bytes:
    shown = NODE_NAME if "/edge/" in uri else SERVER_NAME
    names = [x509.DNSName(shown), x509.UniformResourceIdentifier(uri)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(span[0])
        .not_valid_after(span[1])
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(_usage(ca=ca), critical=True)
        # TLS looks an issuer up by its name; only these tell two authorities of one name apart.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if not ca:
        builder = builder.add_extension(_purposes(uri), critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _purposes(uri: str) -> x509.ExtendedKeyUsage:
    """Daemons serve members and nodes, a node its neighbours; whoever brings a token only calls."""
    server = [] if "/token/" in uri else [ExtendedKeyUsageOID.SERVER_AUTH]
    return x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, *server])


def _requested(der: bytes) -> ec.EllipticCurvePublicKey:
    if len(der) > limits.CSR_BYTES_MAX:
        raise TooLarge(f"a signing request has at most {limits.CSR_BYTES_MAX} bytes")
    try:
        asked = x509.load_der_x509_csr(der)
        key = asked.public_key()
        signed = asked.is_signature_valid
    except Exception:  # the library says "unsupported" and "invalid" by many classes
        raise InvalidSpec("the signing request cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise InvalidSpec("the key of a node is a P-256 key", fix="let hanse make it")
    if not signed:
        raise InvalidSpec("the signing request is not signed by its own key")
    return key


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _hash(key: object) -> bytes:
    return hashlib.sha256(
        key.public_bytes(  # type: ignore[attr-defined]  # every public key has it
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ).digest()


def daemon_uri(federation: str, region: str, member: str) -> str:
    return f"spiffe://{federation}/{region}/daemon/{member}"


def edge_uri(federation: str, region: str, node: str) -> str:
    return f"spiffe://{federation}/{region}/edge/{node}"


def token_uri(federation: str, region: str, token: str) -> str:
    return f"spiffe://{federation}/{region}/token/{token}"
