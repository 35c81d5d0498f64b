"""Real file operations below one folder, mirrored onto a `power.disk.Disk`.

The program under test works on real files, through `os` and `pathlib` as always; each call
that changes something is counted, may fail, and is then done twice. `check` compares both
sides: a call that the recorder does not know would be seen there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from power.disk import Disk, File, Folder, PowerCut

Deaf = Callable[[str, str], bool]
"""Whether the disk ignores an fsync, by the function that asks and the path that it names."""


class Recorder:
    """`folder` and `disk` hold the same at the start."""

    def __init__(self, folder: Path, disk: Disk, deaf: Deaf = lambda *_: False) -> None:
        self._folder, self.disk, self._deaf = folder, disk, deaf
        self._paths: dict[int, str] = {}
        self._files: dict[int, File] = {}  # a file keeps its content under any name
        self._os = {name: getattr(os, name) for name in _CALLS}

    @contextmanager
    def recording(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in _CALLS:
                patch.setattr(os, name, getattr(self, name))
            patch.setattr(Path, "write_text", _write_text)
            yield

    def check(self) -> None:
        """Both sides hold the same, so nothing has gone past the recorder."""
        real = {str(p.relative_to(self._folder)): p for p in self._folder.rglob("*")}
        mirrored = dict(self.disk.walk())
        assert sorted(real) == sorted(mirrored)
        for path, node in mirrored.items():
            assert real[path].is_dir() == isinstance(node, Folder), path
            if isinstance(node, File):
                assert real[path].read_bytes() == node.now, path

    # -- the calls, under their own names ------------------------------------------

    def open(self, path: Any, flags: int, mode: int = 0o777, **rest: Any) -> int:
        below = self._below(path)
        if below is None:
            return int(self._os["open"](path, flags, mode, **rest))
        found = self.disk.find(below)
        changes = found is None if flags & os.O_CREAT else flags & os.O_TRUNC
        if changes:
            self.disk.change("open")
        fd = int(self._os["open"](path, flags, mode, **rest))
        if found is None:
            found = self.disk.create(below)
        if isinstance(found, File):
            if flags & os.O_TRUNC:
                found.truncate(0)
            self._files[fd] = found
        self._paths[fd] = below
        return fd

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        self._files.pop(fd, None)
        self._os["close"](fd)

    def write(self, fd: int, data: Any) -> int:
        if fd not in self._files:
            return int(self._os["write"](fd, data))
        self.disk.change("write")
        at = os.lseek(fd, 0, os.SEEK_CUR)
        written = int(self._os["write"](fd, data))
        self._files[fd].write(at, bytes(data[:written]))
        return written

    def ftruncate(self, fd: int, length: int) -> None:
        if fd in self._files:
            self.disk.change("truncate")
            self._files[fd].truncate(length)
        self._os["ftruncate"](fd, length)

    def fsync(self, fd: int) -> None:
        if fd not in self._paths:
            return self._os["fsync"](fd)
        path, file = self._paths[fd], self._files.get(fd)
        try:
            self.disk.change("fsync")
        except PowerCut:
            raise
        except OSError:
            if file is not None:
                file.sync_failed()
            raise
        if not self._deaf(sys._getframe(1).f_code.co_name, path):
            if file is not None:
                file.sync()
            else:
                self.disk.sync_folder(path)
        return None  # the real disk need not be asked

    def mkdir(self, path: Any, mode: int = 0o777, **rest: Any) -> None:
        self._named("mkdir", self.disk.make_folder, path, mode, **rest)

    def rmdir(self, path: Any, **rest: Any) -> None:
        self._named("rmdir", self.disk.unlink, path, **rest)

    def unlink(self, path: Any, **rest: Any) -> None:
        self._named("unlink", self.disk.unlink, path, **rest)

    def replace(self, source: Any, target: Any, **rest: Any) -> None:
        old, new = self._below(source), self._below(target)
        if old is None or new is None:
            assert old is new, "a rename across the border of the disk"
            return self._os["replace"](source, target, **rest)
        self.disk.change("rename")
        self._os["replace"](source, target, **rest)
        return self.disk.rename(old, new)

    def _named(self, call: str, mirror: Callable[[str], None], path: Any, *rest: Any, **more: Any):
        below = self._below(path)
        if below is not None:
            self.disk.change(call)
        self._os[call](path, *rest, **more)
        if below is not None:
            mirror(below)

    def _below(self, path: Any) -> str | None:
        try:
            below = str(Path(os.path.abspath(path)).relative_to(self._folder))  # noqa: PTH100
        except (TypeError, ValueError):
            return None
        return "" if below == "." else below


_CALLS = ("open", "close", "write", "ftruncate", "fsync", "mkdir", "rmdir", "unlink", "replace")


def restore(disk: Disk, folder: Path) -> None:
    """Real files as the disk has them."""
    folder.mkdir()
    for path, node in disk.walk():
        if isinstance(node, Folder):
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(node.now)


def _write_text(path: Path, text: str, encoding: str) -> None:
    """As `Path.write_text`, which opens its file out of reach of a recorder of `os`."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        os.write(fd, text.encode(encoding))
    finally:
        os.close(fd)
