"""The token: what a person carries from a daemon to a machine that is to be enrolled.

    hanse1.<base64url of canonical JSON>.<base64url of the daemon's authority, DER>

It holds a secret, and all that the machine needs to know whom it speaks to, so nothing is ever
trusted on first use. The secret never travels: both sides make a key pair of it, and TLS proves
that the other side has it. The daemon keeps the public half alone, so its disk does not tell
tokens that are still open.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from hanse.core import limits
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Segment, segment
from hanse.core.reading import Reader, canonical_json, parse_json
from hanse.core.trust.documents import parse_key

PREFIX = "hanse1"
SECRET_BYTES = 32
KINDS = ("edge", "daemon")


@dataclass(frozen=True, slots=True)
class Token:
    """Lets one machine of this kind enrol once, in this region, until it expires."""

    kind: str  # one of `KINDS`
    id: str  # names the public half; the daemon looks it up by that
    federation: Segment
    region: Segment
    node: str  # the node's name; empty for a daemon
    address: str  # host:port of the daemon that made it
    daemon_key: bytes  # of that daemon, raw Ed25519
    trust: bytes  # SHA-256 of the federation's first trust file
    expires_ms: int  # Unix
    secret: bytes = field(repr=False)
    authority_der: bytes = field(repr=False)  # whose certificates that daemon shows


def encode(token: Token) -> str:
    document = {
        "kind": token.kind,
        "id": token.id,
        "federation": token.federation,
        "region": token.region,
        "node": token.node,
        "address": token.address,
        "daemon_key": base64.b64encode(token.daemon_key).decode(),
        "trust": token.trust.hex(),
        "expires_ms": token.expires_ms,
        "secret": token.secret.hex(),
    }
    return f"{PREFIX}.{_b64(canonical_json(document))}.{_b64(token.authority_der)}"


def parse(text: str) -> Token:
    """Raises `InvalidSpec` or `InvalidName`, and never repeats the text: it is a secret."""
    parts = text.strip().split(".")
    if len(parts) != 3 or parts[0] != PREFIX or len(text) > limits.TOKEN_BYTES_MAX:
        raise InvalidSpec(
            "this is no token of this version of hanse",
            fix="copy the whole line that hanse agent token or hanse daemon token printed",
        )
    document = parse_json(_raw(parts[1]), "token", bytes_max=limits.TOKEN_BYTES_MAX)
    with Reader(document, "token") as reader:
        kind = reader.one_of("kind", KINDS)
        node = reader.text("node")
        return Token(
            kind=kind,
            id=_hex(reader, "id", 16).hex(),
            federation=segment(reader.text("federation"), "federation"),
            region=segment(reader.text("region"), "region"),
            node=segment(node, "node") if kind == "edge" else "",
            address=reader.text("address"),
            daemon_key=parse_key(reader.text("daemon_key"), "token.daemon_key"),
            trust=_hex(reader, "trust", 32),
            expires_ms=reader.integer("expires_ms"),
            secret=_hex(reader, "secret", SECRET_BYTES),
            authority_der=_raw(parts[2]),
        )


def _hex(reader: Reader, key: str, size: int) -> bytes:
    try:
        value = bytes.fromhex(reader.text(key))
    except ValueError:
        value = b""
    if len(value) != size:
        raise InvalidSpec(f"{reader.path}.{key}: expected {size} bytes in hex")
    return value


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _raw(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSpec("the token is damaged", fix="copy the whole line again") from None
