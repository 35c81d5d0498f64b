"""One event's proof as one file: the C2SP form, and nothing but the one honest proof."""

from __future__ import annotations

import base64

import nacl.signing
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import HanseError, Rejected
from hanse.core.log.checkpoint import (
    Checkpoint,
    cosign,
    open_checkpoint,
    sign_checkpoint,
    verify_cosignature,
)
from hanse.core.log.merkle import leaf_hash, root_of
from hanse.core.log.note import COSIGNATURE_V1, Note, VerifierKey
from hanse.core.log.proofs import inclusion_proof
from hanse.core.log.tlog_proof import TlogProof
from hanse.core.signing import SigningKey

NAME = "witness.example/1"
KEY, WITNESS = SigningKey(b"k" * 32), SigningKey(b"w" * 32)
EVENTS = [b"event %d" % i for i in range(9)]
LEAVES = [leaf_hash(event) for event in EVENTS]
HEAD = Checkpoint("example.com/log", 9, root_of(LEAVES))
NOTE = sign_checkpoint(HEAD, KEY)
NOTE += cosign(NOTE, NAME, WITNESS, 1_800_000_000)
PROOF = TlogProof(5, inclusion_proof(LEAVES, 5), NOTE, EVENTS[5])
RAW = PROOF.render()


def test_a_proof_has_the_lines_of_the_specification() -> None:
    lines = RAW.decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1] == f"extra {base64.b64encode(EVENTS[5]).decode()}"
    assert lines[2] == "index 5"
    assert [base64.b64decode(line) for line in lines[3:7]] == list(PROOF.path)
    assert lines[7:10] == ["", "example.com/log", "9"]
    assert RAW.endswith(NOTE)


def test_a_proof_without_extra_is_read_as_the_specification_shows_it() -> None:
    bare = TlogProof(5, PROOF.path, NOTE)
    assert b"extra" not in bare.render()
    assert TlogProof.parse(bare.render()) == bare


def test_a_proof_that_was_read_verifies() -> None:
    proof = TlogProof.parse(RAW)
    assert proof == PROOF
    head = open_checkpoint(proof.note, "example.com/log", KEY.public)
    assert proof.verify(head) == LEAVES[5]


def test_its_signatures_stand_for_another_library() -> None:
    text, _, lines = TlogProof.parse(RAW).note.decode().rpartition("\n\n")
    own, witness = (base64.b64decode(line.split(" ")[2]) for line in lines.splitlines())
    body = f"{text}\n".encode()
    nacl.signing.VerifyKey(KEY.public).verify(body, own[4:])
    said = b"cosignature/v1\ntime 1800000000\n" + body
    assert witness[4:12] == (1_800_000_000).to_bytes(8, "big")
    nacl.signing.VerifyKey(WITNESS.public).verify(said, witness[12:])


def verified(raw: bytes) -> None:
    proof = TlogProof.parse(raw)
    proof.verify(open_checkpoint(proof.note, "example.com/log", KEY.public))
    verify_cosignature(Note.parse(proof.note), VerifierKey(NAME, COSIGNATURE_V1, WITNESS.public))


@pytest.mark.parametrize("position", range(len(RAW)))
def test_no_byte_of_a_proof_can_change(position: int) -> None:
    verified(RAW)
    changed = bytearray(RAW)
    changed[position] ^= 1
    with pytest.raises(Rejected):
        verified(bytes(changed))


@given(st.binary(max_size=400))
def test_any_bytes_are_a_proof_or_are_refused(raw: bytes) -> None:
    for text in (raw, b"c2sp.org/tlog-proof@v1\n" + raw, RAW[: len(raw)] + raw + RAW[len(raw) :]):
        try:
            proof = TlogProof.parse(text)
        except HanseError:
            continue
        assert proof.render() == text


@pytest.mark.parametrize(
    "text",
    [
        b"c2sp.org/tlog-proof@v2\nindex 0\n\nnote",
        b"c2sp.org/tlog-proof@v1\n\nnote",
        b"c2sp.org/tlog-proof@v1\nindex 00\n\nnote",
        b"c2sp.org/tlog-proof@v1\nindex -1\n\nnote",
        b"c2sp.org/tlog-proof@v1\nindex 1\nAAAA\n\nnote",
        b"c2sp.org/tlog-proof@v1\nextra \nindex 1\n\nnote",
        b"c2sp.org/tlog-proof@v1\nindex 1\n" + b"A" * 43 + b"=\n\n" * 2,
        b"c2sp.org/tlog-proof@v1\nindex 1\n" + (b"A" * 43 + b"=\n") * 65 + b"\nnote",
    ],
)
def test_what_is_no_proof_is_refused(text: bytes) -> None:
    with pytest.raises(Rejected):
        open_checkpoint(TlogProof.parse(text).note, "example.com/log", KEY.public)
