"""The event store in memory: the same promises, for simulation and tests.

No method ever suspends, so a simulator may run each coroutine to its end with `send(None)`.
What `apply` took counts as durable; `crash` gives what a restarted process would find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hanse.core.errors import Broken
from hanse.core.ids import Origin
from hanse.core.step import (
    AppendEvents,
    DropTrust,
    Head,
    PutIndex,
    PutLocal,
    PutTrust,
    PutView,
    PutWitness,
    TruncateLog,
    Write,
)
from hanse.storage.contract import EMPTY, Tail, check_writes, within


@dataclass(slots=True)
class _Log:
    head: Head
    events: list[bytes] = field(default_factory=list)
    checkpoints: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Disk:
    """All that is stored. A snapshot is one that nobody writes to any more."""

    logs: dict[Origin, _Log] = field(default_factory=dict)
    trust: list[bytes] = field(default_factory=list)
    local: dict[tuple[str, str], bytes] = field(default_factory=dict)
    views: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    index: dict[str, PutIndex] = field(default_factory=dict)
    witnessed: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def copy(self) -> Disk:
        logs = {
            origin: _Log(log.head, list(log.events), dict(log.checkpoints))
            for origin, log in self.logs.items()
        }
        derived = dict(self.views), dict(self.index)
        return Disk(logs, list(self.trust), dict(self.local), *derived, dict(self.witnessed))


class MemoryEventStore:
    """`EventStore` that forgets everything with the process."""

    def __init__(self) -> None:
        self._disk = Disk()
        self._refusal = ""

    def snapshot(self) -> Disk:
        """What is durable now, unaffected by later writes. Costs a copy of the references."""
        return self._disk.copy()

    def copy(self) -> MemoryEventStore:
        """Another store with the same contents."""
        twin = MemoryEventStore()
        twin._disk = self._disk.copy()
        return twin

    def crash(self, to: Disk | None = None) -> MemoryEventStore:
        """The store as the next process finds it; this one raises `Broken` from now on.

        With a snapshot from before an `apply`, that write never reached the disk.
        """
        self._refusal = "the process has crashed"
        after = self.copy()
        after._disk = to.copy() if to else after._disk
        return after

    async def apply(self, writes: Sequence[Write]) -> None:
        disk = self._usable()
        check_writes(writes, self._tail, len(disk.trust), disk.witnessed)
        for write in writes:
            _write(disk, write)

    def _tail(self, origin: Origin) -> Tail:
        log = self._disk.logs.get(origin)
        return Tail(log.head.size, log.head.root) if log else EMPTY

    async def heads(self) -> list[Head]:
        logs = self._usable().logs
        return [logs[origin].head for origin in sorted(logs, key=str)]

    async def head(self, origin: Origin) -> Head | None:
        log = self._usable().logs.get(origin)
        return log.head if log else None

    async def witnessed(self) -> dict[str, tuple[int, bytes]]:
        return dict(self._usable().witnessed)

    async def events(self, origin: Origin, start: int, limit: int, bytes_max: int) -> list[bytes]:
        log = self._usable().logs.get(origin)
        return within(log.events[start : start + max(limit, 0)] if log else (), bytes_max)

    async def checkpoint_at_or_before(self, origin: Origin, start: int, end: int) -> bytes | None:
        log = self._usable().logs.get(origin)
        sizes = [size for size in log.checkpoints if start < size <= end] if log else []
        return log.checkpoints[max(sizes)] if log and sizes else None

    async def trust(self) -> list[bytes]:
        return list(self._usable().trust)

    async def local(self, space: str) -> dict[str, bytes]:
        values = self._usable().local
        return {key: values[at, key] for at, key in sorted(values) if at == space}

    async def view(self, model: str) -> tuple[bytes, bytes] | None:
        return self._usable().views.get(model)

    async def views(self) -> dict[str, bytes]:
        return {model: digest for model, (digest, _) in sorted(self._usable().views.items())}

    async def drop_views(self) -> None:
        disk = self._usable()
        disk.views.clear()
        disk.index.clear()

    async def releases(self, model: str) -> list[tuple[str, str]]:
        index = self._usable().index.values()
        return sorted((put.version, put.release) for put in index if put.model == model)

    async def ancestors(self, release: str) -> list[str]:
        index, seen, open_ = self._usable().index, set[str](), [release]
        while open_:
            put = index.get(open_.pop())
            fresh = set(put.parents) - seen if put else set[str]()
            seen |= fresh
            open_ += fresh
        return sorted(seen - {release})

    async def close(self) -> None:
        self._refusal = self._refusal or "it is closed"

    def _usable(self) -> Disk:
        if self._refusal:
            raise Broken(f"cannot use the registry: {self._refusal}")
        return self._disk


def _write(disk: Disk, write: Write) -> None:
    match write:
        case AppendEvents(head=head):
            log = disk.logs.setdefault(head.origin, _Log(head))
            log.events += write.events
            log.checkpoints[head.size] = head.note
            if head.final_size and not write.events:
                log.checkpoints[head.final_size] = head.final_note
            log.head = head
        case DropTrust():
            del disk.trust[write.after :]
        case TruncateLog():
            log = disk.logs.pop(write.head.origin)
            if size := write.head.size:
                kept = {at: note for at, note in log.checkpoints.items() if at <= size}
                disk.logs[write.head.origin] = _Log(write.head, log.events[:size], kept)
        case PutTrust():
            disk.trust.append(write.raw)
        case PutWitness():
            disk.witnessed[write.origin] = (write.size, write.root)
        case PutView():
            disk.views[write.model] = (write.digest, write.document)
        case PutIndex():
            disk.index[write.release] = write
        case PutLocal():
            if write.value is None:
                disk.local.pop((write.space, write.key), None)
            else:
                disk.local[write.space, write.key] = write.value
