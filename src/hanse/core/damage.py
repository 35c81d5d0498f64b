"""What was found damaged on this daemon's disk, for people and for the next start."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

from hanse.core.ids import Digest
from hanse.core.reading import Reader, canonical_json, parse_json

SHOWN_MAX = 64
BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Damage:
    """Something of the file `digest`, found at Unix time `at_ms`. `healed`: it is whole again."""

    digest: Digest
    what: str
    at_ms: int
    healed: bool = False


@dataclass(frozen=True, slots=True)
class Scrub:
    """How far the check of all files has come, and what it and others have found.

    `after` is the last file that was checked, empty between two passes.
    """

    began_ms: int = 0
    after: str = ""
    found: tuple[Damage, ...] = ()

    @property
    def open(self) -> tuple[Digest, ...]:
        """Those that are still to be fetched."""
        return tuple(dict.fromkeys(each.digest for each in self.found if not each.healed))

    def tell(self, damage: Damage) -> Scrub:
        """Once for each file that is not whole; the newest are kept."""
        if not damage.healed and damage.digest in self.open:
            return self
        return replace(self, found=(damage, *self.found)[:SHOWN_MAX])

    def heal(self, whole: Collection[Digest]) -> Scrub:
        return replace(
            self,
            found=tuple(
                replace(each, healed=each.healed or each.digest in whole) for each in self.found
            ),
        )

    def encode(self) -> bytes:
        found = [{**asdict(each), "digest": each.digest.hex} for each in self.found]
        return canonical_json({"began_ms": self.began_ms, "after": self.after, "found": found})

    @classmethod
    def decode(cls, raw: bytes) -> Scrub:
        """Raises `Rejected` for what this did not write."""
        with Reader(parse_json(raw, "scrub", bytes_max=BYTES_MAX), "scrub") as reader:
            return cls(
                reader.integer("began_ms"),
                reader.text("after"),
                reader.items("found", _damage, count_max=SHOWN_MAX),
            )


def _damage(value: Any, path: str) -> Damage:
    with Reader(value, path) as reader:
        digest, what = Digest(reader.text("digest")), reader.text("what")
        return Damage(digest, what, reader.integer("at_ms"), reader.raw("healed", False) is True)
