"""T17: one strict verdict for every Ed25519 signature, the crafted ones included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import edwards25519 as curve
import pytest
from cryptography.exceptions import InvalidSignature as OpensslRefusal
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import InvalidSignature, InvalidSpec
from hanse.core.signing import SigningKey, admit_public_key, verify

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"
RFC_8032 = json.loads((VECTORS / "ed25519-rfc8032.json").read_text())["cases"]
EDGE_CASES = json.loads((VECTORS / "ed25519-edge-cases.json").read_text())["cases"]
KEY = SigningKey(bytes(range(32)))


def raw(case: dict[str, Any], *names: str) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(case[name]) for name in names)


def verifies(public: bytes, signature: bytes, data: bytes) -> bool:
    try:
        verify(public, signature, data)
    except InvalidSignature:
        return False
    return True


def small_order_encodings() -> set[bytes]:
    """Every 32-byte string that lax verifiers read as one of the eight small points."""
    found = set()
    for case in EDGE_CASES:
        point = curve.decode(bytes.fromhex(case["public"]))
        assert point is not None
        torsion = curve.multiply(curve.L, point)
        for times in range(8):
            y = curve.multiply(times, torsion)[1]
            for alias in (y, y + curve.P):
                if alias < 2**255:
                    found |= {(alias | s << 255).to_bytes(32, "little") for s in (0, 1)}
    return found


@pytest.mark.parametrize("case", RFC_8032, ids=lambda case: f"{len(case['message']) // 2} bytes")
def test_keys_and_signatures_are_those_of_rfc_8032(case: dict[str, Any]) -> None:
    seed, public, message, signature = raw(case, "seed", "public", "message", "signature")
    key = SigningKey(seed)
    assert key.public == public
    assert key.sign(message) == signature
    verify(public, signature, message)


@pytest.mark.parametrize("case", EDGE_CASES, ids=lambda case: case["what"])
def test_crafted_signatures_get_the_strict_verdict(case: dict[str, Any]) -> None:
    assert verifies(*raw(case, "public", "signature", "message")) is case["valid"]


@pytest.mark.parametrize("case", EDGE_CASES, ids=lambda case: case["what"])
def test_crafted_vectors_are_what_they_say(case: dict[str, Any]) -> None:
    public, signature, message = raw(case, "public", "signature", "message")
    key, r = curve.decode(public), curve.decode(signature[:32])
    assert key is not None
    assert r is not None
    assert curve.order_class(key) == case["order_of_key"]
    assert curve.order_class(r) == case["order_of_r"]
    assert curve.is_canonical(public) is case["key_canonical"]
    assert curve.is_canonical(signature[:32]) is case["r_canonical"]
    assert (int.from_bytes(signature[32:], "little") < curve.L) is case["s_below_l"]
    hashed = (signature[:32], public)
    if case["hashed"] == "reduced":
        hashed = (curve.encode(r), curve.encode(key))
    k = curve.challenge(*hashed, message)
    assert curve.equation_holds(public, signature, k) is case["cofactorless"]
    assert curve.equation_holds(public, signature, k, cofactor=8) is case["cofactored"]
    assert curve.strict_verdict(public, signature, message) is case["valid"]


def test_openssl_alone_would_accept_four_of_the_crafted_signatures_more() -> None:
    """If this changes, the table of small-order encodings may have lost its reason."""
    accepted = []
    for case in EDGE_CASES:
        public, signature, message = raw(case, "public", "signature", "message")
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except OpensslRefusal:
            continue
        accepted.append(case["case"])
    assert accepted == [0, 1, 2, 3, 11]


def test_no_encoding_of_a_small_point_is_admitted_as_a_key_or_as_r() -> None:
    encodings = small_order_encodings()
    assert len(encodings) == 14
    signature = KEY.sign(b"data")
    for encoding in encodings:
        with pytest.raises(InvalidSignature, match="small order"):
            admit_public_key(encoding)
        with pytest.raises(InvalidSignature, match="small order"):
            verify(encoding, signature, b"data")
        with pytest.raises(InvalidSignature, match="small order"):
            verify(KEY.public, encoding + signature[32:], b"data")


@pytest.mark.parametrize("excess", range(2, 19))
@pytest.mark.parametrize("sign", [0, 1])
def test_a_key_in_a_second_encoding_is_not_admitted(excess: int, sign: int) -> None:
    with pytest.raises(InvalidSignature, match="canonical"):
        admit_public_key((curve.P + excess | sign << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_keys_seeds_and_signatures_of_wrong_length_are_refused(length: int) -> None:
    with pytest.raises(InvalidSignature, match="32 bytes"):
        admit_public_key(bytes(length))
    with pytest.raises(InvalidSignature, match="32 bytes"):
        verify(b"\x09" * length, KEY.sign(b"data"), b"data")
    with pytest.raises(InvalidSpec, match="32 bytes"):
        SigningKey(bytes(length))
    with pytest.raises(InvalidSignature, match="64 bytes"):
        verify(KEY.public, (KEY.sign(b"data") * 2)[: length + length // 64], b"data")


def test_every_flipped_bit_of_a_signature_or_key_is_refused() -> None:
    signature, data = KEY.sign(b"data"), b"data"
    for blob_at, blob in enumerate((KEY.public, signature, data)):
        for bit in range(len(blob) * 8):
            flipped = (int.from_bytes(blob, "little") ^ 1 << bit).to_bytes(len(blob), "little")
            parts = [KEY.public, signature, data]
            parts[blob_at] = flipped
            assert not verifies(*parts)


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(max_size=64),
    st.integers(0, 511),
    st.sampled_from(["none", "flip", "add L", "torsion"]),
)
@settings(max_examples=40, deadline=None)
def test_the_textbook_verifier_agrees(seed: bytes, data: bytes, bit: int, change: str) -> None:
    key = SigningKey(seed)
    signature = key.sign(data)
    if change == "flip":
        flipped = int.from_bytes(signature, "little") ^ 1 << bit
        signature = flipped.to_bytes(64, "little")
    elif change == "add L":
        s = int.from_bytes(signature[32:], "little") + curve.L
        signature = signature[:32] + s.to_bytes(32, "little")
    elif change == "torsion":
        r = curve.decode(signature[:32])
        order_two = (0, curve.P - 1)
        assert r is not None
        signature = curve.encode(curve.add(r, order_two)) + signature[32:]
    assert verifies(key.public, signature, data) is (change == "none")
    assert curve.strict_verdict(key.public, signature, data) is (change == "none")


@given(st.binary(max_size=70), st.binary(max_size=70), st.binary(max_size=10))
def test_arbitrary_keys_and_signatures_are_refused_with_a_typed_error(
    public: bytes, signature: bytes, data: bytes
) -> None:
    assert not verifies(public, signature, data)


def test_the_seed_is_not_shown() -> None:
    shown = repr(SigningKey(b"\x07" * 32))
    assert repr(b"\x07" * 32) not in shown
    assert "seed" not in shown


def test_nothing_else_in_hanse_imports_an_ed25519_verifier() -> None:
    sites = [
        path.name
        for path in (ROOT / "src" / "hanse").rglob("*.py")
        if "Ed25519PublicKey" in path.read_text() or "nacl" in path.read_text()
    ]
    assert sites == ["signing.py"]
