"""T18: thresholds count distinct keys; and what is verified is what is returned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hanse.core.dsse import Envelope, open_envelope, pae, sign_envelope
from hanse.core.encoding import to_base64
from hanse.core.errors import InvalidSignature, InvalidSpec, Rejected, TooLarge
from hanse.core.ids import MemberId, member_id
from hanse.core.limits import EVENT_BYTES_MAX, NOTE_SIGNATURES_MAX
from hanse.core.signing import SigningKey

VECTOR = (Path(__file__).parents[1] / "vectors" / "dsse-envelope.json").read_bytes()
KIND, PAYLOAD = "http://example.com/HelloWorld", b"hello world"
ALICE, BOB, EVE = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
ALICE_ID, BOB_ID, EVE_ID = (member_id(key.public) for key in (ALICE, BOB, EVE))
KEYS = {ALICE_ID: ALICE.public, BOB_ID: BOB.public}
SIGNED = sign_envelope(KIND, PAYLOAD, [ALICE, BOB])


def rewritten(**changes: Any) -> bytes:
    """The envelope that Alice and Bob signed, with some of its fields replaced."""
    return json.dumps(json.loads(SIGNED) | changes).encode()


def entry(keyid: str, key: SigningKey, message: bytes | None = None) -> dict[str, str]:
    message = pae(KIND, PAYLOAD) if message is None else message
    return {"keyid": keyid, "sig": to_base64(key.sign(message))}


def test_pae_is_that_of_the_dsse_specification() -> None:
    assert pae(KIND, PAYLOAD) == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("", b"") == b"DSSEv1 0  0 "
    assert pae("ü", "ü".encode()) == "DSSEv1 2 ü 2 ü".encode()


def test_the_bytes_of_an_envelope_never_change() -> None:
    assert VECTOR.removesuffix(b"\n") == SIGNED
    envelope, signers = open_envelope(VECTOR, KEYS)
    assert envelope.payload == PAYLOAD
    assert signers == {ALICE_ID, BOB_ID}


def test_an_envelope_names_its_verified_signers_among_the_keys_given() -> None:
    envelope, signers = open_envelope(SIGNED, KEYS)
    assert (envelope.payload_type, envelope.payload) == (KIND, PAYLOAD)
    assert [keyid for keyid, _ in envelope.signatures] == [ALICE_ID, BOB_ID]
    assert signers == {ALICE_ID, BOB_ID}
    _, signers = open_envelope(SIGNED, {BOB_ID: BOB.public, EVE_ID: EVE.public})
    assert signers == {BOB_ID}


def test_three_signatures_by_one_key_are_one_signer() -> None:
    _, signers = open_envelope(sign_envelope(KIND, PAYLOAD, [ALICE] * 3), KEYS)
    assert signers == {ALICE_ID}


def test_one_key_under_two_ids_is_one_signer() -> None:
    alias = MemberId("0" * 32)
    raw = rewritten(signatures=[entry(ALICE_ID, ALICE), entry(alias, ALICE)])
    _, signers = open_envelope(raw, {ALICE_ID: ALICE.public, alias: ALICE.public})
    assert signers == {ALICE_ID}


def test_failing_and_unknown_signatures_are_passed_over() -> None:
    raw = rewritten(
        signatures=[
            entry(BOB_ID, EVE),
            entry(EVE_ID, EVE),
            {"sig": entry("", BOB)["sig"]},
            entry(BOB_ID, BOB, b"another message"),
            {"keyid": BOB_ID, "sig": ""},
            entry(ALICE_ID, ALICE),
        ]
    )
    _, signers = open_envelope(raw, KEYS)
    assert signers == {ALICE_ID}


def test_an_envelope_that_nobody_entitled_signed_is_not_returned() -> None:
    for raw, keys in [
        (SIGNED, {EVE_ID: EVE.public}),
        (SIGNED, {}),
        (rewritten(signatures=[entry(ALICE_ID, EVE)]), KEYS),
        (rewritten(payload=to_base64(b"hello worle")), KEYS),
        (rewritten(payloadType="http://example.com/HelloWorle"), KEYS),
    ]:
        with pytest.raises(InvalidSignature, match="no key that may sign"):
            open_envelope(raw, keys)


def test_a_small_order_key_signs_for_nobody() -> None:
    weak = b"\x01" + bytes(31)
    forged = {"keyid": member_id(weak), "sig": to_base64(weak + bytes(32))}
    with pytest.raises(InvalidSignature):
        open_envelope(rewritten(signatures=[forged]), {member_id(weak): weak})


def test_type_and_payload_cannot_trade_bytes() -> None:
    raw = sign_envelope("ab", b"c", [ALICE])
    moved = json.loads(raw) | {"payloadType": "a", "payload": to_base64(b"bc")}
    with pytest.raises(InvalidSignature):
        open_envelope(json.dumps(moved).encode(), KEYS)


def test_url_safe_base64_and_unknown_fields_are_read_as_dsse_demands() -> None:
    payload = b"\xfb\xff\xfe"
    raw = json.loads(sign_envelope(KIND, payload, [ALICE]))
    raw["payload"] = "-__-"
    raw["signatures"][0] |= {"cert": "ignored"}
    raw["extra"] = [1, {"a": None}]
    envelope, signers = open_envelope(json.dumps(raw).encode(), KEYS)
    assert (envelope.payload, signers) == (payload, {ALICE_ID})


def test_an_empty_payload_can_be_signed() -> None:
    envelope, _ = open_envelope(sign_envelope(KIND, b"", [ALICE]), KEYS)
    assert envelope.payload == b""


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        SIGNED[:-1],
        SIGNED + b"x",
        SIGNED.replace(b'{"payload"', b'{"payload":"AA==","payload"', 1),
        SIGNED.replace(b'{"keyid"', b'{"keyid":"x","keyid"', 1),
        SIGNED.replace(b'{"payload"', b'{"x":NaN,"payload"', 1),
        SIGNED.replace(b'{"payload"', b'{"x":-Infinity,"payload"', 1),
        SIGNED.replace(b'{"payload"', b'{"x":' + b"9" * 5000 + b',"payload"', 1),
        SIGNED.replace(b'{"payload"', b'{"x":' + b"[" * 9000, 1),
        b"[" * EVENT_BYTES_MAX,
        rewritten(payload=None),
        rewritten(payload=5),
        rewritten(payload="aGVsbG8gd29ybGQ"),
        rewritten(payload="aGVsbG8gd29ybGR="),
        rewritten(payload="aGVsbG8g d29ybGQ="),
        rewritten(payload="-+++"),
        rewritten(payloadType=""),
        rewritten(payloadType=7),
        rewritten(payloadType="two words"),
        rewritten(payloadType="\ud800"),
        rewritten(payloadType="t" * 257),
        rewritten(signatures={}),
        rewritten(signatures=[]),
        rewritten(signatures=["sig"]),
        rewritten(signatures=[{}]),
        rewritten(signatures=[{"keyid": 1, "sig": ""}]),
        rewritten(signatures=[{"keyid": None, "sig": ""}]),
        rewritten(signatures=[{"keyid": ALICE_ID, "sig": "A"}]),
    ],
)
def test_what_is_not_exactly_an_envelope_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidSpec):
        open_envelope(raw, KEYS)


def test_envelopes_beyond_the_limits_are_neither_read_nor_written() -> None:
    padded = SIGNED + b" " * (EVENT_BYTES_MAX - len(SIGNED))
    open_envelope(padded, KEYS)
    with pytest.raises(TooLarge):
        open_envelope(padded + b" ", KEYS)
    open_envelope(padded + b" ", KEYS, bytes_max=EVENT_BYTES_MAX + 1)
    crowd = [entry(ALICE_ID, ALICE)] * (NOTE_SIGNATURES_MAX + 1)
    with pytest.raises(TooLarge):
        open_envelope(rewritten(signatures=crowd), KEYS)
    for keys in ([], [ALICE] * (NOTE_SIGNATURES_MAX + 1)):
        with pytest.raises(InvalidSpec):
            sign_envelope(KIND, PAYLOAD, keys)
    with pytest.raises(InvalidSpec):
        sign_envelope("no spaces please", PAYLOAD, [ALICE])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["payload", "payloadType", "signatures", "keyid", "sig"]), inner
        )
    ),
    max_leaves=12,
)
NEAR = st.fixed_dictionaries(
    {},
    optional={
        "payload": st.just(to_base64(PAYLOAD)) | JSON,
        "payloadType": st.just(KIND) | JSON,
        "signatures": st.lists(st.just(entry(ALICE_ID, ALICE)) | JSON, max_size=3) | JSON,
    },
)


@given(st.one_of(st.binary(), (JSON | NEAR).map(lambda value: json.dumps(value).encode())))
@example(SIGNED)
def test_any_bytes_are_the_signed_envelope_or_a_typed_error(raw: bytes) -> None:
    try:
        envelope, signers = open_envelope(raw, KEYS)
    except Rejected:
        return
    assert isinstance(envelope, Envelope)
    assert (envelope.payload_type, envelope.payload) == (KIND, PAYLOAD)
    assert signers <= set(KEYS)


@given(
    st.binary(max_size=200), st.lists(st.sampled_from([ALICE, BOB, EVE]), min_size=1, max_size=5)
)
def test_whatever_is_signed_opens_with_the_signers_it_had(
    payload: bytes, keys: list[SigningKey]
) -> None:
    everybody = {member_id(key.public): key.public for key in (ALICE, BOB, EVE)}
    envelope, signers = open_envelope(sign_envelope(KIND, payload, keys), everybody)
    assert envelope.payload == payload
    assert signers == {member_id(key.public) for key in keys}
