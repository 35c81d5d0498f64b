"""What a blob service serves from: files in a folder, right or wrong."""

from __future__ import annotations

from pathlib import Path

from hanse.core.errors import NotFound, NotPermitted
from hanse.core.ids import Digest
from hanse.rpc.tls import Peer


class Shelf:
    """Serves whatever lies in the folder under a digest, but for what is `secret`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[Peer, Digest, Digest]] = []
        self.secret: set[Digest] = set()

    def put(self, data: bytes, digest: Digest | None = None) -> Digest:
        digest = digest or Digest.of(data)
        self.path(digest).write_bytes(data)
        return digest

    def path(self, digest: Digest) -> Path:
        return self.folder / digest.hex

    def may_fetch(self, peer: Peer, digest: Digest, release: Digest) -> bool:
        self.asked.append((peer, digest, release))
        if digest in self.secret:
            raise NotPermitted("residency")
        return self.path(digest).exists()

    def size(self, digest: Digest) -> int:
        if not self.path(digest).exists():
            raise NotFound("dropped")
        return self.path(digest).stat().st_size

    def read_range(self, digest: Digest, start: int, length: int) -> bytes:
        with self.path(digest).open("rb") as file:
            file.seek(start)
            return file.read(length)
