"""Names that are parsed once at the boundary and trusted afterwards.

A value of one of these types cannot be wrong: the constructors refuse anything else, so
code that receives a `Digest` or a `Segment` never checks it again. Names are labels, never
paths: no segment can hold a separator, a dot-dot or a control character (T28).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NewType, Self

from hanse.core.errors import InvalidName

_SEGMENT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HEX = re.compile(r"[0-9a-f]+")
_INCARNATION = re.compile(r"i([1-9][0-9]{0,8})(?:-([0-9a-f]{8}))?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253}):([1-9][0-9]{0,4})")

INCARNATION_MAX = 10**9 - 1

Segment = NewType("Segment", str)
"""`[a-z0-9][a-z0-9._-]{0,63}`: a model, region, node, rollout, channel or federation."""

Version = NewType("Version", str)
"""`[A-Za-z0-9][A-Za-z0-9._-]{0,63}`: what people call a release; its digest is its identity."""

MemberId = NewType("MemberId", str)
"""32 hex digits: the first 16 bytes of SHA-256 of the raw Ed25519 public key."""


@lru_cache(maxsize=8192)
def _is_segment(text: str) -> bool:
    return _SEGMENT.fullmatch(text) is not None and ".." not in text


def segment(text: str, what: str = "name") -> Segment:
    """Parse a name. Raises `InvalidName` that says which characters are allowed."""
    if not _is_segment(text):
        raise InvalidName(
            f"{what} {text[:80]!r} is not a valid name",
            fix="use 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit",
        )
    return Segment(text)


def version(text: str) -> Version:
    """Parse a version label such as `4.0.0`. Raises `InvalidName`."""
    if not _VERSION.fullmatch(text) or ".." in text:
        raise InvalidName(
            f"version {text[:80]!r} is not a valid version",
            fix="use 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit",
        )
    return Version(text)


def check_address(text: str, what: str) -> str:
    """A `host:port` that others can dial. Raises `InvalidName`."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[1]) > 65535:
        raise InvalidName(
            f"{what} {text[:80]!r} is not host:port", fix="write for example 127.0.0.1:7420"
        )
    return text


@lru_cache(maxsize=20_000)  # everybody's, asked for with every step
def member_id(public_key: bytes) -> MemberId:
    """The id of whoever holds this raw 32-byte Ed25519 key; nobody can choose it."""
    return MemberId(hashlib.sha256(public_key).hexdigest()[:32])


def parse_member_id(text: str) -> MemberId:
    if len(text) != 32 or not _HEX.fullmatch(text):
        raise InvalidName(f"member id {text[:80]!r} is not 32 lower-case hex digits")
    return MemberId(text)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256 digest; written `sha256:<64 hex digits>`."""

    hex: str

    def __post_init__(self) -> None:
        if len(self.hex) != 64 or not _HEX.fullmatch(self.hex):
            raise InvalidName(
                f"digest {self.hex[:80]!r} is not 64 lower-case hex digits",
                fix="write sha256: and the 64 digits that sha256sum prints",
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `sha256:<hex>`. Raises `InvalidName` for any other algorithm or form."""
        algorithm, colon, digits = text.partition(":")
        if algorithm != "sha256" or not colon:
            raise InvalidName(
                f"digest {text[:80]!r} does not begin with sha256:",
                fix="write sha256: and the 64 digits that sha256sum prints",
            )
        return cls(digits)

    @classmethod
    def of(cls, data: bytes | memoryview) -> Self:
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        if len(raw) != 32:
            raise InvalidName(f"a digest has 32 bytes, not {len(raw)}")
        digest = object.__new__(cls)  # any 32 bytes are a digest: nothing is left to check
        object.__setattr__(digest, "hex", raw.hex())
        return digest

    @property
    def raw(self) -> bytes:
        return bytes.fromhex(self.hex)

    @property
    def short(self) -> str:
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """The name of one log: `<federation>/<region>/<member id>/i<incarnation>`.

    Every incarnation but the first ends in `-` and eight random hex digits: a restored disk
    may give a number a second time, and must not give a name a second time. Origins of one
    member sort by incarnation.
    """

    federation: Segment
    region: Segment
    member: MemberId
    incarnation: int
    salt: str = ""

    def __post_init__(self) -> None:
        if (self.incarnation > 1) != bool(self.salt):
            raise InvalidName("incarnation 1 has no salt, and every later one has eight hex digits")

    @classmethod
    def parse(cls, text: str) -> Self:
        parts = text.split("/")
        last = _INCARNATION.fullmatch(parts[3]) if len(parts) == 4 else None
        if last is None:
            raise InvalidName(
                f"origin {text[:200]!r} is not <federation>/<region>/<member>/i<incarnation>"
            )
        return cls(
            segment(parts[0], "federation"),
            segment(parts[1], "region"),
            parse_member_id(parts[2]),
            int(last[1]),
            last[2] or "",
        )

    def __str__(self) -> str:
        end = f"-{self.salt}" if self.salt else ""
        return f"{self.federation}/{self.region}/{self.member}/i{self.incarnation}{end}"

    def next(self, salt: bytes) -> Origin:
        """The incarnation that follows this one; `salt` are 4 random bytes.

        The last number may be used again: whoever has stolen the key must not be able to use
        up all numbers, and the salt keeps the names apart.
        """
        number = min(self.incarnation + 1, INCARNATION_MAX)
        return Origin(self.federation, self.region, self.member, number, salt.hex())

    @property
    def hash(self) -> bytes:
        """32 bytes that bind an event to this log and thereby to this federation."""
        return hashlib.sha256(str(self).encode()).digest()


@dataclass(frozen=True, slots=True, order=True)
class EventId:
    """The RFC 6962 leaf hash of an event's bytes; shown as `ev_<12 hex digits>`."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise InvalidName(f"an event id has 32 bytes, not {len(self.raw)}")

    def __str__(self) -> str:
        return f"ev_{self.raw.hex()[:12]}"
