"""A token is read whole or not at all, and shows its secret to nobody who did not have it."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core import limits, token
from hanse.core.errors import Rejected
from hanse.core.ids import Segment
from hanse.core.signing import SigningKey
from hanse.core.token import Token

TOKEN = Token(
    kind="edge",
    id="0f" * 16,
    federation=Segment("harbour"),
    region=Segment("eu-north"),
    node="dock-7",
    address="10.0.0.1:7420",
    daemon_key=SigningKey(bytes(32)).public,
    trust=bytes(range(32)),
    expires_ms=1_800_000_000_000,
    secret=b"S" * 32,
    authority_der=b"\x30\x03\x02\x01\x05",
)
TEXT = token.encode(TOKEN)


def test_a_token_is_one_line_and_is_read_as_written() -> None:
    assert token.parse(TEXT) == TOKEN
    assert token.parse(f"{TEXT}\n") == TOKEN
    assert not set(TEXT) & set(" \n\"'$&|;<>")
    daemon = dataclasses.replace(TOKEN, kind="daemon", node="")
    assert token.parse(token.encode(daemon)) == daemon


def test_neither_its_repr_nor_an_error_shows_the_secret() -> None:
    assert TOKEN.secret.hex() not in repr(TOKEN)
    assert str(TOKEN.secret) not in repr(TOKEN)
    for spoilt in (TEXT[:-3] + "!!!", TEXT.replace("hanse1", "hanse2"), TEXT + "." + TEXT):
        with pytest.raises(Rejected) as caught:
            token.parse(spoilt)
        assert TEXT.split(".")[1][:40] not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "root"},
        {"id": "0f"},
        {"federation": "../x"},
        {"region": ""},
        {"node": ""},
        {"node": "../n"},
        {"secret": b"short"},
        {"trust": b"short"},
        {"daemon_key": bytes(32)},
        {"expires_ms": -1},
    ],
)
def test_a_token_that_says_nonsense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Rejected):
        token.parse(token.encode(dataclasses.replace(TOKEN, **changes)))  # type: ignore[arg-type]


def test_a_long_text_is_no_token() -> None:
    padded = dataclasses.replace(TOKEN, authority_der=bytes(limits.TOKEN_BYTES_MAX))
    with pytest.raises(Rejected):
        token.parse(token.encode(padded))


@given(st.text(), st.integers(0, len(TEXT) - 1), st.characters())
def test_any_text_is_a_token_or_refused(text: str, at: int, other: str) -> None:
    for tried in (text, TEXT[:at] + other + TEXT[at + 1 :], TEXT[:at]):
        try:
            token.parse(tried)
        except Rejected:
            continue
