"""Space that is set aside while there is plenty, for what must be written when there is none.

A file of zeros beside the registry. When SQLite says that the disk is full, the file is removed
and the transaction is tried once more; when space has come back, the file is made anew.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from hanse.core.room import Room
from hanse.storage.incoming import disk_errors, sync_folder

NAME = "reserve"


class Reserve:
    """Owned by the composition root; used from any thread, since each deed is one system call."""

    def __init__(self, folder: Path, size: int) -> None:
        self._path, self._size = folder / NAME, size

    def release(self) -> bool:
        """Give the space back; whether there was any to give."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def measure(self) -> Room:
        """How much is left, after the reserve was made anew if twice as much is free."""
        with disk_errors("measure the free space"):
            usage = shutil.disk_usage(self._path.parent)
        if self._size and usage.free >= 2 * self._size and not self._kept():
            with contextlib.suppress(OSError):  # somebody else was faster: try again next time
                self._make()
        with disk_errors("measure the free space"):
            usage = shutil.disk_usage(self._path.parent)
        return Room(usage.free, usage.total, self._size, self._kept())

    def _kept(self) -> bool:
        try:
            return self._path.stat().st_size == self._size
        except OSError:
            return False

    def _make(self) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(fd, 0, self._size)
            os.ftruncate(fd, self._size)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(fd)
        sync_folder(self._path.parent)
