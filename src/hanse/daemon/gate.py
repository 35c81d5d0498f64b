"""What the store gives away, and to whom: residency on the direct peer's verified certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from hanse.core.catalog.residency import may_go
from hanse.core.ids import Digest
from hanse.core.node import Node
from hanse.core.transfer.wanted import Elsewhere, File, Wanted
from hanse.daemon.neighbours import Neighbours
from hanse.parts.recipe import Recipe
from hanse.rpc import tls
from hanse.storage.blobs import Blobs
from hanse.storage.recipes import recipe_in

log = structlog.get_logger("hanse.gate")


class Gate:
    """Decides, before anything is looked up, what the direct peer may fetch of the store."""

    def __init__(self, node: Node, blobs: Blobs, neighbours: Neighbours | None = None) -> None:
        self._node, self._blobs, self._neighbours = node, blobs, neighbours
        self.size, self.read_range = blobs.size, blobs.read_range
        self.on_damage: Callable[[Digest], None] = lambda _: None
        self.on_denied: Callable[[tls.Peer, Digest], None] = lambda *_: None

    def may_fetch(self, peer: tls.Peer, file: File, ticket: bytes = b"") -> bool:
        """Not permitted and not there look the same (T36)."""
        members = self._node.book.chain.current
        tls.check_known(peer, members)
        found = self._node.catalog.release(file.release)
        if found is None:
            return False
        if not may_go(found, self._node.me.region, peer.region, members):
            log.warning(
                "fetch_denied", peer=peer.name, region=peer.region, release=file.release.short
            )
            self._node.counters["fetches_denied"] += 1
            self.on_denied(peer, file.release)
            return False
        return file.digest in {f.digest for f in found.manifest.files} and self._blobs.has(
            file.digest
        )

    def may_lean(self, peer: tls.Peer, base: File) -> bool:
        return self.may_fetch(peer, base)

    def recipe(self, file: File) -> Recipe:
        release = self._node.catalog.release(file.release)
        return recipe_in(self._blobs, release.manifest if release else None, file.digest)

    async def elsewhere(self, peer: tls.Peer, wanted: Wanted) -> Mapping[int, Elsewhere]:
        return self._neighbours.elsewhere(peer, wanted) if self._neighbours else {}

    async def has_part(self, file: File, part: int, until_s: float) -> bool:
        return True
