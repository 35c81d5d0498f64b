"""A blob on its way to the disk: hashed while it streams, named only when it is whole.

An interrupted fetch can be resumed. Beside the part lies its mark, `<hex>.mark`, with the length
that was flushed and the digest of that much. The mark is written after the fsync, so it never
promises more than there is; at the resume the part is hashed again and, when that differs from
the mark, begun anew. Neither name is synced: a power cut may cost the part, never its digest.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from hanse.core.errors import Broken, HanseError, InvalidProof, TooLarge, Unavailable
from hanse.core.ids import Digest

MARK_EVERY_BYTES = 64 * 1024**2
"""What a crash costs at most of an interrupted fetch; smaller means more fsyncs."""

_READ_BYTES = 1024**2
FULL = {errno.ENOSPC, errno.EDQUOT}
_BUSY = {errno.EMFILE, errno.ENFILE}
_MARK = re.compile(r"([0-9]{1,15}) ([0-9a-f]{64})\n")


@contextlib.contextmanager
def disk_errors(deed: str) -> Iterator[None]:
    """Translate what the disk says: full may pass, everything else is the end (T46)."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise Unavailable(
                f"cannot {deed}: the disk is full", fix="free some space, then try again"
            ) from error
        if error.errno in _BUSY:
            raise Unavailable(
                f"cannot {deed}: too many open files", fix="raise the limit (ulimit -n)"
            ) from error
        raise Broken(
            f"cannot {deed}: {error.strerror}", fix="check the disk, then start the daemon again"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make names in `folder` durable: an fsync of a file does not cover its name."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def publish(fd: int, path: Path, name: Path) -> None:
    """Give the open file at `path` its name: only once its bytes are on the disk."""
    os.fsync(fd)
    os.fchmod(fd, 0o444)
    name.parent.mkdir(mode=0o700, exist_ok=True)
    path.replace(name)
    sync_folder(name.parent)
    sync_folder(name.parent.parent)


class Part:
    """An open temporary file that is only ever appended to, and the digest of what it holds."""

    def __init__(self, fd: int, path: Path, *, resumable: bool) -> None:
        self.fd = fd
        self.path = path
        self.length = 0
        self.hash = hashlib.sha256()
        self._resumable = resumable
        self._marked = 0

    @classmethod
    def resume(cls, path: Path, size: int, mode: int = 0o600) -> Self:
        """Open the part at `path`, positioned behind the bytes that are proved to be there."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT, mode)
        try:
            lock_part(fd, path)
            part = cls(fd, path, resumable=True)
            part._prove(size)
            os.ftruncate(fd, part.length)
            os.lseek(fd, part.length, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return part

    def _prove(self, size: int) -> None:
        """Take over as much as the mark promises, if the bytes are still those."""
        with contextlib.suppress(FileNotFoundError):
            found = _MARK.fullmatch(mark_of(self.path).read_text("ascii", "replace"))
            if not found or int(found[1]) > size:
                return
            left, proof = int(found[1]), hashlib.sha256()
            while left and (chunk := os.read(self.fd, min(left, _READ_BYTES))):
                proof.update(chunk)
                left -= len(chunk)
            if not left and proof.hexdigest() == found[2]:
                self.hash, self.length = proof, int(found[1])
                self._marked = self.length

    def append(self, chunk: bytes) -> None:
        write_all(self.fd, chunk)
        self.hash.update(chunk)
        self.length += len(chunk)
        if self._resumable and self.length - self._marked >= MARK_EVERY_BYTES:
            self.mark()

    def mark(self) -> None:
        """Make what has arrived resumable, or discard it when it never can be."""
        if not self._resumable:
            self.path.unlink(missing_ok=True)
        elif self.length > self._marked:
            os.fsync(self.fd)
            new = self.path.with_suffix(".tmp")
            new.write_text(f"{self.length} {self.hash.hexdigest()}\n", "ascii")
            new.replace(mark_of(self.path))
            self._marked = self.length

    def publish(self, path: Path) -> None:
        publish(self.fd, self.path, path)
        mark_of(self.path).unlink(missing_ok=True)

    def discard(self) -> None:
        mark_of(self.path).unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


class BlobWriter:
    """`Writer` of one blob; used by one thread at a time."""

    def __init__(
        self,
        part: Part,
        size: int,
        digest: Digest | None,
        place: Callable[[Digest], Path],
        release: Callable[[int], None],
        published: Callable[[Digest], None],
    ) -> None:
        self._part, self._size, self._digest = part, size, digest
        self._place, self._published = place, published
        self._release = release  # gives back bytes that the store keeps free for this writer
        self._open = True

    @property
    def offset(self) -> int:
        return self._part.length

    def write(self, chunk: bytes) -> None:
        self._check_open()
        if self._part.length + len(chunk) > self._size:
            self.abort()
            raise TooLarge(
                f"more than the declared {self._size} bytes arrived",
                fix="fetch the blob from another peer",
            )
        before = self._part.length
        try:
            with disk_errors("write a blob"):
                self._part.append(chunk)
        finally:
            self._release(self._part.length - before)

    def commit(self) -> Path:
        self._check_open()
        if self._part.length != self._size:
            arrived = self._part.length
            self.suspend()
            raise InvalidProof(
                f"the blob ended after {arrived} of {self._size} bytes",
                fix="fetch the rest, from this peer or another",
            )
        digest = Digest(self._part.hash.hexdigest())
        if self._digest not in (None, digest):
            self.abort()
            raise InvalidProof(
                f"the bytes have digest {digest}, not {self._digest}",
                fix="fetch the blob from another peer",
            )
        path = self._place(digest)
        with disk_errors("publish a blob"):
            # An older copy of the same digest is replaced: it may have rotted, this has not.
            self._part.publish(path)
        self._close()
        self._published(digest)
        return path

    def suspend(self) -> None:
        if self._open:
            try:
                with disk_errors("keep a part"):
                    self._part.mark()
            except Unavailable:
                pass  # a full disk: the last mark still holds
            finally:
                self._close()

    def abort(self) -> None:
        if self._open:
            try:
                with disk_errors("discard a part"):
                    self._part.discard()
            finally:
                self._close()

    def _close(self) -> None:
        self._open = False
        os.close(self._part.fd)
        self._release(self._size - self._part.length)

    def _check_open(self) -> None:
        if not self._open:
            raise Broken("the blob writer is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.suspend()


def mark_of(part: Path) -> Path:
    return part.with_suffix(".mark")


def lock_part(fd: int, path: Path) -> None:
    """One writer a part. Whoever held it may have published or discarded it meanwhile."""
    busy: HanseError = Unavailable(
        f"another fetch of {path.name} is under way", fix="wait for it, then ask again"
    )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise busy from error
    if not path.exists() or not os.path.samestat(os.fstat(fd), path.stat()):
        raise busy
