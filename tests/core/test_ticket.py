"""A ticket opens one file to one node for five minutes, and nothing to anybody else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core import limits
from hanse.core.errors import InvalidSignature, NotPermitted, Rejected
from hanse.core.ids import Digest, Segment
from hanse.core.reading import canonical_json
from hanse.core.signing import SigningKey
from hanse.core.ticket import Ticket, check, open_ticket, sign

KEY = SigningKey(bytes(32))
NOW_MS = 1_800_000_000_000
TICKET = Ticket(
    Segment("dock-7"), bytes(range(32)), Digest.of(b"release"), Digest.of(b"file"), NOW_MS + 300_000
)
DOCUMENT: dict[str, Any] = {
    "digest": str(TICKET.digest),
    "expires_ms": TICKET.expires_ms,
    "node": "dock-7",
    "release": str(TICKET.release),
    "spki": TICKET.spki.hex(),
}


def signed(document: Any, domain: bytes = b"hanse-ticket/v1\n") -> bytes:
    body = document if isinstance(document, bytes) else canonical_json(document)
    return KEY.sign(domain + body) + body


digests = st.binary(min_size=32, max_size=32)
tickets = st.builds(
    Ticket,
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True).map(Segment),
    digests,
    digests.map(Digest.from_bytes),
    digests.map(Digest.from_bytes),
    st.integers(0, 2**53),
)


@given(tickets)
def test_a_ticket_is_read_as_it_was_signed(ticket: Ticket) -> None:
    raw = sign(ticket, KEY)
    assert open_ticket(raw, KEY.public) == ticket
    assert len(raw) <= limits.TICKET_BYTES_MAX


def test_its_bytes_are_as_the_format_says() -> None:
    assert sign(TICKET, KEY) == signed(DOCUMENT)


@given(tickets, st.integers(0), st.integers(1, 255))
def test_any_changed_byte_makes_it_nobody_s(ticket: Ticket, at: int, by: int) -> None:
    raw = bytearray(sign(ticket, KEY))
    raw[at % len(raw)] ^= by
    with pytest.raises(InvalidSignature):
        open_ticket(bytes(raw), KEY.public)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        signed(DOCUMENT)[:64],
        signed(DOCUMENT) + b" " * limits.TICKET_BYTES_MAX,
        signed(DOCUMENT, b"hanse-assignment/v1\n"),
        signed(DOCUMENT, b""),
        signed(b" " + canonical_json(DOCUMENT)),
        signed(canonical_json(DOCUMENT).replace(b"{", b'{"digest":"x",', 1)),
        *(signed({k: v for k, v in DOCUMENT.items() if k != key}) for key in DOCUMENT),
        signed(DOCUMENT | {"more": 1}),
        signed(DOCUMENT | {"node": "../dock-7"}),
        signed(DOCUMENT | {"spki": "00"}),
        signed(DOCUMENT | {"spki": TICKET.spki.hex().upper()}),
        signed(DOCUMENT | {"digest": TICKET.digest.hex}),
        signed(DOCUMENT | {"release": None}),
        signed(DOCUMENT | {"expires_ms": -1}),
        signed(DOCUMENT | {"expires_ms": 1e12}),
        signed(DOCUMENT | {"expires_ms": True}),
        signed([DOCUMENT]),
        signed(b"\xff"),
    ],
)
def test_what_is_not_a_ticket_is_refused_even_if_the_key_signed_it(raw: bytes) -> None:
    with pytest.raises(Rejected):
        open_ticket(raw, KEY.public)


def test_a_ticket_of_another_daemon_is_none() -> None:
    with pytest.raises(InvalidSignature):
        open_ticket(sign(TICKET, KEY), SigningKey(b"\1" * 32).public)


def test_it_permits_what_it_says_until_it_ends() -> None:
    asked = replace(TICKET, expires_ms=0)
    check(TICKET, asked, NOW_MS)
    check(TICKET, asked, TICKET.expires_ms - 1)
    for late_ms in (0, 1, 10**15):
        with pytest.raises(NotPermitted):
            check(TICKET, asked, TICKET.expires_ms + late_ms)


@pytest.mark.parametrize(
    "change",
    [
        {"node": Segment("dock-8")},
        {"spki": bytes(32)},
        {"release": TICKET.digest},
        {"digest": TICKET.release},
    ],
)
def test_it_permits_nothing_else(change: dict[str, Any]) -> None:
    with pytest.raises(NotPermitted):
        check(TICKET, replace(TICKET, **change), NOW_MS)


@given(st.integers(0, 2**53), st.integers(0, 2**53))
def test_no_ticket_counts_for_longer_than_its_time_and_what_clocks_may_differ(
    expires_ms: int, now_ms: int
) -> None:
    ticket = replace(TICKET, expires_ms=expires_ms)
    left_s = (expires_ms - now_ms) / 1000
    if 0 < left_s <= limits.TICKET_S + limits.CLOCK_AHEAD_S:
        check(ticket, TICKET, now_ms)
    else:
        with pytest.raises(NotPermitted):
            check(ticket, TICKET, now_ms)
