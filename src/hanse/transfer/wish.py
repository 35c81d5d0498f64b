"""What is to be brought, from where, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from hanse.core.catalog.manifest import Manifest
from hanse.core.ids import Digest
from hanse.core.transfer.wanted import File, Neighbour
from hanse.rpc.channels import Channel

LIKE_MAX = 4
SLOW_S, SLOW_BYTES_S = 5.0, 1024**2


@dataclass(frozen=True, slots=True)
class Like:
    """A file that is here and may be like the one that is wanted."""

    file: File
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Wish:
    file: File
    size: int
    name: str
    like: tuple[Like, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A peer that may have it. `channel` is asked anew for each call: certificates are renewed."""

    name: str
    channel: Callable[[], Channel]
    rtt_s: float
    ticket: bytes = b""


ChannelTo = Callable[[Neighbour], Channel]


@dataclass(slots=True)
class Progress:
    """Of one file; read by whoever shows it. `rate` is bytes a second that came from peers."""

    wish: Wish
    done: int = 0
    came: int = 0
    begun_s: float = field(default_factory=time.monotonic)
    peers: set[str] = field(default_factory=set)

    def to_mapping(self) -> dict[str, Any]:
        """As people are shown it."""
        return {
            "release": str(self.wish.file.release),
            "file": self.wish.name,
            "bytes": self.done,
            "of": self.wish.size,
            "bytes_per_s": round(self.rate),
            "from": sorted(self.peers),
        }

    @property
    def slow(self) -> bool:
        return time.monotonic() - self.begun_s > SLOW_S and self.rate < SLOW_BYTES_S

    @property
    def rate(self) -> float:
        return self.came / max(time.monotonic() - self.begun_s, 0.001)


def likely(name: str, digest: Digest, held: Iterable[tuple[Digest, Manifest]]) -> tuple[Like, ...]:
    """The files of these releases, best first, that may be like the one of this name: of the same
    name, else of the same kind."""
    same, kind, seen = list[Like](), list[Like](), {digest}
    suffix = name.rpartition(".")[2]
    for release, manifest in held:
        for file in manifest.files:
            if file.digest in seen or file.name.rpartition(".")[2] != suffix:
                continue
            seen.add(file.digest)
            found = Like(File(file.digest, release), manifest)
            (same if file.name == name else kind).append(found)
    return tuple((same + kind)[:LIKE_MAX])
