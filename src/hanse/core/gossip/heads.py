"""The head map: how far we hold each author's log, and its digest.

For logs that only grow, (size, root) per author is the smallest honest summary: two daemons
with equal digests hold the same events, and act under the same trust, whose digest is part
of it: a members file that was lost on its way is missed at the next ping, like an event. So
is the last cosignature of a quorum, since the digest covers how far each log is final, and the
proof of a fork. Of a log that has ended it covers what counts: more may be held here or there.

The map is also a tree. An origin's place is the first hex digits of its hash, so every range
of places (a prefix of digits) has a fingerprint: the hash of what its sixteen parts hold.
Changing one head spoils one path of it, and asking for a digest recomputes that path only.
"""

from __future__ import annotations

import hashlib
from collections import UserDict
from collections.abc import Iterable

from hanse.core.gossip.frames import LogHead
from hanse.core.ids import Origin
from hanse.core.step import Head

PREFIX_BYTES = 8
FAN = 16
DEPTH = 3  # digits of a place: some 4,000 places, about one head each in a large federation
EVERYTHING = b""
_NOTHING = bytes(32)


class HeadMap(UserDict[Origin, Head]):
    """A dictionary that can also be asked by range; a prefix is one byte (0 to 15) a digit."""

    def __init__(self) -> None:
        self._places: dict[bytes, dict[bytes, Head]] = {}
        self._counts: dict[bytes, int] = {}
        self._fingerprints: dict[bytes, bytes] = {}
        super().__init__()

    def __setitem__(self, origin: Origin, head: Head) -> None:
        self._displace(origin)
        self.data[origin] = head
        if head.stop is None or head.stop.held:  # else nothing of it counts: as if it were not
            place = place_of(origin)
            self._touch(place, 1)
            self._places.setdefault(place, {})[origin.hash] = head

    def __delitem__(self, origin: Origin) -> None:
        self._displace(origin)
        del self.data[origin]

    def _displace(self, origin: Origin) -> None:
        place = place_of(origin)
        if self._places.get(place, {}).pop(origin.hash, None) is not None:
            self._touch(place, -1)

    def count(self, prefix: bytes) -> int:
        """How many logs lie in that range."""
        return self._counts.get(prefix, 0)

    def below(self, prefix: bytes) -> list[Head]:
        """Their heads, in the order of places."""
        if not self.count(prefix):
            return []
        if len(prefix) == DEPTH:
            at = self._places[prefix]
            return [at[key] for key in sorted(at)]
        return [head for part in parts(prefix) for head in self.below(part)]

    def fingerprint(self, prefix: bytes) -> bytes:
        """32 bytes that are equal for equal heads in that range; zeros if there are none."""
        if not self.count(prefix):
            return _NOTHING
        if (known := self._fingerprints.get(prefix)) is None:
            if len(prefix) == DEPTH:
                inside = b"\0" + b"".join(map(_extent, self.below(prefix)))
            else:
                inside = b"\1" + b"".join(map(self.fingerprint, parts(prefix)))
            known = self._fingerprints[prefix] = hashlib.sha256(inside).digest()
        return known

    def _touch(self, place: bytes, more: int) -> None:
        for length in range(DEPTH + 1):
            self._fingerprints.pop(place[:length], None)
            self._counts[place[:length]] = self.count(place[:length]) + more


def _extent(head: Head) -> bytes:
    """All of one log that two daemons must have alike: no more than counts, if it has ended."""
    size, root, fork = shown(head)
    sizes = b"".join(n.to_bytes(8, "big") for n in (size, head.final_size, fork))
    return head.origin.hash + sizes + root


def shown(head: Head) -> tuple[int, bytes, int]:
    """Size and root of a log as peers are told them, and where it has forked."""
    stop = head.stop
    return (stop.held, stop.root, stop.fork) if stop else (head.size, head.root, 0)


def place_of(origin: Origin) -> bytes:
    return bytes(int(digit, FAN) for digit in origin.hash.hex()[:DEPTH])


def parts(prefix: bytes) -> list[bytes]:
    return [prefix + bytes([digit]) for digit in range(FAN)]


def digest(heads: HeadMap, trust: bytes) -> bytes:
    """SHA-256 over the trust digest and the fingerprint of all heads; 32 B."""
    return hashlib.sha256(b"hanse-heads/v1\n" + trust + heads.fingerprint(EVERYTHING)).digest()


def lacks(ours: Head | None, theirs: LogHead) -> bool:
    """Whether a peer that says this of a log has something of it that we do not."""
    return ours is None or shown(ours)[0] < theirs.size


def exceeds(ours: Head, theirs: LogHead | None) -> bool:
    """Whether we have something of a log that a peer which says this does not.

    Where one of the two knows more cosignatures, or another fork, both must name the log: the
    other answers.
    """
    if theirs is None:
        return True
    size, _, fork = shown(ours)
    differs = ours.final_size != theirs.final_size or fork != theirs.frozen
    return differs or size > theirs.size


def differ(ours: Head, theirs: LogHead) -> bool:
    """Whether a peer holds another branch: equal sizes, and another root."""
    size, root, fork = shown(ours)
    same = (size, fork) == (theirs.size, theirs.frozen)
    return same and root[:PREFIX_BYTES] != theirs.root_prefix


def summary(heads: Iterable[Head]) -> tuple[LogHead, ...]:
    return tuple(map(_told, heads))


def _told(head: Head) -> LogHead:
    size, root, fork = shown(head)
    return LogHead(head.origin, size, root[:PREFIX_BYTES], head.final_size, fork)
