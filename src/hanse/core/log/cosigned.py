"""A log head and the cosignatures on it that were verified here, as they gather.

Notes of one head are merged by union of signature lines: the author's own, which was verified
when the head entered, and one line of each witness whose key we know. Lines by unknown keys
are left out, so that nobody can fill a note up; of one witness the first line stays, so that
no two notes can push each other around for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hanse.core.errors import InvalidProof
from hanse.core.limits import NOTE_SIGNATURES_MAX
from hanse.core.log.checkpoint import Checkpoint, verify_cosignature
from hanse.core.log.note import Note, NoteSignature, VerifierKey


@dataclass(slots=True)
class Cosigned:
    """Owned by `finality`. `trust` is the highest trust version up to this head's last event."""

    head: Checkpoint
    author: NoteSignature
    trust: int
    lines: dict[VerifierKey, NoteSignature] = field(default_factory=dict)

    def note(self) -> bytes:
        lines = sorted(self.lines.values(), key=lambda line: (line.name, line.key_id))
        return Note(self.head.body(), (self.author, *lines)).render()

    def add(self, witness: VerifierKey, line: NoteSignature) -> bool:
        """Take a verified line; False if there is one of this key, or no room."""
        if len(self.lines) + 1 >= NOTE_SIGNATURES_MAX:
            return False
        if any(witness.public == known.public for known in self.lines):
            return False
        self.lines[witness] = line
        return True

    def merge(self, note: Note, witnesses: Witnesses) -> bool:
        """Take over the lines of these witnesses that are new to us; whether there were any.

        Raises `InvalidSignature` if a line of one of them does not stand, and `InvalidProof`
        if the note is about another head.
        """
        if note.text != self.head.body():
            raise InvalidProof(f"the note is not about {self.head.origin} at {self.head.size}")
        found = False
        for line in note.signatures:
            witness = witnesses.get((line.name, line.key_id))
            if witness is not None and witness not in self.lines:
                verify_cosignature(note, witness)
                found = self.add(witness, line) or found
        return found


Witnesses = Mapping[tuple[str, bytes], VerifierKey]
"""Witness keys that count, by what a signature line says of its key."""


def by_line(keys: Iterable[VerifierKey]) -> Witnesses:
    return {(key.name, key.key_id): key for key in keys}
