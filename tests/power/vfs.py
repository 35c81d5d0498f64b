"""SQLite's files on the disk of `power.disk`: a file system for APSW.

It does what SQLite's own does on Unix: claims that a write harms nothing beside it, and syncs
the folder with the first sync of a journal or log that it made, and with a removal that asks
for it. It has no shared memory, so a write-ahead log needs `locking_mode=EXCLUSIVE`.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from random import Random
from typing import Any

import apsw

from power.disk import Disk, File, PowerCut

_LOGS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
_CODES = {
    "read": apsw.SQLITE_IOERR_READ,
    "write": apsw.SQLITE_IOERR_WRITE,
    "extend": apsw.SQLITE_IOERR_WRITE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "delete": apsw.SQLITE_IOERR_DELETE,
    "open": apsw.SQLITE_CANTOPEN,
}
_CLASSES = {"open": apsw.CantOpenError}


class Files(apsw.VFS):
    """Registered under `name` until it is collected; the disk is `disk`, in one folder."""

    def __init__(self, name: str, disk: Disk, rng: Random) -> None:
        self.name, self.disk, self._rng = name, disk, rng
        super().__init__(name, "")

    def xFullPathname(self, name: str) -> str:
        return name.rpartition("/")[2]

    def xOpen(self, name: Any, flags: list[int]) -> OpenFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None:
            return OpenFile(self.disk, File(), None)
        found = self.disk.find(path)
        if not isinstance(found, File):
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(path)
            with _errors("open"):
                self.disk.change("open")
            found = self.disk.create(path)
            return OpenFile(self.disk, found, "" if flags[0] & _LOGS else None)
        return OpenFile(self.disk, found, None)

    def xDelete(self, name: str, sync_folder: bool) -> None:
        with _errors("delete"):
            self.disk.change("delete")
        self.disk.unlink(name)
        if sync_folder:
            self.disk.sync_folder("")

    def xAccess(self, name: str, flags: int) -> bool:
        return self.disk.find(name) is not None

    def xRandomness(self, count: int) -> bytes:
        return self._rng.randbytes(count)

    def excepthook(self, *_: Any) -> None:
        """SQLite gets the error; nobody needs to read it as well."""


class OpenFile(apsw.VFSFile):
    """One open file; `unsynced` names the folder that its first sync has to sync too."""

    def __init__(self, disk: Disk, file: File, unsynced: str | None) -> None:
        # No file of the real file system is below, so the base class is not told of one.
        self._disk, self._file, self._unsynced = disk, file, unsynced

    def xRead(self, amount: int, offset: int) -> bytes:
        with _errors("read"):
            self._disk.change("read")
        return bytes(self._file.now[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        with _errors("write"):
            longer = offset + len(data) > len(self._file.now)
            try:
                self._disk.change("extend" if longer else "write")
            except ShortWrite:
                self._file.write(offset, bytes(data[: len(data) // 2]))
                raise
        self._file.write(offset, bytes(data))

    def xTruncate(self, length: int) -> None:
        with _errors("truncate"):
            self._disk.change("truncate")
        self._file.truncate(length)

    def xSync(self, flags: int) -> None:
        with _errors("sync"):
            try:
                self._disk.change("sync")
            except PowerCut:
                raise
            except OSError:
                self._file.sync_failed()
                raise
        self._file.sync()
        if self._unsynced is not None:
            self._disk.sync_folder(self._unsynced)
            self._unsynced = None

    def xFileSize(self) -> int:
        return len(self._file.now)

    def xSectorSize(self) -> int:
        return 4096

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xLock(self, level: int) -> None:
        """One connection: nobody to keep out."""

    def xUnlock(self, level: int) -> None:
        """The same."""

    def xCheckReservedLock(self) -> bool:
        return False

    def xClose(self) -> None:
        """Nothing to let go of: the file belongs to the disk."""

    def excepthook(self, *_: Any) -> None:
        """As above."""


class ShortWrite(OSError):
    """Half of it is written, then the disk is full."""

    def __init__(self) -> None:
        super().__init__(errno.ENOSPC, "short write")


@contextlib.contextmanager
def _errors(kind: str) -> Iterator[None]:
    """Errors of the disk in SQLite's words."""
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC and kind in ("write", "extend", "truncate")
        found = (apsw.FullError if full else _CLASSES.get(kind, apsw.IOError))(str(error))
        found.extendedresult = apsw.SQLITE_FULL if full else _CODES[kind]
        found.result = found.extendedresult & 0xFF
        raise found from error
