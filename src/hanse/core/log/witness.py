"""What a witness promises: the heads it cosigns of one log follow from one another.

It remembers size and root of the largest head that it has cosigned. A new head must extend
that one: shown by a consistency proof (C2SP tlog-witness), or known because the witness holds
the log itself and has recomputed both roots. What it remembers is stored before the
cosignature leaves, in the same transaction that checked it: two requests at once, or a crash
between the two, must never make it vouch for less than it did (T19, I16).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from hanse.core.encoding import to_base64
from hanse.core.log.checkpoint import Checkpoint, cosignature
from hanse.core.log.merkle import EMPTY_ROOT
from hanse.core.log.note import NoteSignature, VerifierKey
from hanse.core.log.proofs import Proof
from hanse.core.signing import SigningKey


@dataclass(frozen=True, slots=True)
class Seen:
    """The largest head of one log that a witness has cosigned."""

    size: int = 0
    root: bytes = EMPTY_ROOT

    def allows(self, head: Checkpoint) -> bool:
        """Whether `head`, which is known to extend this one, may be cosigned."""
        return head.size > self.size or (head.size, head.root) == (self.size, self.root)


NOTHING = Seen()


class Status(IntEnum):
    """The answers of C2SP tlog-witness, by their HTTP status."""

    OK = 200
    FORBIDDEN = 403
    """No signature by the key that this log is known to have."""
    NOT_FOUND = 404
    """No such log is known here."""
    CONFLICT = 409
    """The old size is not the one remembered, or another root of that size is."""
    UNPROCESSABLE = 422
    """The proof does not lead from the remembered head to the new one."""


@dataclass(frozen=True, slots=True)
class Submission:
    """An add-checkpoint request: the head, and how it follows from one of `old_size`."""

    old_size: int
    proof: Proof
    note: bytes
    head: Checkpoint

    def render(self) -> bytes:
        lines = [f"old {self.old_size}", *map(to_base64, self.proof), "", ""]
        return "\n".join(lines).encode() + self.note


class Witness:
    """The witness inside a daemon, for logs of which it holds a copy. Owned by `finality`."""

    def __init__(self, key: VerifierKey, signing: SigningKey, seen: Mapping[str, Seen]) -> None:
        self.key = key
        self.seen = dict(seen)
        self._signing = signing
        self._unproven = set(seen)
        """Logs whose copy here was not yet found to contain what was cosigned of them."""

    def holds(self, origin: str, size: int, root: bytes) -> None:
        """The copy here has this root at this size."""
        if self.seen.get(origin, NOTHING) == Seen(size, root):
            self._unproven.discard(origin)

    def replaced(self, origin: str) -> None:
        """The copy here is another one now: what was cosigned must be found in it first."""
        if origin in self.seen:
            self._unproven.add(origin)

    def recall(self, head: Checkpoint) -> None:
        """Our own line has come back on this head, which we hold: a lost memory (T19)."""
        if head.size > self.seen.get(head.origin, NOTHING).size:
            self.seen[head.origin] = Seen(head.size, head.root)

    def cosign(self, head: Checkpoint, time_s: int) -> NoteSignature | None:
        """Our line on the note of a head that we hold and recomputed; None if we may not.

        The caller stores `seen` of this log before the line leaves.
        """
        if head.origin in self._unproven:
            return None
        if not self.seen.get(head.origin, NOTHING).allows(head):
            return None
        self.seen[head.origin] = Seen(head.size, head.root)
        return cosignature(head, self.key, self._signing, time_s)
