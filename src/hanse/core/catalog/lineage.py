"""Descent, and the release to fall back to.

The rollback target is a pure function of the records: no clock, no local cache, no arrival
order. Whether its artifact is at hand decides only *when* a node gets there, never *what*.
"""

from __future__ import annotations

from collections.abc import Iterator

from hanse.core.catalog.view import ModelView, Release
from hanse.core.ids import Digest


def ancestors(view: ModelView, start: Digest) -> Iterator[Release]:
    """Recorded ancestors, nearest first; safe against cycles and unknown parents."""
    seen, ring = {start}, [start]
    while ring:
        parents: list[Digest] = []
        for digest in ring:
            release = view.release(digest)
            parents += [p.release for p in release.manifest.parents] if release else []
        ring = [p for p in dict.fromkeys(parents) if p not in seen]
        seen.update(ring)
        for digest in ring:
            release = view.release(digest)
            if release is not None:
                yield release


def rollback_target(view: ModelView, bad: Digest, region: str) -> Release | None:
    """The nearest ancestor that is fit for this region, not barred and not below the floor.

    A region that is cut off still falls back to what it recorded and proved itself. None means
    that no release is fit: it then keeps what its plan declares, or disables the model. Every
    daemon with the same records names the same release for it.
    """
    for release in ancestors(view, bad):
        if release.fit(region) and not release.barred and release.counter >= view.floor:
            return release
    return None
