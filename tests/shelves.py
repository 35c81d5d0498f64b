"""What a blob service serves from: files in a folder, right or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hanse.core.errors import NotFound, NotPermitted
from hanse.core.ids import Digest
from hanse.core.transfer.wanted import Elsewhere, File, Wanted
from hanse.parts.recipe import Recipe, split
from hanse.rpc.tls import Peer


class Shelf:
    """Serves whatever lies in the folder under a digest, but for what is `secret`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[Peer, Digest, Digest]] = []
        self.secret: set[Digest] = set()
        self.pointed: dict[int, Elsewhere] = {}
        self.lacking: set[int] = set()
        self.damaged: list[Digest] = []

    def put(self, data: bytes, digest: Digest | None = None) -> Digest:
        digest = digest or Digest.of(data)
        self.path(digest).write_bytes(data)
        return digest

    def path(self, digest: Digest) -> Path:
        return self.folder / digest.hex

    def may_fetch(self, peer: Peer, file: File, ticket: bytes = b"") -> bool:
        self.asked.append((peer, file.digest, file.release))
        if file.digest in self.secret:
            raise NotPermitted("residency")
        return self.path(file.digest).exists()

    def may_lean(self, peer: Peer, base: File) -> bool:
        try:
            return self.may_fetch(peer, base)
        except NotPermitted:
            return False

    def size(self, digest: Digest) -> int:
        if not self.path(digest).exists():
            raise NotFound("dropped")
        return self.path(digest).stat().st_size

    def read_range(self, digest: Digest, start: int, length: int) -> bytes:
        with self.path(digest).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def recipe(self, file: File) -> Recipe:
        return replace(split(self.path(file.digest).read_bytes()), digest=file.digest)

    async def elsewhere(self, peer: Peer, wanted: Wanted) -> Mapping[int, Elsewhere]:
        return {} if wanted.insist else self.pointed

    async def has_part(self, file: File, part: int, until_s: float) -> bool:
        return part not in self.lacking

    def on_damage(self, digest: Digest) -> None:
        self.damaged.append(digest)
