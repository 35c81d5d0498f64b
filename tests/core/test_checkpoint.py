"""Log heads and cosignatures: whose head it is, and who saw it when."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hanse.core.encoding import to_base64
from hanse.core.errors import InvalidProof, InvalidSignature, Rejected
from hanse.core.log.checkpoint import (
    TIME_S_MAX,
    Checkpoint,
    cosign,
    open_checkpoint,
    sign_checkpoint,
    verify_cosignature,
)
from hanse.core.log.merkle import EMPTY_ROOT, SIZE_MAX
from hanse.core.log.note import (
    COSIGNATURE_V1,
    ED25519,
    Note,
    NoteSignature,
    VerifierKey,
    open_note,
    sign_note,
)
from hanse.core.signing import SigningKey

VECTORS = Path(__file__).parents[1] / "vectors"
COSIGNED = (VECTORS / "checkpoint-cosigned.txt").read_bytes()
FACTS = json.loads((VECTORS / "checkpoint-cosigned.json").read_text())

DAEMON, WITNESS = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
HEAD = Checkpoint(FACTS["origin"], FACTS["size"], bytes.fromhex(FACTS["root"]))
RAW = sign_checkpoint(HEAD, DAEMON)
W1 = VerifierKey.parse(FACTS["witness"])
NOW_S = FACTS["time_s"]
ROOT = to_base64(HEAD.root)


def test_the_bytes_of_a_cosigned_head_never_change() -> None:
    assert RAW + cosign(RAW, W1.name, WITNESS, NOW_S) == COSIGNED
    log = VerifierKey.parse(FACTS["log"])
    assert (log.name, log.public) == (HEAD.origin, DAEMON.public)


def test_a_head_opens_with_its_log_s_own_key_and_name_only() -> None:
    assert open_checkpoint(COSIGNED, HEAD.origin, DAEMON.public) == HEAD
    for origin, public in [
        (HEAD.origin, WITNESS.public),
        (HEAD.origin.replace("i1", "i2"), DAEMON.public),
        (W1.name, WITNESS.public),
    ]:
        with pytest.raises(InvalidSignature):
            open_checkpoint(COSIGNED, origin, public)


def test_a_key_that_signs_the_head_of_another_log_is_refused() -> None:
    stranger = Checkpoint("fed.example/eu-west-1/other/i1", HEAD.size, HEAD.root)
    raw = sign_note(stranger.body(), HEAD.origin, DAEMON)
    with pytest.raises(InvalidProof, match="signed a head of"):
        open_checkpoint(raw, HEAD.origin, DAEMON.public)


def test_a_verified_note_that_is_no_checkpoint_is_refused() -> None:
    raw = sign_note("hanse-hello/v1\n", HEAD.origin, DAEMON)
    with pytest.raises(InvalidProof):
        open_checkpoint(raw, HEAD.origin, DAEMON.public)


@pytest.mark.parametrize("size", ["", "-1", "+8", "08", " 8", "8 ", "1_0", "8.0", "٨", "0x8"])
def test_a_size_has_one_decimal_form(size: str) -> None:
    with pytest.raises(InvalidProof, match="size"):
        Checkpoint.parse(f"origin\n{size}\n{ROOT}\n")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "origin\n8\n",
        f"origin\n8\n{ROOT}",
        f"origin\n8\n{ROOT}\nextension\n",
        f"origin\n8\n{ROOT}\n\n",
        f"origin\n\n8\n{ROOT}\n",
        f"origin\n8\n{ROOT[:-1]}\n",
        f"origin\n8\n{ROOT[:-2]}h=\n",
        f"origin\n8\n{to_base64(HEAD.root[:31])}\n",
        f"origin\n8\n{to_base64(HEAD.root + b'!')}\n",
        f"origin\n0\n{ROOT}\n",
        f"origin\n{SIZE_MAX + 1}\n{ROOT}\n",
        f"origin\n{'9' * 5000}\n{ROOT}\n",
        f"an origin\n8\n{ROOT}\n",
        f"\n8\n{ROOT}\n",
        f"origin\u20288\u2028{ROOT}\n",
    ],
)
def test_only_three_whole_lines_are_a_checkpoint(body: str) -> None:
    with pytest.raises(Rejected):
        Checkpoint.parse(body)


@pytest.mark.parametrize("size", [0, 1, SIZE_MAX])
def test_every_size_of_log_can_be_signed_and_read(size: int) -> None:
    head = Checkpoint(HEAD.origin, size, HEAD.root if size else EMPTY_ROOT)
    raw = sign_checkpoint(head, DAEMON)
    assert open_checkpoint(raw, HEAD.origin, DAEMON.public) == head


def test_a_cosignature_says_when_its_witness_saw_the_head() -> None:
    assert verify_cosignature(Note.parse(COSIGNED), W1) == NOW_S


def test_the_latest_cosignature_of_a_witness_counts() -> None:
    lines = [cosign(RAW, W1.name, WITNESS, NOW_S + delay) for delay in (5, 60, 0)]
    assert verify_cosignature(Note.parse(RAW + b"".join(lines)), W1) == NOW_S + 60


def test_a_cosignature_is_bound_to_head_time_and_key() -> None:
    line = Note.parse(COSIGNED).signatures[1]
    later = (NOW_S + 1).to_bytes(8, "big") + line.signature[8:]
    taller = Checkpoint(HEAD.origin, HEAD.size + 1, HEAD.root)
    other = SigningKey(b"\x03" * 32)
    impostor = VerifierKey(W1.name, COSIGNATURE_V1, other.public)
    for body, signature, witness in [
        (HEAD.body(), later, W1),
        (taller.body(), line.signature, W1),
        (HEAD.body(), line.signature, impostor),
        (HEAD.body(), line.signature[8:], W1),
        (HEAD.body(), line.signature[:8], W1),
        (HEAD.body(), line.signature + b"\x00", W1),
    ]:
        note = Note(body, (NoteSignature(witness.name, witness.key_id, signature),))
        with pytest.raises(InvalidSignature):
            verify_cosignature(note, witness)


def test_a_head_without_its_witness_is_not_cosigned() -> None:
    with pytest.raises(InvalidSignature, match="did not cosign"):
        verify_cosignature(Note.parse(RAW), W1)
    renamed = VerifierKey("witness.example/w2", COSIGNATURE_V1, WITNESS.public)
    with pytest.raises(InvalidSignature, match="did not cosign"):
        verify_cosignature(Note.parse(COSIGNED), renamed)


def test_one_failing_line_of_a_witness_refuses_the_cosigned_head() -> None:
    forged = NoteSignature(W1.name, W1.key_id, NOW_S.to_bytes(8, "big") + DAEMON.sign(b""))
    with pytest.raises(InvalidSignature):
        verify_cosignature(Note.parse(COSIGNED + forged.line().encode()), W1)


def test_no_signature_of_one_kind_passes_as_the_other() -> None:
    note = Note.parse(COSIGNED)
    own, cosigned = note.signatures
    as_witness = VerifierKey(HEAD.origin, COSIGNATURE_V1, DAEMON.public)
    stamped = NOW_S.to_bytes(8, "big") + own.signature
    replayed = Note(note.text, (NoteSignature(HEAD.origin, as_witness.key_id, stamped),))
    with pytest.raises(InvalidSignature):
        verify_cosignature(replayed, as_witness)
    as_log = VerifierKey(W1.name, ED25519, WITNESS.public)
    replayed = Note(note.text, (NoteSignature(W1.name, as_log.key_id, cosigned.signature[8:]),))
    with pytest.raises(InvalidSignature):
        open_note(replayed.render(), [as_log])
    with pytest.raises(InvalidSignature, match="no witness key"):
        verify_cosignature(note, as_log)


def test_a_key_id_under_another_name_is_another_signer() -> None:
    line = Note.parse(COSIGNED).signatures[1]
    renamed = NoteSignature("witness.example/w2", line.key_id, line.signature)
    with pytest.raises(InvalidSignature, match="did not cosign"):
        verify_cosignature(Note(HEAD.body(), (renamed,)), W1)


def test_a_cosignature_on_what_is_no_checkpoint_is_refused() -> None:
    text = "pay 100\n"
    stamped = bytes(8) + WITNESS.sign(f"cosignature/v1\ntime 0\n{text}".encode())
    with pytest.raises(InvalidProof):
        verify_cosignature(Note(text, (NoteSignature(W1.name, W1.key_id, stamped),)), W1)


@pytest.mark.parametrize("time_s", [-1, TIME_S_MAX + 1])
def test_times_outside_posix_time_are_neither_signed_nor_read(time_s: int) -> None:
    with pytest.raises(InvalidProof, match="POSIX"):
        cosign(RAW, W1.name, WITNESS, time_s)
    if time_s > 0:
        message = f"cosignature/v1\ntime {time_s}\n{HEAD.body()}".encode()
        stamped = time_s.to_bytes(8, "big") + WITNESS.sign(message)
        note = Note(HEAD.body(), (NoteSignature(W1.name, W1.key_id, stamped),))
        with pytest.raises(InvalidSignature, match="no POSIX time"):
            verify_cosignature(note, W1)


def test_a_witness_cosigns_checkpoints_only() -> None:
    with pytest.raises(InvalidProof):
        cosign(sign_note("pay 100\n", HEAD.origin, DAEMON), W1.name, WITNESS, NOW_S)


LINES = st.sampled_from(["origin", "8", "0", ROOT, to_base64(EMPTY_ROOT), "", "08", "1_0", "٨"])


@given(st.text() | st.lists(LINES | st.text(max_size=4), max_size=5).map("\n".join))
@example(f"origin\n8\n{ROOT}\n")
@example(f"origin\n0\n{to_base64(EMPTY_ROOT)}\n")
def test_any_text_is_a_checkpoint_that_reads_back_or_a_typed_error(body: str) -> None:
    try:
        checkpoint = Checkpoint.parse(body)
    except Rejected:
        return
    assert checkpoint.body() == body


@given(st.binary(max_size=90))
@example(Note.parse(COSIGNED).signatures[1].signature)
def test_any_bytes_in_a_cosignature_are_refused_or_its_own(signature: bytes) -> None:
    if not signature:
        return
    note = Note(HEAD.body(), (NoteSignature(W1.name, W1.key_id, signature),))
    with suppress(InvalidSignature):
        assert verify_cosignature(note, W1) == NOW_S
