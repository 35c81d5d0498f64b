"""Signed notes (C2SP signed-note): a text, an empty line, signature lines.

    fed.example/eu/9f…c2/i3
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — <key name> <base64(key id, 4 bytes || signature)>

A note that is accepted renders to the bytes that were read, so one log head has one form.
Nothing in the text may be believed before `open_note` has verified a signature by a key
that the caller trusts. Key ids are hints for finding the key, never a check.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from hanse.core import signing
from hanse.core.encoding import strict_base64, to_base64
from hanse.core.errors import InvalidName, InvalidProof, InvalidSignature, TooLarge
from hanse.core.limits import NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX
from hanse.core.signing import SigningKey

ED25519 = 0x01
COSIGNATURE_V1 = 0x04
_KINDS = frozenset({ED25519, COSIGNATURE_V1})

KEY_ID_BYTES = 4
_EM_DASH = "— "
# Wider than C2SP's U+0000 to U+001F: DEL and the C1 controls steer terminals too. Lone
# surrogates can stand in a Python text but not in UTF-8.
_FORBIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_KEY_ID_HEX = re.compile(r"[0-9a-f]{8}")


def key_name(name: str) -> str:
    """Check a key name: not empty, no spaces, plus or controls, UTF-8. Raises `InvalidName`."""
    if not name or "+" in name or name.split() != [name] or _FORBIDDEN.search(name):
        raise InvalidName(
            f"key name {name[:80]!r} cannot stand in a signed note",
            fix="use a name without spaces, + and control characters, such as example.com/log42",
        )
    return name


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key, the name it signs under and the kind of statement it signs."""

    name: str
    kind: int
    """`ED25519` over the note's text, or `COSIGNATURE_V1` over text and time."""
    public: bytes
    """32 bytes."""

    def __post_init__(self) -> None:
        key_name(self.name)
        if self.kind not in _KINDS:
            raise InvalidSignature(
                f"signature type {self.kind:#04x} is not supported",
                fix="use an Ed25519 key: type 0x01 for logs, 0x04 for witnesses",
            )
        signing.admit_public_key(self.public)

    @property
    def key_id(self) -> bytes:
        """4 bytes; two keys may share them, so they only narrow the search."""
        material = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return sha256(material).digest()[:KEY_ID_BYTES]

    def encode(self) -> str:
        """The C2SP vkey: `<name>+<key id in hex>+<base64(type || key)>`."""
        material = bytes([self.kind]) + self.public
        return f"{self.name}+{self.key_id.hex()}+{to_base64(material)}"

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Read a vkey. Raises `InvalidName` or `InvalidSignature`."""
        fix = "copy the whole verifier key, <name>+<8 hex digits>+<base64>, from its owner"
        parts = vkey.split("+", 2)  # base64 may hold further plus signs
        if len(parts) != 3 or not _KEY_ID_HEX.fullmatch(parts[1]):
            raise InvalidSignature(f"{vkey[:200]!r} is not a verifier key", fix=fix)
        material = strict_base64(parts[2])
        if not material:
            raise InvalidSignature(f"the key in {vkey[:200]!r} is not base64", fix=fix)
        key = cls(parts[0], material[0], material[1:])
        if key.key_id.hex() != parts[1]:
            raise InvalidSignature(f"the key id in {vkey[:200]!r} is of another key", fix=fix)
        return key


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line. Whose it is and whether it stands is not known yet."""

    name: str
    key_id: bytes
    signature: bytes
    """What the type of the key defines: 64 bytes, or 8 bytes of time and 64 bytes."""

    def __post_init__(self) -> None:
        key_name(self.name)
        if len(self.key_id) != KEY_ID_BYTES or not self.signature:
            raise InvalidProof("a note signature has a key id of 4 bytes and at least one more")

    def line(self) -> str:
        return f"{_EM_DASH}{self.name} {to_base64(self.key_id + self.signature)}\n"

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read a line without its newline. Raises `InvalidProof` or `InvalidName`."""
        name, space, encoded = line.removeprefix(_EM_DASH).partition(" ")
        blob = strict_base64(encoded)
        if not line.startswith(_EM_DASH) or not space or blob is None:
            raise InvalidProof(f"{line[:80]!r} is not a signature line: — <name> <base64>")
        return cls(name, blob[:KEY_ID_BYTES], blob[KEY_ID_BYTES:])

    def is_by(self, key: VerifierKey) -> bool:
        """Whether this line claims to be by `key`; only verifying shows that it is."""
        return self.name == key.name and self.key_id == key.key_id


@dataclass(frozen=True, slots=True)
class Note:
    """A well-formed note; unverified unless `open_note` returned it."""

    text: str
    """Includes its final newline, not the empty line after it."""
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        if not self.text.endswith("\n") or _FORBIDDEN.search(self.text):
            raise InvalidProof(
                "a note's text is UTF-8, ends in a newline and has no other control characters"
            )
        if not self.signatures:
            raise InvalidProof("the note has no signature")
        if len(self.signatures) > NOTE_SIGNATURES_MAX:
            raise TooLarge(
                f"the note has {len(self.signatures)} signatures",
                fix=f"keep at most {NOTE_SIGNATURES_MAX}",
            )
        _require_note_size(len(self.render()))

    def render(self) -> bytes:
        return f"{self.text}\n{''.join(s.line() for s in self.signatures)}".encode()

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read a note. Raises `InvalidProof`, `InvalidName` or `TooLarge`."""
        _require_note_size(len(raw))
        try:
            whole = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidProof(f"the note is not UTF-8: {error.reason}") from None
        # The last empty line separates: the text may hold empty lines, signatures do not.
        head, separator, tail = whole.rpartition("\n\n")
        if not separator or not tail.endswith("\n"):
            raise InvalidProof("a note is a text, an empty line and signature lines")
        # Only \n ends a line here; str.splitlines would also split at U+0085 and U+2028.
        lines = tail[:-1].split("\n", NOTE_SIGNATURES_MAX)
        if len(lines) > NOTE_SIGNATURES_MAX:
            raise TooLarge(
                "the note has too many signatures", fix=f"keep at most {NOTE_SIGNATURES_MAX}"
            )
        return cls(head + "\n", tuple(NoteSignature.parse(line) for line in lines))


def sign_note(text: str, name: str, key: SigningKey) -> bytes:
    """The note over `text` with one Ed25519 signature (type 0x01) under `name`."""
    verifier = VerifierKey(name, ED25519, key.public)
    signature = NoteSignature(name, verifier.key_id, key.sign(text.encode()))
    return Note(text, (signature,)).render()


def open_note(raw: bytes, verifiers: Iterable[VerifierKey]) -> tuple[Note, tuple[VerifierKey, ...]]:
    """The note and those `verifiers` (all `ED25519`) that signed it, in the order given.

    Lines by unknown keys are ignored. A line by a known key that does not verify refuses
    the whole note, and so does a note that no known key signed (`InvalidSignature`).
    """
    known = _by_name_and_id(verifiers)
    note = Note.parse(raw)
    text = note.text.encode()
    signers = set()
    for line in note.signatures:
        verifier = known.get((line.name, line.key_id))
        if verifier is not None:
            signing.verify(verifier.public, line.signature, text)
            signers.add(verifier)
    if not signers:
        raise InvalidSignature(
            f"no trusted key signed this note; it names {note.signatures[0].name!r}",
            fix="check that the trust file lists the signer's present key",
        )
    return note, tuple(verifier for verifier in known.values() if verifier in signers)


def _by_name_and_id(verifiers: Iterable[VerifierKey]) -> dict[tuple[str, bytes], VerifierKey]:
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for verifier in verifiers:
        if verifier.kind != ED25519:
            raise InvalidSignature(f"the key of {verifier.name!r} cosigns; it signs no notes")
        if known.setdefault((verifier.name, verifier.key_id), verifier) != verifier:
            raise InvalidSignature(
                f"two keys of {verifier.name!r} share one key id",
                fix="replace one of the two keys",
            )
    return known


def _require_note_size(size_bytes: int) -> None:
    if size_bytes > NOTE_BYTES_MAX:
        raise TooLarge(f"the note has {size_bytes} bytes", fix=f"keep it under {NOTE_BYTES_MAX}")
