"""What the verb `gc` answers, key by key; see `shapes`."""

from __future__ import annotations

from typing import TypedDict


class CollectedRelease(TypedDict):
    model: str
    version: str
    release: str
    size: int  # bytes of it that lay here
    goes: int  # of them; what it shares with a release that stays is not counted
    why: list[str]  # it stays; empty: it goes


class CollectedBlob(TypedDict):
    digest: str
    size: int
    why: list[str]


class Collected(TypedDict):
    dry_run: bool
    bytes: int  # that went, or would go
    kept_bytes: int
    releases: list[CollectedRelease]
    blobs: list[CollectedBlob]  # also those that no release names
