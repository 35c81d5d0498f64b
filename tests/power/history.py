"""Steps as daemons write them, drawn from a seed; and what a store shows of them.

The logs are real ones: leaves, roots, frontiers and signed notes, of this daemon and of two
others. `MemoryEventStore` says what must be there, so every kind of write is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from random import Random

from hanse.core.ids import Origin, member_id
from hanse.core.log.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from hanse.core.log.merkle import Frontier, leaf_hash
from hanse.core.signing import SigningKey
from hanse.core.step import (
    AppendEvents,
    Head,
    PutIndex,
    PutLocal,
    PutTrust,
    PutView,
    PutWitness,
    Write,
)
from hanse.storage.contract import EventStore

KEYS = {
    region: SigningKey(hashlib.sha256(region.encode()).digest())
    for region in ("north", "south", "west")
}
ORIGINS = {
    region: Origin.parse(f"harbour.example/{region}/{member_id(key.public)}/i1")
    for region, key in KEYS.items()
}
MODELS = ("ocr", "asr")
SPACES = ("progress", "duty")


class History:
    """Grows for ever. `step` is what comes next; nothing is taken back."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._logs = {region: Frontier.empty() for region in KEYS}
        self._final: dict[str, tuple[int, bytes]] = {}
        self._witnessed: dict[str, int] = {}
        self._trust = 0
        self._count = 0

    def __copy__(self) -> History:
        """The same past, and another future: the random numbers go on."""
        twin = History(self._rng)
        twin._final, twin._witnessed = dict(self._final), dict(self._witnessed)
        twin._logs, twin._trust, twin._count = dict(self._logs), self._trust, self._count
        return twin

    def step(self) -> tuple[Write, ...]:
        """One transaction: our own events, others' events, or both, and what follows of them."""
        rng = self._rng
        self._count += 1
        writes: list[Write] = [
            self._append(region) for region in KEYS if rng.random() < 0.6 or region == "north"
        ]
        if rng.random() < 0.15:
            self._trust += 1
            writes.append(PutTrust(self._trust, rng.randbytes(rng.choice((700, 9000)))))
        if rng.random() < 0.5:
            writes += self._witness(rng.choice(list(KEYS)))
        if rng.random() < 0.5:
            writes.append(PutView(rng.choice(MODELS), rng.randbytes(32), rng.randbytes(900)))
        if rng.random() < 0.3:
            writes.append(self._index())
        if rng.random() < 0.5:
            value = rng.randbytes(60) if rng.random() < 0.8 else None
            writes.append(PutLocal(rng.choice(SPACES), str(rng.randrange(5)), value))
        return tuple(writes)

    def _append(self, region: str) -> AppendEvents:
        rng, before = self._rng, self._logs[region]
        count = rng.choice((1, 1, 2, 5, 20))
        size = rng.choice((200, 700, 3000))
        events = tuple(rng.randbytes(size) for _ in range(count))
        after = self._logs[region] = before.append(tuple(map(leaf_hash, events)))
        origin = ORIGINS[region]
        checkpoint = Checkpoint(str(origin), after.size, after.root())
        note = sign_checkpoint(checkpoint, KEYS[region])
        if rng.random() < 0.3:
            self._final[region] = (after.size, note)  # who signs does not matter to a store
        final = self._final.get(region, (0, b""))
        head = Head(origin, after.size, after.root(), after.encode(), note, *final)
        return AppendEvents(head, before.size, events)

    def _witness(self, region: str) -> Iterator[PutWitness]:
        """A head that this daemon cosigns, if it is a larger one than before."""
        log = self._logs[region]
        if log.size > self._witnessed.get(region, 0):
            self._witnessed[region] = log.size
            yield PutWitness(str(ORIGINS[region]), log.size, log.root())

    def _index(self) -> PutIndex:
        parents = {f"r{self._rng.randrange(self._count + 3)}" for _ in range(2)}
        return PutIndex(f"r{self._count}", MODELS[0], f"{self._count}", tuple(sorted(parents)))


async def shown(store: EventStore) -> tuple[object, ...]:
    """Everything that a store can be asked for."""
    return (
        await store.heads(),
        await store.witnessed(),
        [await _events(store, head) for head in await store.heads()],
        await store.trust(),
        [await store.local(space) for space in SPACES],
        [await store.view(model) for model in MODELS],
        await store.views(),
        await store.releases(MODELS[0]),
        [await store.ancestors(f"r{i}") for i in range(8)],
    )


async def _events(store: EventStore, head: Head) -> list[bytes]:
    return await store.events(head.origin, 0, head.size, 2**30)


async def check_roots(store: EventStore) -> None:
    """I6: what the author signed is the root of the events that are stored."""
    for head in await store.heads():
        frontier = Frontier.empty().append(tuple(map(leaf_hash, await _events(store, head))))
        assert (frontier.size, frontier.root()) == (head.size, head.root)
        assert frontier.encode() == head.frontier
        signed = open_checkpoint(head.note, str(head.origin), _key(head.origin))
        assert (signed.size, signed.root) == (head.size, head.root)


def _key(origin: Origin) -> bytes:
    return KEYS[origin.region].public
