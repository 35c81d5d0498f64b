"""DSSE envelopes (v1): one payload, signed by the people or machines that stand for it.

    {"payload": base64, "payloadType": text, "signatures": [{"keyid": member id, "sig": base64}]}

A threshold counts distinct keys (T18): three signatures by one key are one, and so is one
key listed under two ids. The payload that was verified is the payload that is returned;
only then may anybody decode it. `keyid` narrows the search for the key and proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hanse.core import signing
from hanse.core.encoding import strict_base64, to_base64
from hanse.core.errors import Conflict, InvalidSignature, InvalidSpec, TooLarge
from hanse.core.ids import MemberId, member_id
from hanse.core.limits import EVENT_BYTES_MAX, NOTE_SIGNATURES_MAX
from hanse.core.reading import canonical_json, parse_json
from hanse.core.signing import SigningKey

# A media type or URI; printable ASCII also keeps lone surrogates out of what is signed.
_PAYLOAD_TYPE = re.compile(r"[\x21-\x7e]{1,256}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope as read; `open_envelope` says who signed it."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]
    """(keyid as written, signature bytes), the unverified ones among them."""


def pae(payload_type: str, payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding of type and payload."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_envelope(payload_type: str, payload: bytes, keys: Sequence[SigningKey]) -> bytes:
    """The envelope as JSON, signed by every key in turn. Raises `InvalidSpec`."""
    _require_payload_type(payload_type)
    if not 1 <= len(keys) <= NOTE_SIGNATURES_MAX:
        raise InvalidSpec(f"an envelope has 1 to {NOTE_SIGNATURES_MAX} signatures, not {len(keys)}")
    message = pae(payload_type, payload)
    signatures = [
        {"keyid": member_id(key.public), "sig": to_base64(key.sign(message))} for key in keys
    ]
    return canonical_json(
        {"payload": to_base64(payload), "payloadType": payload_type, "signatures": signatures}
    )


def join(envelopes: Sequence[bytes]) -> bytes:
    """One envelope with the signatures of all. Raises `Conflict` unless they sign the same."""
    if len(envelopes) == 1:
        return envelopes[0]
    parsed = [parse_envelope(raw, EVENT_BYTES_MAX) for raw in envelopes]
    if len({(each.payload_type, each.payload) for each in parsed}) != 1:
        raise Conflict("these envelopes do not sign the same", fix="sign copies of one draft")
    signatures = dict.fromkeys(pair for each in parsed for pair in each.signatures)
    return canonical_json(
        {
            "payload": to_base64(parsed[0].payload),
            "payloadType": parsed[0].payload_type,
            "signatures": [{"keyid": k, "sig": to_base64(sig)} for k, sig in signatures],
        }
    )


def open_envelope(
    raw: bytes, keys: Mapping[MemberId, bytes], *, bytes_max: int = EVENT_BYTES_MAX
) -> tuple[Envelope, frozenset[MemberId]]:
    """The envelope and the distinct members among `keys` whose signatures verify.

    `keys` maps each id to a raw public key. The ids returned are computed from the keys, so
    their number is the number of distinct keys. As DSSE has it, signatures that fail or name
    no known key are passed over. Raises `InvalidSignature` if none is left, `InvalidSpec`
    if the bytes are no envelope, `TooLarge` above `bytes_max`.
    """
    envelope = parse_envelope(raw, bytes_max)
    message = pae(envelope.payload_type, envelope.payload)
    signers = set()
    for keyid, signature in envelope.signatures:
        public = keys.get(MemberId(keyid))
        if public is not None and _stands(public, signature, message):
            signers.add(member_id(public))
    if not signers:
        raise InvalidSignature(
            "no key that may sign this envelope has signed it",
            fix="sign it with a key that the trust file lists for this role",
        )
    return envelope, frozenset(signers)


def _stands(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        signing.verify(public, signature, message)
    except InvalidSignature:
        return False
    return True


def parse_envelope(raw: bytes, bytes_max: int) -> Envelope:
    """Fields that DSSE does not define are ignored, as it demands; nothing vouches for them."""
    fields = parse_json(raw, "the DSSE envelope", bytes_max=bytes_max)
    if not isinstance(fields, dict):
        raise InvalidSpec("a DSSE envelope is a JSON object")
    payload_type = _text(fields, "payloadType")
    _require_payload_type(payload_type)
    signatures = fields.get("signatures")
    if not isinstance(signatures, list) or not signatures:
        raise InvalidSpec("signatures: expected a list with at least one signature")
    if len(signatures) > NOTE_SIGNATURES_MAX:
        raise TooLarge(
            f"the envelope has {len(signatures)} signatures",
            fix=f"keep at most {NOTE_SIGNATURES_MAX}",
        )
    return Envelope(payload_type, _base64(fields, "payload"), tuple(map(_signature, signatures)))


def _signature(value: object) -> tuple[str, bytes]:
    if not isinstance(value, dict):
        raise InvalidSpec("signatures: expected objects with keyid and sig")
    keyid = _text(value, "keyid") if "keyid" in value else ""
    return keyid, _base64(value, "sig")


def _text(fields: Mapping[str, object], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise InvalidSpec(f"{key}: expected a text")
    return value


def _base64(fields: Mapping[str, object], key: str) -> bytes:
    """DSSE demands that both alphabets are read, the standard and the URL-safe one."""
    text = _text(fields, key)
    data = strict_base64(text)
    if data is None and not ("+" in text or "/" in text):
        data = strict_base64(text.replace("-", "+").replace("_", "/"))
    if data is None:
        raise InvalidSpec(f"{key}: expected base64 with its padding")
    return data


def _require_payload_type(payload_type: str) -> None:
    if not _PAYLOAD_TYPE.fullmatch(payload_type):
        raise InvalidSpec(
            f"payloadType {payload_type[:80]!r} is not a media type or URI",
            fix="use 1 to 256 printable ASCII characters, such as application/vnd.in-toto+json",
        )
