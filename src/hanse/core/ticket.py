"""The ticket: a daemon's word to the nodes of its region that one of them may have one file.

    <64 bytes of signature>{"digest":"sha256:…","expires_ms":1785100000000,"node":"dock-7",
                            "release":"sha256:…","spki":"<64 hex digits>"}

The daemon judges residency, membership and revocation, and signs what it decided over
`hanse-ticket/v1`, a line feed and the canonical JSON. A neighbour judges nothing of that: it
serves whoever shows a ticket for this very file over a connection with this very key. So who may
have what is decided and written down in one place, and what it decides anew holds everywhere
within the five minutes that a ticket lives. By itself a ticket is worth nothing to others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hanse.core import signing
from hanse.core.assignment import read_digest, require_canonical
from hanse.core.errors import NotPermitted, TooLarge
from hanse.core.ids import Digest, Segment, segment
from hanse.core.limits import CLOCK_AHEAD_S, TICKET_BYTES_MAX, TICKET_S
from hanse.core.reading import Reader, canonical_json, parse_json

_DOMAIN = b"hanse-ticket/v1\n"


@dataclass(frozen=True, slots=True)
class Ticket:
    """`spki`: SHA-256 of the public key in the certificate of `node`. Times are Unix."""

    node: Segment
    spki: bytes
    release: Digest
    digest: Digest
    expires_ms: int


def sign(ticket: Ticket, key: signing.SigningKey) -> bytes:
    body = canonical_json(
        {
            "digest": str(ticket.digest),
            "expires_ms": ticket.expires_ms,
            "node": ticket.node,
            "release": str(ticket.release),
            "spki": ticket.spki.hex(),
        }
    )
    return key.sign(_DOMAIN + body) + body


def open_ticket(raw: bytes, public_key: bytes) -> Ticket:
    """Verify first, then read. `public_key`: the daemon's 32 raw Ed25519 bytes.

    Raises `TooLarge`, `InvalidSignature`, `InvalidSpec` or `InvalidName`.
    """
    if len(raw) > TICKET_BYTES_MAX:
        raise TooLarge(f"a ticket has at most {TICKET_BYTES_MAX} bytes")
    signature, body = raw[: signing.SIGNATURE_BYTES], raw[signing.SIGNATURE_BYTES :]
    signing.verify(public_key, signature, _DOMAIN + body)
    document = parse_json(body, "ticket", bytes_max=TICKET_BYTES_MAX)
    require_canonical(document, body, "ticket")
    with Reader(document, "ticket") as reader:
        return Ticket(
            node=segment(reader.text("node"), "ticket.node"),
            spki=Digest(reader.text("spki")).raw,
            release=read_digest(reader.raw("release"), "ticket.release"),
            digest=read_digest(reader.raw("digest"), "ticket.digest"),
            expires_ms=reader.integer("expires_ms"),
        )


def check(ticket: Ticket, asked: Ticket, now_ms: int) -> None:
    """Raises `NotPermitted` unless it permits what is `asked`, by whom, and now.

    Of `asked` only the time is of no account. Whoever's clock is wrong by minutes refuses, and
    the daemon itself is asked.
    """
    if replace(asked, expires_ms=ticket.expires_ms) != ticket:
        raise NotPermitted("the ticket is for another node, key, release or file")
    left_s = (ticket.expires_ms - now_ms) / 1000
    if not 0 < left_s <= TICKET_S + CLOCK_AHEAD_S:
        raise NotPermitted(f"the ticket ends in {left_s:.0f} s", fix="ask the daemon for another")
