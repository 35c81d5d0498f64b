"""Log heads as C2SP checkpoints, and witnesses' cosignatures on them.

    <origin>                        the log's name, and the name its key signs under
    <size>                          leaves, decimal, no leading zero
    <base64 of the RFC 6962 root>

A daemon's key signs notes whose first line is its own origin and nothing else of that
shape; a witness signs `cosignature/v1`, the time and the same three lines with a different
key. So no signature of one kind can be replayed as another. C2SP permits further lines;
Hanse writes none and refuses them, because two heads of one log could differ in them alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from hanse.core import signing
from hanse.core.encoding import strict_base64, to_base64
from hanse.core.errors import InvalidProof, InvalidSignature
from hanse.core.log.merkle import EMPTY_ROOT, HASH_BYTES, SIZE_MAX
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

TIME_S_MAX = 2**63 - 1
_TIME_BYTES = 8
# int() alone would take "1_0", "+1", " 1" and digits of other scripts.
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: its first `size` leaves have this RFC 6962 root."""

    origin: str
    size: int
    root: bytes
    """32 bytes."""

    def __post_init__(self) -> None:
        key_name(self.origin)
        if not 0 <= self.size <= SIZE_MAX:
            raise InvalidProof(f"a log cannot have {self.size} leaves")
        if len(self.root) != HASH_BYTES:
            raise InvalidProof(f"a root has 32 bytes, not {len(self.root)}")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise InvalidProof("an empty log has one root only, and it is another")

    def body(self) -> str:
        """The three lines that are signed, each with its newline."""
        return f"{self.origin}\n{self.size}\n{to_base64(self.root)}\n"

    @classmethod
    def parse(cls, body: str) -> Self:
        """Read a note's text. Raises `InvalidProof` or `InvalidName`."""
        lines = body.split("\n")
        if len(lines) != 4 or lines[3]:
            raise InvalidProof("a checkpoint has three lines: origin, size and root")
        origin, size, root = lines[0], lines[1], strict_base64(lines[2])
        if not _SIZE.fullmatch(size):
            raise InvalidProof(f"{size[:40]!r} is not a log's size")
        if root is None:
            raise InvalidProof(f"{lines[2][:80]!r} is not a root in base64")
        return cls(origin, int(size), root)


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """The signed note of a log's own head; the signer's name is the origin."""
    return sign_note(checkpoint.body(), checkpoint.origin, key)


def open_checkpoint(raw: bytes, origin: str, public: bytes) -> Checkpoint:
    """The head of the log `origin`, whose key is `public` (raw, 32 bytes).

    Raises `InvalidSignature` if that key did not sign it, `InvalidProof` if it did but the
    text is no checkpoint of that log.
    """
    note, _ = open_note(raw, (VerifierKey(origin, ED25519, public),))
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != origin:
        raise InvalidProof(
            f"the key of {origin!r} signed a head of {checkpoint.origin!r}",
            fix="keep the note as evidence: that key signs for a log that is not its own",
        )
    return checkpoint


def cosign(raw_note: bytes, witness_name: str, key: SigningKey, time_s: int) -> bytes:
    """A witness's signature line; `raw_note + line` is the cosigned note.

    `time_s` is POSIX time. The caller has opened the checkpoint and checked that it extends
    the last one it cosigned: this says "the largest log that I have seen is this one".
    Raises `InvalidProof` if the note is no checkpoint.
    """
    checkpoint = Checkpoint.parse(Note.parse(raw_note).text)
    witness = VerifierKey(witness_name, COSIGNATURE_V1, key.public)
    return cosignature(checkpoint, witness, key, time_s).line().encode()


def cosignature(
    checkpoint: Checkpoint, witness: VerifierKey, key: SigningKey, time_s: int
) -> NoteSignature:
    """As `cosign`, for a head that has been read already; `key` is that of `witness`."""
    if not 0 <= time_s <= TIME_S_MAX:
        raise InvalidProof(f"{time_s} is not a POSIX time")
    signature = key.sign(_cosigned(checkpoint.body(), time_s))
    stamped = time_s.to_bytes(_TIME_BYTES, "big") + signature
    return NoteSignature(witness.name, witness.key_id, stamped)


def verify_cosignature(note: Note, witness: VerifierKey) -> int:
    """The POSIX time in seconds, as the witness claims it, of its latest cosignature here.

    Raises `InvalidSignature` if there is none, or if any line of this witness fails. Two
    witnesses with one `public` are one witness: whoever counts a quorum counts keys.
    """
    if witness.kind != COSIGNATURE_V1:
        raise InvalidSignature(
            f"the key of {witness.name!r} is no witness key",
            fix="list witnesses by their own verifier key, type 0x04",
        )
    Checkpoint.parse(note.text)
    times_s = [
        _verify_stamped(note.text, line.signature, witness)
        for line in note.signatures
        if line.is_by(witness)
    ]
    if not times_s:
        raise InvalidSignature(f"{witness.name!r} did not cosign this checkpoint")
    return max(times_s)


def _verify_stamped(body: str, stamped: bytes, witness: VerifierKey) -> int:
    time_s = int.from_bytes(stamped[:_TIME_BYTES], "big")
    if time_s > TIME_S_MAX:
        raise InvalidSignature(f"the cosignature of {witness.name!r} has no POSIX time")
    signing.verify(witness.public, stamped[_TIME_BYTES:], _cosigned(body, time_s))
    return time_s


def _cosigned(body: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{body}".encode()
