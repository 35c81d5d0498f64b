"""Trust files are larger than a frame: how they travel in parts."""

from __future__ import annotations

from collections.abc import Iterator

from hanse.core import limits
from hanse.core.gossip.frames import TrustFile
from hanse.core.ids import MemberId

PART_BYTES = 192 * 1024
PARTS_MAX = -(-limits.TRUST_BUNDLE_BYTES_MAX // PART_BYTES)


def parts_of(version: int, raw: bytes) -> Iterator[TrustFile]:
    parts = [raw[i : i + PART_BYTES] for i in range(0, len(raw), PART_BYTES)]
    for i, data in enumerate(parts):
        yield TrustFile(version, i, len(parts), data)


class Gathering:
    """One file at a time from each peer: another version or split begins anew."""

    def __init__(self) -> None:
        self._parts: dict[MemberId, tuple[tuple[int, int], dict[int, bytes]]] = {}

    def take(self, peer: MemberId, frame: TrustFile) -> bytes | None:
        """The whole file once its last part is here."""
        if not 0 <= frame.part < frame.parts <= PARTS_MAX:
            return None
        split = (frame.version, frame.parts)
        if self._parts.get(peer, (None,))[0] != split:
            self._parts[peer] = (split, {})
        parts = self._parts[peer][1]
        parts[frame.part] = frame.data
        if len(parts) < frame.parts:
            return None
        del self._parts[peer]
        return b"".join(parts[i] for i in range(frame.parts))

    def forget(self, peer: MemberId) -> None:
        self._parts.pop(peer, None)
