"""One event's proof as one file (C2SP tlog-proof), for people who have nothing else.

    c2sp.org/tlog-proof@v1
    extra <base64 of the event's bytes: its leaf hash is made from them>
    index 73894
    <base64 of a hash>                      from the leaf's sibling up to the root's child

    <the signed checkpoint, with cosignatures, as it is>

`extra` is not authenticated by the format. Here it is: the leaf hash over it must lead to the
root that the log's key has signed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from hanse.core.encoding import strict_base64, to_base64
from hanse.core.errors import InvalidProof, TooLarge
from hanse.core.limits import EVENT_BYTES_MAX, NOTE_BYTES_MAX
from hanse.core.log.checkpoint import Checkpoint
from hanse.core.log.merkle import HASH_BYTES, leaf_hash
from hanse.core.log.note import Note
from hanse.core.log.proofs import Proof, verify_inclusion

FIRST_LINE = "c2sp.org/tlog-proof@v1"
PROOF_BYTES_MAX = NOTE_BYTES_MAX + 2 * EVENT_BYTES_MAX
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")
_PATH_MAX = 64


@dataclass(frozen=True, slots=True)
class TlogProof:
    """That `event` is leaf `index` of the log whose head is `note`."""

    index: int
    path: Proof
    note: bytes
    event: bytes = b""

    def render(self) -> bytes:
        lines = [FIRST_LINE]
        if self.event:
            lines.append(f"extra {to_base64(self.event)}")
        lines += [f"index {self.index}", *map(to_base64, self.path), "", ""]
        return "\n".join(lines).encode() + self.note

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read what `render` writes. Raises `InvalidProof` or `TooLarge`; verifies nothing."""
        if len(raw) > PROOF_BYTES_MAX:
            raise TooLarge(
                f"the proof has {len(raw)} bytes", fix=f"a proof has at most {PROOF_BYTES_MAX}"
            )
        head, gap, note = raw.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise InvalidProof("a proof is ASCII down to its checkpoint") from None
        if not gap or lines.pop(0) != FIRST_LINE:
            raise InvalidProof(f"a proof begins with the line {FIRST_LINE}")
        event = b""
        if lines and lines[0].startswith("extra "):
            event = _decoded(lines.pop(0).removeprefix("extra "))
        index = _INDEX.fullmatch(lines.pop(0)) if lines else None
        if index is None:
            raise InvalidProof("a proof names the index of its entry: index 73894")
        if len(lines) > _PATH_MAX:
            raise InvalidProof(f"an inclusion proof has at most {_PATH_MAX} hashes")
        path = tuple(map(_decoded, lines))
        if any(len(node) != HASH_BYTES for node in path):
            raise InvalidProof(f"a hash in a proof has {HASH_BYTES} bytes")
        return cls(int(index[1]), path, note, event)

    @property
    def checkpoint(self) -> Checkpoint:
        """What the note says. Nobody has verified its signature here."""
        return Checkpoint.parse(Note.parse(self.note).text)

    def verify(self, checkpoint: Checkpoint) -> bytes:
        """The event's leaf hash, if it stands under this head, whose signature was verified."""
        leaf = leaf_hash(self.event)
        verify_inclusion(leaf, self.index, checkpoint.size, self.path, checkpoint.root)
        return leaf


def _decoded(text: str) -> bytes:
    data = strict_base64(text)
    if not data:
        raise InvalidProof(f"{text[:80]!r} is not base64")
    return data
