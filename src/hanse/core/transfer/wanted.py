"""What is asked of a peer about parts of a file, and what it may answer instead of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from hanse.core.ids import Digest

ASKED_MAX = 1024
"""Parts in one question."""
NEIGHBOURS_MAX = 8
ADDRESS_BYTES_MAX = 256


@dataclass(frozen=True, slots=True)
class File:
    """A file, and a release that names it: residency is a property of releases."""

    digest: Digest
    release: Digest


@dataclass(frozen=True, slots=True)
class Wanted:
    """Parts of a file by their numbers in the recipe whose encoding has that digest.

    `base`: a file that the asker holds. `packed`: compress also what has no base. `insist`: who
    was named in `Elsewhere` does not have them. `ticket`: a daemon's word for a neighbour.
    """

    file: File
    recipe: Digest
    parts: tuple[int, ...]
    base: File | None = None
    packed: bool = False
    insist: bool = False
    ticket: bytes = b""


class Shown(Protocol):
    """A file on its way, for people."""

    def to_mapping(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Neighbour:
    node: str
    address: str


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A part is not sent: these have it or soon will; nobody is named by who does not know."""

    neighbours: tuple[Neighbour, ...] = ()
    ticket: bytes = b""
