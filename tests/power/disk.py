"""A disk that keeps its word only to the letter: what was not synced may be lost, in parts.

Harsher than any real one, because nothing but an fsync orders anything:

- Of what was written to a file since its last sync, every 512-byte sector is kept or lost by
  itself, as it was after any of the writes; the new length may be there or not.
- A name that was made, replaced or removed is durable once its folder is synced. Until then
  each change is kept or lost by itself. A rename never loses both names.
- After a sync that failed, what it should have written is gone and nobody says so again.
- Whole sectors are written or not, and nothing is lost that was synced and not written again.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

SECTOR = 512


class PowerCut(OSError):
    """There is no power any more: nothing that comes now has an effect."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the power is off")


class File:
    """What programs see (`now`), what would be there after a power cut, and what lies between."""

    def __init__(self, durable: bytes = b"") -> None:
        self.now = bytearray(durable)
        self.durable = bytearray(durable)
        self._pending: dict[int, list[bytes]] = {}  # per sector, what it was after each write
        self._lengths: list[int] = []

    def write(self, at: int, data: bytes) -> None:
        if at > len(self.now):
            self.now.extend(bytes(at - len(self.now)))
        self.now[at : at + len(data)] = data
        for i in range(at // SECTOR, -(-(at + len(data)) // SECTOR)):
            self._pending.setdefault(i, []).append(self._sector(i))
        self._length(len(self.now))

    def truncate(self, length: int) -> None:
        del self.now[length:]
        self.now.extend(bytes(max(0, length - len(self.now))))
        self._length(length)

    def sync(self) -> None:
        for length in self._lengths:  # one by one: what was cut off comes back as zeros
            self._set_length(self.durable, length)
        for i in self._pending:
            if i * SECTOR < len(self.now):
                _put(self.durable, i, self._sector(i))
        self._clean()

    def sync_failed(self) -> None:
        """The kernel gives up the pages and takes them for written."""
        self._clean()

    def after_cut(self, rng: Random) -> File:
        if rng.random() < 0.2:
            self.sync()  # all of it had just been written, though nobody was told
        kept = bytearray(self.durable)
        self._set_length(kept, rng.choice([len(self.durable), *self._lengths[-3:]]))
        for i, versions in self._pending.items():
            if rng.random() < 0.5:
                _put(kept, i, rng.choice(versions[-3:]))
        return File(kept)

    def _length(self, length: int) -> None:
        if length != (self._lengths[-1] if self._lengths else len(self.durable)):
            self._lengths.append(length)

    def _sector(self, i: int) -> bytes:
        return bytes(self.now[i * SECTOR : (i + 1) * SECTOR])

    def _clean(self) -> None:
        self._pending.clear()
        self._lengths.clear()

    @staticmethod
    def _set_length(content: bytearray, length: int) -> None:
        del content[length:]
        content.extend(bytes(max(0, length - len(content))))


class Folder:
    def __init__(self) -> None:
        self.now: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}


Node = File | Folder


class Entry(NamedTuple):
    """What becomes of one name: it stands for `node`, or for nothing."""

    folder: Folder
    name: str
    node: Node | None

    def settle(self) -> None:
        _set(self.folder.durable, self.name, self.node)


class Disk:
    """Paths are relative, with slashes. `before` is asked before each change, and may raise."""

    def __init__(self) -> None:
        self.root = Folder()
        self.changes = 0
        self.before: Callable[[int, str], None] | None = None
        self.off = False
        self._pending: list[list[Entry]] = []  # a rename is one change of two names

    # -- what programs do --------------------------------------------------------

    def change(self, kind: str) -> None:
        """Count one call that could fail."""
        if self.off:
            raise PowerCut
        self.changes += 1
        if self.before is not None:
            self.before(self.changes, kind)

    def cut(self) -> PowerCut:
        self.off = True
        return PowerCut()

    def find(self, path: str) -> Node | None:
        node: Node | None = self.root
        for name in path.split("/") if path else ():
            node = node.now.get(name) if isinstance(node, Folder) else None
        return node

    def folder(self, path: str) -> Folder:
        found = self.find(path)
        assert isinstance(found, Folder), path
        return found

    def file(self, path: str) -> File:
        found = self.find(path)
        assert isinstance(found, File), path
        return found

    def make_folder(self, path: str) -> None:
        self._name(self._entry(path, Folder()))

    def create(self, path: str) -> File:
        made = File()
        self._name(self._entry(path, made))
        return made

    def unlink(self, path: str) -> None:
        self._name(self._entry(path, None))

    def rename(self, source: str, target: str) -> None:
        self._name(self._entry(target, self.find(source)), self._entry(source, None))

    def sync_folder(self, path: str) -> None:
        folder = self.folder(path)
        for change in self._pending[:]:
            if any(entry.folder is folder for entry in change):
                # A rename is one record of the journal: never only the removal.
                for entry in change:
                    entry.settle()
                self._pending.remove(change)

    # -- what remains ------------------------------------------------------------

    def after_cut(self, rng: Random) -> Disk:
        """The disk as the next start finds it."""
        kept: dict[int, dict[str, Node]] = {}
        for change in self._pending:
            if rng.random() < 0.5:
                for entry in change:
                    names = kept.setdefault(id(entry.folder), dict(entry.folder.durable))
                    _set(names, entry.name, entry.node)
        after, done = Disk(), dict[int, Node]()
        after.root = self._kept(self.root, kept, done, rng)
        return after

    def after_kill(self) -> Disk:
        """As the next process finds it when only the process ended: caches are still there."""
        self.off, self.before = False, None
        return self

    def _kept(
        self, folder: Folder, kept: dict[int, dict[str, Node]], done: dict[int, Node], rng: Random
    ) -> Folder:
        made = Folder()
        for name, node in sorted(kept.get(id(folder), folder.durable).items()):
            if id(node) not in done:
                done[id(node)] = (
                    node.after_cut(rng)
                    if isinstance(node, File)
                    else self._kept(node, kept, done, rng)
                )
            made.now[name] = made.durable[name] = done[id(node)]
        return made

    def walk(self, path: str = "") -> Iterator[tuple[str, Node]]:
        """Everything below, folders before what is in them."""
        for name, node in sorted(self.folder(path).now.items()):
            below = f"{path}/{name}".lstrip("/")
            yield below, node
            if isinstance(node, Folder):
                yield from self.walk(below)

    # -- small helpers -----------------------------------------------------------

    def _entry(self, path: str, node: Node | None) -> Entry:
        parent, _, name = path.rpartition("/")
        return Entry(self.folder(parent), name, node)

    def _name(self, *entries: Entry) -> None:
        for entry in entries:
            _set(entry.folder.now, entry.name, entry.node)
        self._pending.append(list(entries))


def _put(content: bytearray, i: int, sector: bytes) -> None:
    """Write one sector, as far as the file goes or further: a write makes it longer."""
    end = i * SECTOR + len(sector)
    content.extend(bytes(max(0, end - len(content))))
    content[i * SECTOR : end] = sector


def _set(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node
