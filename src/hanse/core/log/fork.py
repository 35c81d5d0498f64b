"""Proof that one author has signed two histories of one log; anybody can check it offline.

Two heads of the log, each signed by its key, and the path of the event at `index` under each:
two different events stand at one place. The left siblings of a path are the hashes of all that
comes before, so where those are equal too, `index` is the very first place at which the two
differ. Without that, two true proofs of one fork could name two places.

    {"heads": [{"leaf": base64, "note": base64, "path": [base64, ...]}, {...}],
     "index": n, "origin": ..., "schema": 1}

canonical JSON, the lesser note first, each with the author's signature alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from hanse.core import limits
from hanse.core.encoding import strict_base64, to_base64
from hanse.core.errors import InvalidProof, InvalidSpec
from hanse.core.ids import Origin
from hanse.core.log.checkpoint import open_checkpoint
from hanse.core.log.merkle import SIZE_MAX, leaf_hash, root_of
from hanse.core.log.note import ED25519, Note, VerifierKey
from hanse.core.log.proofs import Proof, inclusion_proof, verify_inclusion
from hanse.core.reading import Reader, canonical_json, parse_json


@dataclass(frozen=True, slots=True)
class Branch:
    """What one head says of the place: the hash of the event there, and its path."""

    note: bytes
    leaf: bytes
    path: Proof


@dataclass(frozen=True, slots=True)
class Fork:
    """Two branches of `origin` that agree on everything before `index`."""

    origin: Origin
    index: int
    branches: tuple[Branch, Branch]

    def encode(self) -> bytes:
        heads = [
            {
                "leaf": to_base64(branch.leaf),
                "note": to_base64(branch.note),
                "path": [to_base64(node) for node in branch.path],
            }
            for branch in self.branches
        ]
        return canonical_json(
            {"heads": heads, "index": self.index, "origin": str(self.origin), "schema": 1}
        )


Outcome = Fork | Literal["earlier"] | None
"""Of comparing two branches: a proof; or they part `earlier` than was shown; or they do not."""


Copy = tuple[bytes, Sequence[bytes]]
"""A signed note, and all leaf hashes up to the size that it signs."""


def prove(origin: Origin, key: bytes, one: Copy, two: Copy) -> Fork | None:
    """None if one of the two copies extends the other."""
    pairs = zip(one[1], two[1], strict=False)
    index = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if index is None:
        return None
    made = [
        Branch(_bare(note, origin, key), leaves[index], inclusion_proof(leaves, index))
        for note, leaves in (one, two)
    ]
    first, second = sorted(made, key=lambda branch: branch.note)
    return Fork(origin, index, (first, second))


def open_fork(raw: bytes, key_of: Callable[[Origin], bytes]) -> Fork:
    """Read and check a proof; `key_of` gives the key that signs a log. Raises `Rejected`."""
    fork = _parse(raw)
    if fork.encode() != raw:
        raise InvalidProof("the evidence is not in canonical form")
    key, before = key_of(fork.origin), []
    for branch in fork.branches:
        head = open_checkpoint(branch.note, str(fork.origin), key)
        if branch.note != _bare(branch.note, fork.origin, key):
            raise InvalidProof("a note in evidence carries its author's signature alone")
        verify_inclusion(branch.leaf, fork.index, head.size, branch.path, head.root)
        before.append(_left(fork.index, head.size, branch.path))
    first, second = fork.branches
    if first.leaf == second.leaf or first.note >= second.note:
        raise InvalidProof("the two heads do not contradict each other")
    if before[0] != before[1]:
        raise InvalidProof(f"the two logs differ before event {fork.index} already")
    return fork


def _parse(raw: bytes) -> Fork:
    document = parse_json(raw, "evidence", bytes_max=limits.EVIDENCE_BYTES_MAX)
    with Reader(document, "evidence") as reader:
        reader.integer("schema", low=1, high=1)
        index = reader.integer("index", high=SIZE_MAX)
        origin = Origin.parse(reader.text("origin"))
        heads = reader.raw("heads")
    if not isinstance(heads, list) or len(heads) != 2:
        raise InvalidSpec("evidence.heads: expected two")
    first, second = (_branch(head, f"evidence.heads[{i}]") for i, head in enumerate(heads))
    return Fork(origin, index, (first, second))


def _branch(value: object, path: str) -> Branch:
    with Reader(value, path) as reader:
        texts = [reader.text("note", bytes_max=2048), reader.text("leaf")]
        nodes = reader.raw("path")
    if not isinstance(nodes, list) or not all(isinstance(node, str) for node in nodes):
        raise InvalidSpec(f"{path}.path: expected hashes in base64")
    known = [node for node in map(strict_base64, (*texts, *nodes)) if node is not None]
    if len(known) < 2 + len(nodes):
        raise InvalidSpec(f"{path}: expected base64")
    return Branch(known[0], known[1], tuple(known[2:]))


def _bare(note: bytes, origin: Origin, key: bytes) -> bytes:
    """The note with its author's signature alone: what others added is no part of the proof."""
    parsed, author = Note.parse(note), VerifierKey(str(origin), ED25519, key)
    return Note(parsed.text, (next(s for s in parsed.signatures if s.is_by(author)),)).render()


def _left(index: int, size: int, path: Proof) -> tuple[bytes, ...]:
    """The siblings to the left: the hashes of the subtrees that make up all before `index`."""
    found, position, last = [], index, size - 1
    for sibling in path:
        if position & 1 or position == last:
            found.append(sibling)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        position, last = position >> 1, last >> 1
    return tuple(found)


def compare(
    origin: Origin,
    key: bytes,
    ours: tuple[bytes, Sequence[bytes]],
    theirs: tuple[bytes, Sequence[bytes]],
    start: int,
) -> Outcome:
    """Weigh events from `start` on, up to a signed note, against (note, leaf hashes) of ours.

    `earlier` says that they follow from another beginning; None, that they contradict nothing.
    """
    note, events = theirs
    leaves = (*ours[1][:start], *map(leaf_hash, events))
    if root_of(leaves) != open_checkpoint(note, str(origin), key).root:
        return "earlier"
    return prove(origin, key, ours, (note, leaves))
