"""Signed notes: one form for one note, and nothing believed that no trusted key signed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hanse.core.encoding import strict_base64, to_base64
from hanse.core.errors import InvalidName, InvalidProof, InvalidSignature, Rejected, TooLarge
from hanse.core.limits import NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX
from hanse.core.log.note import (
    COSIGNATURE_V1,
    ED25519,
    Note,
    NoteSignature,
    VerifierKey,
    key_name,
    open_note,
    sign_note,
)
from hanse.core.signing import SigningKey

VECTORS = Path(__file__).parents[1] / "vectors"
NEUMANN_NOTE = (VECTORS / "note-peter-neumann.txt").read_bytes()
NEUMANN_VKEY = (VECTORS / "note-peter-neumann.vkey").read_text().removesuffix("\n")

ALICE, BOB = SigningKey(b"\x0a" * 32), SigningKey(b"\x0b" * 32)
ALICE_KEY = VerifierKey("alice.example/log", ED25519, ALICE.public)
BOB_KEY = VerifierKey("bob.example/log", ED25519, BOB.public)
TEXT = "first line\n\nthird line, after an empty one\n"
SIGNED = sign_note(TEXT, ALICE_KEY.name, ALICE)
LINE = SIGNED.removeprefix(TEXT.encode() + b"\n")
BOBS_LINE = sign_note(TEXT, BOB_KEY.name, BOB).removeprefix(TEXT.encode() + b"\n")
ODD_NAMES = ["", "two words", "a+b", "no\u00a0break", "line\u2028break", "nel\u0085", "tab\tbed"]


def raised(raw: bytes) -> type[Rejected] | None:
    try:
        Note.parse(raw)
    except Rejected as error:
        return type(error)
    return None


def test_the_published_example_verifies_and_renders_to_itself() -> None:
    key = VerifierKey.parse(NEUMANN_VKEY)
    note, signers = open_note(NEUMANN_NOTE, [key])
    assert signers == (key,)
    assert note.text.startswith("If you think cryptography is the answer")
    assert note.render() == NEUMANN_NOTE
    assert key.encode() == NEUMANN_VKEY


def test_what_is_signed_opens_with_its_key() -> None:
    note, signers = open_note(SIGNED, [BOB_KEY, ALICE_KEY])
    assert note.text == TEXT
    assert signers == (ALICE_KEY,)


def test_signature_lines_are_simply_appended() -> None:
    _, signers = open_note(SIGNED + BOBS_LINE, [BOB_KEY, ALICE_KEY])
    assert signers == (BOB_KEY, ALICE_KEY)


def test_a_signer_who_signs_twice_counts_once() -> None:
    _, signers = open_note(SIGNED + LINE, [ALICE_KEY])
    assert signers == (ALICE_KEY,)


def test_lines_by_unknown_keys_are_ignored_even_under_a_known_name_or_id() -> None:
    same_name = NoteSignature(ALICE_KEY.name, b"\0\1\2\3", b"x" * 64).line().encode()
    same_id = NoteSignature("carol.example", ALICE_KEY.key_id, b"x" * 64).line().encode()
    _, signers = open_note(SIGNED + same_name + same_id, [ALICE_KEY])
    assert signers == (ALICE_KEY,)


def test_a_note_that_no_trusted_key_signed_is_refused() -> None:
    with pytest.raises(InvalidSignature, match="no trusted key"):
        open_note(SIGNED, [BOB_KEY])
    with pytest.raises(InvalidSignature, match="no trusted key"):
        open_note(SIGNED, [])


def test_one_failing_line_of_a_known_key_refuses_the_whole_note() -> None:
    forged = NoteSignature(BOB_KEY.name, BOB_KEY.key_id, ALICE.sign(TEXT.encode())).line()
    with pytest.raises(InvalidSignature):
        open_note(SIGNED + forged.encode(), [ALICE_KEY, BOB_KEY])


def test_every_changed_byte_of_a_note_is_refused() -> None:
    for at in range(len(SIGNED)):
        for change in (0x01, 0x80):
            raw = SIGNED[:at] + bytes([SIGNED[at] ^ change]) + SIGNED[at + 1 :]
            with pytest.raises(Rejected):
                open_note(raw, [ALICE_KEY])


def test_two_keys_that_cannot_be_told_apart_are_refused() -> None:
    class Colliding(VerifierKey):
        """Finding a real 32-bit collision takes minutes; its effect is the same."""

        @property
        def key_id(self) -> bytes:
            return ALICE_KEY.key_id

    other = Colliding(ALICE_KEY.name, ED25519, BOB.public)
    with pytest.raises(InvalidSignature, match="share one key id"):
        open_note(SIGNED, [ALICE_KEY, other])


def test_a_witness_key_opens_no_note() -> None:
    with pytest.raises(InvalidSignature, match="signs no notes"):
        open_note(SIGNED, [VerifierKey(ALICE_KEY.name, COSIGNATURE_V1, ALICE.public)])


@pytest.mark.parametrize(
    ("raw", "error"),
    {
        "no signature": (b"text\n", InvalidProof),
        "no signature after the empty line": (b"text\n\n", InvalidProof),
        "no empty line": (b"text\n" + LINE, InvalidProof),
        "no text": (b"\n" + LINE, InvalidProof),
        "an empty line among the signatures": (b"text\n\n" + LINE + b"\n" + LINE, None),
        "an empty line at the end": (SIGNED + b"\n", InvalidProof),
        "no newline at the end": (SIGNED[:-1], InvalidProof),
        "carriage returns": (SIGNED.replace(b"\n", b"\r\n"), InvalidProof),
        "a tab in the text": (b"a\tb\n\n" + LINE, InvalidProof),
        "a nul in the text": (b"a\0b\n\n" + LINE, InvalidProof),
        "a delete in the text": (b"a\x7fb\n\n" + LINE, InvalidProof),
        "U+0085 in the text": ("a\u0085b\n\n".encode() + LINE, InvalidProof),
        "U+2028 in the text": ("a\u2028b\n\n".encode() + LINE, None),
        "not UTF-8": (b"\xff\n\n" + LINE, InvalidProof),
        "an overlong encoding": (b"\xc0\xaf\n\n" + LINE, InvalidProof),
        "a surrogate": (b"\xed\xa0\x80\n\n" + LINE, InvalidProof),
        "a hyphen for the dash": (b"t\n\n" + LINE.replace("—".encode(), b"-"), InvalidProof),
        "two spaces": (b"t\n\n" + LINE.replace("— ".encode(), "—  ".encode()), InvalidProof),
        "a space at the end": (b"t\n\n" + LINE[:-1] + b" \n", InvalidProof),
        "a name with a plus": ("t\n\n— a+b AAAAAAA=\n".encode(), InvalidName),
        "an empty name": ("t\n\n—  AAAAAAA=\n".encode(), InvalidName),
        "U+2028 in a name": ("t\n\n— a\u2028b AAAAAAA=\n".encode(), InvalidName),
        "a key id alone": ("t\n\n— a AAAAAA==\n".encode(), InvalidProof),
        "a key id and one byte": ("t\n\n— a AAAAAAA=\n".encode(), None),
        "base64 with padding bits": ("t\n\n— a AAAAAAB=\n".encode(), InvalidProof),
        "base64 without padding": ("t\n\n— a AAAAAAA\n".encode(), InvalidProof),
        "URL-safe base64": ("t\n\n— a AAAAA-A=\n".encode(), InvalidProof),
        "as many signatures as allowed": (b"t\n\n" + LINE * NOTE_SIGNATURES_MAX, None),
        "one signature too many": (b"t\n\n" + LINE * (NOTE_SIGNATURES_MAX + 1), TooLarge),
        "as long as allowed": (b"t" * (NOTE_BYTES_MAX - len(LINE) - 2) + b"\n\n" + LINE, None),
        "a byte too long": (b"t" * (NOTE_BYTES_MAX - len(LINE) - 1) + b"\n\n" + LINE, TooLarge),
    }.values(),
    ids=lambda value: "" if isinstance(value, bytes) else getattr(value, "__name__", "accepted"),
)
def test_a_note_has_one_form(raw: bytes, error: type[Rejected] | None) -> None:
    assert raised(raw) is error
    if error is None:
        assert Note.parse(raw).render() == raw


@pytest.mark.parametrize("name", [*ODD_NAMES, "bell\x07", "c1\x9b", "\ud800"])
def test_names_that_could_be_read_in_two_ways_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        key_name(name)
    with pytest.raises(InvalidName):
        sign_note(TEXT, name, ALICE)


@pytest.mark.parametrize("text", ["", "no newline", "tab\t\n", "cr\r\n", "\ud800\n"])
def test_a_text_that_no_verifier_would_read_is_not_rendered(text: str) -> None:
    with pytest.raises(InvalidProof):
        Note(text, (NoteSignature("a", b"1234", b"5"),))


def test_a_note_beyond_the_limits_is_not_rendered() -> None:
    line = NoteSignature("a", b"1234", b"5")
    with pytest.raises(TooLarge):
        Note("t" * NOTE_BYTES_MAX + "\n", (line,))
    with pytest.raises(TooLarge):
        Note("t\n", (line,) * (NOTE_SIGNATURES_MAX + 1))
    with pytest.raises(InvalidProof, match="no signature"):
        Note("t\n", ())


@pytest.mark.parametrize("kind", [ED25519, COSIGNATURE_V1])
def test_a_verifier_key_reads_back_and_its_id_depends_on_its_kind(kind: int) -> None:
    key = VerifierKey("alice.example/log", kind, ALICE.public)
    assert VerifierKey.parse(key.encode()) == key
    assert (key.key_id == ALICE_KEY.key_id) is (kind == ED25519)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "PeterNeumann",
        NEUMANN_VKEY.replace("c74f20a3", "c74f20a4"),
        NEUMANN_VKEY.replace("c74f20a3", "C74F20A3"),
        NEUMANN_VKEY.replace("c74f20a3", "c7 4f 20"),
        NEUMANN_VKEY.replace("c74f20a3", "c74f20a"),
        NEUMANN_VKEY.replace("PeterNeumann", "Peter Neumann"),
        NEUMANN_VKEY.replace("PeterNeumann", "PeterNewman"),
        NEUMANN_VKEY + "\n",
        NEUMANN_VKEY[:-4],
        NEUMANN_VKEY[:-1] + "=",
        NEUMANN_VKEY.replace("+ARpc", "+BRpc"),
        "a+00000000+",
        f"a+00000000+{to_base64(bytes([ED25519]) + bytes(32))}",
    ],
)
def test_a_verifier_key_that_is_not_whole_is_refused(vkey: str) -> None:
    with pytest.raises((InvalidSignature, InvalidName)):
        VerifierKey.parse(vkey)


@pytest.mark.parametrize("text", ["A", "AB==", "AA=", "AA= =", " AA==", "AA==\n", "ÄA==", "A-=="])
def test_base64_has_one_text_for_one_value(text: str) -> None:
    assert strict_base64(text) is None


@given(st.binary())
def test_base64_reads_what_it_writes(data: bytes) -> None:
    assert strict_base64(to_base64(data)) == data


PIECES = st.sampled_from(
    [b"\n", b"\n\n", b"\r", b" ", b"+", b"text", b"name ", b"AAAAAAA=\n", b"\xff"]
    + [piece.encode() for piece in ("— ", "\u0085", "\u2028")]
    + [LINE, BOBS_LINE, SIGNED]
)


@given(st.one_of(st.binary(), st.lists(PIECES | st.binary(max_size=3)).map(b"".join)))
@example(b"\n\n" + LINE)
@example(SIGNED)
def test_any_bytes_are_a_note_that_renders_to_them_or_a_typed_error(raw: bytes) -> None:
    if raised(raw) is None:
        assert Note.parse(raw).render() == raw


@given(st.text(max_size=60) | st.from_regex(r"[a-z]{1,3}\+[0-9a-f]{8}\+A[A-Za-z0-9+/]{43}"))
def test_any_text_is_a_verifier_key_that_reads_back_or_a_typed_error(vkey: str) -> None:
    try:
        key = VerifierKey.parse(vkey)
    except Rejected:
        return
    assert key.encode() == vkey


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40), st.text(max_size=20))
def test_whatever_can_be_signed_can_be_opened(text: str, name: str) -> None:
    try:
        raw = sign_note(text + "\n", name, ALICE)
    except Rejected:
        return
    note, _ = open_note(raw, [VerifierKey(name, ED25519, ALICE.public)])
    assert note.text == text + "\n"
