"""OpenSSF model signing: signatures over a model's files, made and checked by their digests.

What the `model_signing` tool of the OpenSSF writes and accepts for a key: a Sigstore bundle (v0.3)
around a DSSE envelope around an in-toto statement that lists every file with its SHA-256. No
byte of a model is read here. The keys are ECDSA on P-256, P-384 or P-521, as that format demands;
nothing in a federation is decided by them, so Hanse's one verifier stays `signing`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import exceptions
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hanse.core.dsse import pae, parse_envelope
from hanse.core.encoding import to_base64
from hanse.core.errors import InvalidProof, InvalidSignature, InvalidSpec
from hanse.core.ids import Digest
from hanse.core.limits import MODEL_SIGNATURE_BYTES_MAX, TEXT_BYTES_MAX
from hanse.core.reading import canonical_json, parse_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


@dataclass(frozen=True, slots=True)
class Signed:
    """What a verified bundle says: every file by its path below the model, and what it left out."""

    name: str
    files: Mapping[str, Digest]
    ignored: tuple[str, ...] = ()


def private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises `InvalidSpec` for what this format cannot use."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, exceptions.UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _HASHES:
        raise InvalidSpec(
            "this is no private key for model signing",
            fix="make one: openssl ecparam -genkey -name prime256v1 -noout -out model-key.pem",
        )
    return key


def public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """Raises `InvalidSpec` for what this format cannot use."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, exceptions.UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise InvalidSpec(
            "this is no public key for model signing",
            fix="take it from the private one: openssl ec -in model-key.pem -pubout",
        )
    return key


def sign_bundle(name: str, files: Mapping[str, Digest], key: ec.EllipticCurvePrivateKey) -> bytes:
    """The bundle as JSON: `key` stands for exactly these files under this name."""
    listed = sorted(files.items())
    predicate = {
        "serialization": {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": [],
        },
        "resources": [
            {"name": path, "algorithm": "sha256", "digest": digest.hex} for path, digest in listed
        ],
    }
    root = _root(digest for _, digest in listed)
    payload = canonical_json(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": root}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
        }
    )
    public = key.public_key()
    signature = key.sign(pae(PAYLOAD_TYPE, payload), ec.ECDSA(_HASHES[public.curve.name]))
    return canonical_json(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint_of(public)}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": to_base64(payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": to_base64(signature), "keyid": ""}],
            },
        }
    )


def open_bundle(raw: bytes, key: ec.EllipticCurvePublicKey) -> Signed:
    """What the holder of `key` signed. Verified first, read afterwards.

    Raises `InvalidSignature` if that key did not sign it, `InvalidProof` if what was signed does
    not agree with itself, `InvalidSpec` if it is no such bundle.
    """
    bundle = _mapping(parse_json(raw, "bundle", bytes_max=MODEL_SIGNATURE_BYTES_MAX), "bundle")
    if bundle.get("mediaType") != BUNDLE_TYPE:
        raise InvalidSpec("bundle.mediaType: no Sigstore bundle of version 0.3")
    material = _mapping(bundle.get("verificationMaterial"), "verificationMaterial")
    hint = _mapping(material.get("publicKey"), "verificationMaterial.publicKey").get("hint")
    if hint and hint != hint_of(key):
        raise InvalidSignature(
            "the bundle names another key", fix="give the public key of whoever signed it"
        )
    envelope = parse_envelope(
        canonical_json(_mapping(bundle.get("dsseEnvelope"), "dsseEnvelope")),
        MODEL_SIGNATURE_BYTES_MAX,
    )
    if envelope.payload_type != PAYLOAD_TYPE or len(envelope.signatures) != 1:
        raise InvalidSpec("dsseEnvelope: expected one signature on an in-toto statement")
    try:
        message = pae(envelope.payload_type, envelope.payload)
        key.verify(envelope.signatures[0][1], message, ec.ECDSA(_HASHES[key.curve.name]))
    except exceptions.InvalidSignature:
        raise InvalidSignature(
            "this key did not sign the bundle", fix="do not use these files: ask who signed them"
        ) from None
    return _statement(envelope.payload)


def hint_of(key: ec.EllipticCurvePublicKey) -> str:
    """How a bundle names a key: the SHA-256 of its PEM."""
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(pem).hexdigest()


def _statement(payload: bytes) -> Signed:
    said = _mapping(
        parse_json(payload, "statement", bytes_max=MODEL_SIGNATURE_BYTES_MAX), "statement"
    )
    if (said.get("_type"), said.get("predicateType")) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise InvalidSpec("statement: it is about something else than a model's files")
    subjects = said.get("subject")
    if not isinstance(subjects, list) or len(subjects) != 1:
        raise InvalidSpec("statement.subject: expected one")
    subject = _mapping(subjects[0], "statement.subject")
    predicate = _mapping(said.get("predicate"), "statement.predicate")
    how = _mapping(predicate.get("serialization"), "statement.predicate.serialization")
    if (how.get("method"), how.get("hash_type")) != ("files", "sha256"):
        raise InvalidSpec(
            "statement.predicate.serialization: only whole files by sha256 are checked here",
            fix="verify it with model_signing, or sign without shards",
        )
    files: dict[str, Digest] = {}
    for each in _list(predicate.get("resources"), "statement.predicate.resources"):
        resource = _mapping(each, "resource")
        path = _path(resource.get("name"))
        if resource.get("algorithm") != "sha256" or path in files:
            raise InvalidSpec(f"resource {path}: expected a sha256, once")
        files[path] = Digest.parse(f"sha256:{resource.get('digest')}")
    root = _mapping(subject.get("digest"), "statement.subject.digest").get("sha256")
    if root != _root(files.values()):
        raise InvalidProof("the statement's digest is not that of the files that it lists")
    left_out = _list(how.get("ignore_paths") or [], "ignore_paths")
    ignored = tuple(each for each in left_out if isinstance(each, str) and each)
    return Signed(str(subject.get("name"))[:TEXT_BYTES_MAX], files, ignored)


def _root(digests: Iterable[Digest]) -> str:
    return hashlib.sha256(b"".join(digest.raw for digest in digests)).hexdigest()


def _path(value: object) -> str:
    """A relative path that stays below its folder (T28)."""
    if not isinstance(value, str) or not 0 < len(value.encode()) <= TEXT_BYTES_MAX:
        raise InvalidSpec("a name of a file is missing or too long")
    if {"", ".", ".."} & set(value.split("/")) or not value.isprintable() or "\\" in value:
        raise InvalidSpec(f"{value[:80]!r} does not name a file below the model's folder")
    return value


def _mapping(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidSpec(f"{path}: expected a JSON object")
    return value


def _list(value: object, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidSpec(f"{path}: expected a list")
    return value
