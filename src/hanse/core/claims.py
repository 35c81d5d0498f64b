"""Who needs a blob that the daemons of a region keep in one bucket, and when its copies may go.

    pins/<hex>/<member>    this daemon needs the blob; nobody else makes or removes this object
    blobs/<hex>/<nonce>    a copy of the bytes, under a name that is used once
    going/<hex>/<member>   this daemon is about to remove the copies that it has listed

Nobody holds a lock, and a daemon may stop for an hour between any two requests. What holds all
the same: **a copy that `rely` has answered stays until its daemon gives its pin up.**

A remover marks, lists the copies, and only then the pins; one who relies pins first and looks for
marks afterwards. So one of the two sees the other: a remover that sees a pin removes nothing, and
who sees a mark makes a copy of his own, which the remover cannot have listed: had he, his look at
the pins, later still, would have shown him ours. A removal that comes late hits names that nobody
uses any more. All of it needs a bucket that lists what was just written, as S3, GCS and Azure do.

A daemon never relies on a blob and removes it at once: that is its own to see to.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from hanse.core.ids import Digest, MemberId


@dataclass(frozen=True, slots=True)
class Object:
    """One object of the bucket. `came_s`: Unix time of the bucket's clock."""

    key: str
    size: int
    came_s: float


@dataclass(frozen=True, slots=True)
class Put:
    """Make the object `key` with nothing in it, or renew it."""

    key: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Done if the object is not there."""

    key: str


@dataclass(frozen=True, slots=True)
class Find:
    """Answered with the objects whose key begins so, in the order of their keys."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Copy:
    """Answered with the copy, which is whole, or with nothing if the source is gone."""

    source: str
    key: str


Request: TypeAlias = Put | Delete | Find | Copy
Objects: TypeAlias = tuple[Object, ...]
Asking: TypeAlias = Generator[Request, Objects, Objects]
"""Asks for one thing after another; what it returns says which objects it leaves there."""


def pin_key(digest: Digest, member: str = "") -> str:
    return f"pins/{digest.hex}/{member}"


def copy_key(digest: Digest, nonce: str = "") -> str:
    return f"blobs/{digest.hex}/{nonce}"


def going_key(digest: Digest, member: str = "") -> str:
    return f"going/{digest.hex}/{member}"


_KEY = re.compile(r"(pins|blobs|going)/[0-9a-f]{64}/[0-9a-f]{1,64}")


def digest_of(key: str) -> Digest:
    """Which blob an object is about."""
    return Digest(key.split("/")[1])


def owner_of(key: str) -> str:
    """The last part of a key: a member, or a nonce."""
    return key.rpartition("/")[2]


def rely(digest: Digest, member: MemberId, nonce: str) -> Asking:
    """Pin the blob, and find the copies that stay while we do. None: upload one, it stays."""
    yield Put(pin_key(digest, member))
    yield Delete(going_key(digest, member))  # of an earlier life: nobody carries that out now
    going = yield Find(going_key(digest))
    copies = yield Find(copy_key(digest))
    if not going:
        return copies
    for copy in copies:
        if own := (yield Copy(copy.key, copy_key(digest, nonce))):
            return own
    return ()


def give_up(digest: Digest, member: MemberId) -> Asking:
    """Unpin the blob, and remove its copies unless somebody else needs it. Returns whose pins
    stand in the way."""
    yield Delete(pin_key(digest, member))
    yield Put(going_key(digest, member))
    copies = yield Find(copy_key(digest))
    pins = yield Find(pin_key(digest))
    for copy in () if pins else copies:
        yield Delete(copy.key)
    yield Delete(going_key(digest, member))
    return pins


@dataclass(frozen=True, slots=True)
class Standing:
    """What a daemon finds when it looks at all of the bucket."""

    relied: Mapping[Digest, Objects]
    """Copies that stay, by the blob."""
    pinned: Mapping[Digest, Object]
    """Its own pins, of blobs that are there or not."""
    doubtful: tuple[Digest, ...]
    """Somebody is removing them: to be relied on anew."""
    unfinished: tuple[Digest, ...]
    """Marked by itself: it died while it removed them, or is doing it now."""
    others: Mapping[Digest, tuple[str, ...]]
    """Who else needs a blob."""
    left: Mapping[Digest, Objects]
    """Copies that nobody needs: of a daemon that died while it removed them, or uploaded."""


def look(member: MemberId) -> Generator[Request, Objects, Standing]:
    """In this order, for the reasons above: a pin of an earlier life stands before the look at
    the marks."""
    pins = _ours((yield Find("pins/")))
    going = _ours((yield Find("going/")))
    copies = _ours((yield Find("blobs/")))
    own = {digest_of(pin.key): pin for pin in pins if owner_of(pin.key) == member}
    others: dict[Digest, tuple[str, ...]] = {}
    for pin in pins:
        if (other := owner_of(pin.key)) != member:
            others[digest_of(pin.key)] = (*others.get(digest_of(pin.key), ()), other)
    marked = {digest_of(mark.key) for mark in going if owner_of(mark.key) != member}
    mine = {digest_of(mark.key) for mark in going if owner_of(mark.key) == member}
    relied: dict[Digest, Objects] = {}
    left: dict[Digest, Objects] = {}
    for copy in copies:
        digest = digest_of(copy.key)
        if digest in own and digest not in marked:
            relied[digest] = (*relied.get(digest, ()), copy)
        elif digest not in own and digest not in others:
            left[digest] = (*left.get(digest, ()), copy)
    doubtful = tuple(sorted(marked & own.keys()))
    return Standing(relied, own, doubtful, tuple(sorted(mine)), others, left)


def _ours(found: Objects) -> Objects:
    """What a stranger has put between them is nobody's pin and nobody's copy."""
    return tuple(each for each in found if _KEY.fullmatch(each.key))
