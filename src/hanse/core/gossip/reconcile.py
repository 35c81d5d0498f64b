"""Finding what two head maps do not share, at a cost that follows the difference.

One side says the fingerprints of the sixteen parts of a range; the other answers, for each
part that differs, with the fingerprints one digit deeper, or, where it holds only a few logs,
by naming their heads. Whoever reads such a list knows what it lacks, and answers with what its
author lacks; that answer is the last word. Every answer speaks only of ranges that differ.

Fingerprints travel as eight bytes, salted with both nonces of the link: nobody can prepare two
states of a log that look alike on a link whose nonces are not drawn yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from hanse.core.gossip.frames import Fingerprints, Heads, Range
from hanse.core.gossip.heads import DEPTH, HeadMap, exceeds, parts, summary
from hanse.core.step import Head

T = TypeVar("T")
FINGERPRINT_BYTES = 8
LISTED_MAX = 4  # to name so many heads costs little more than sixteen fingerprints
PER_FRAME = 1000  # heads at most 200 B, ranges 150 B: each fits into one frame


def salt(nonce: bytes, other: bytes) -> bytes:
    """What both ends of a link mix into their fingerprints."""
    return b"".join(sorted((nonce, other)))


def describe(heads: HeadMap, prefixes: Iterable[bytes], salt: bytes) -> list[Fingerprints | Heads]:
    """All that a peer needs to know of these ranges in order to find what differs there."""
    ranges, small = [], []
    for prefix in _disjoint(prefixes):
        if len(prefix) == DEPTH or heads.count(prefix) <= LISTED_MAX:
            small.append(prefix)
        else:
            ranges.append(Range(prefix, _parts_of(heads, prefix, salt)))
    frames: list[Fingerprints | Heads] = [Fingerprints(tuple(r)) for r in _frames(ranges)]
    for names in _frames(small):
        named = summary(head for prefix in names for head in heads.below(prefix))
        below: tuple[bytes, ...] = tuple(names)
        for listed in _frames(named) or [()]:
            frames.append(Heads(tuple(listed), below))
            below = ()
    return frames


def differing(heads: HeadMap, frame: Fingerprints, salt: bytes) -> list[bytes]:
    """The parts of these ranges that the peer's fingerprints do not describe as ours do."""
    found: set[bytes] = set()
    for theirs in frame.ranges:
        ours = _parts_of(heads, theirs.prefix, salt)
        for i, part in enumerate(parts(theirs.prefix)):
            at = slice(i * FINGERPRINT_BYTES, (i + 1) * FINGERPRINT_BYTES)
            if ours[at] != theirs.parts[at]:
                found.add(part)
    return sorted(found)


def unknown(heads: HeadMap, frame: Heads) -> list[Head]:
    """Our heads in the ranges of a list that its author has not, or not as far as we."""
    named = {head.origin: head for head in frame.heads}
    ours = (head for prefix in _disjoint(frame.below) for head in heads.below(prefix))
    return [head for head in ours if exceeds(head, named.get(head.origin))]


def tell(heads: Iterable[Head]) -> list[Heads]:
    return [Heads(tuple(part)) for part in _frames(summary(heads))]


def _parts_of(heads: HeadMap, prefix: bytes, salt: bytes) -> bytes:
    whole = (hashlib.sha256(salt + heads.fingerprint(part)).digest() for part in parts(prefix))
    return b"".join(fingerprint[:FINGERPRINT_BYTES] for fingerprint in whole)


def _disjoint(prefixes: Iterable[bytes]) -> Iterator[bytes]:
    """Each range once, and none that lies in another: a list may not be made to cost more."""
    last: bytes | None = None
    for prefix in sorted(prefixes):
        if last is None or not prefix.startswith(last):
            last = prefix
            yield prefix


def _frames(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[i : i + PER_FRAME] for i in range(0, len(items), PER_FRAME)]
