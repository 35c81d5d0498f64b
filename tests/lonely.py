"""Daemons with a driver, a store and files, and no network at all between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hand_federation import MODEL, Federation
from memory_blobs import MemoryBlobs
from memory_network import MemoryNetwork

from hanse.core.catalog.manifest import File, Manifest, Variant
from hanse.core.ids import Digest, Origin, Segment, Version, member_id, segment
from hanse.core.node import Node
from hanse.core.signing import SigningKey
from hanse.core.step import PutTrust
from hanse.core.trust import chain as trust
from hanse.core.trust import statements
from hanse.core.trust.chain import Chain
from hanse.core.trust.members import Person
from hanse.daemon import commands
from hanse.daemon.bundles import Bundles
from hanse.daemon.driver import Driver
from hanse.rpc.codec import EventCodec
from hanse.rpc.tls import Peer
from hanse.storage.memory import MemoryEventStore

ROOT = SigningKey(b"r" * 32)
AUDITOR = SigningKey(b"a" * 32)


def chain(
    versions: int = 1, witness_keys: Mapping[str, bytes] | None = None, **changes: Any
) -> Chain:
    """The hand federation's trust, with an auditor; each version after the first only counts."""
    made = Federation(edges=0)
    first = made.node("eu-north").book.chain.current
    carl = Person("carl", AUDITOR.public, ("auditor",), ("*",))
    members = tuple(
        replace(m, witness_key=(witness_keys or {}).get(m.region)) for m in first.members
    )
    first = replace(first, people=(*first.people, carl), members=members, **changes)
    found = trust.replay((trust.sign(first, (ROOT,)),))
    for version in range(2, versions + 1):
        following = replace(found.current, version=version, ring_seed=f"seed {version}")
        found = trust.extend(found, trust.sign(following, (ROOT,), found))
    return found


@dataclass
class Lonely:
    node: Node
    driver: Driver
    store: MemoryEventStore
    blobs: MemoryBlobs
    bundles: Bundles
    person: SigningKey

    async def publish(
        self, version: str, data: bytes, residency: tuple[str, ...] = ("*",), **said: Any
    ) -> Digest:
        """A signed release of one file, as the command line publishes it."""
        with self.blobs.writer(len(data), Digest.of(data)) as writer:
            writer.write(data)
            writer.commit()
        file = File(segment("model.onnx"), Digest.of(data), len(data))
        variants = (Variant(segment("onnx"), "onnx", file.name),)
        manifest = Manifest(
            MODEL, Version(version), (file,), variants, (), (), residency=residency, **said
        )
        view = self.node.catalog.views.get(MODEL)
        counter = max((r.counter for r in view.releases), default=0) + 1 if view else 1
        raw = manifest.encode()
        name, release = f"{MODEL}@{version}", Digest.of(raw)
        signed = statements.sign_release(name, release, counter, [self.person])
        args = {"manifest": raw.decode(), "envelope": signed.decode(), "counter": counter}
        await self.driver.do(lambda node, _: commands.publish(node, self.blobs, args))
        return release


@asynccontextmanager
async def lonely(region: str, known: Chain) -> AsyncIterator[Lonely]:
    """The daemon of that region of the hand federation, running."""
    hand = Federation(edges=0)
    key = hand.keys[("eu-north", "us-east", "ap-south").index(region)]
    me = Origin(known.current.federation, Segment(region), member_id(key.public), 1)
    node = Node(me, key, b"spki", EventCodec(), known, Random(region))
    node.open("first")
    store = MemoryEventStore()
    await store.apply([PutTrust(v, raw) for v, raw in enumerate(known.files, start=1)])
    identity = Peer(known.current.federation, me.region, "daemon", me.member, b"spki")
    driver = Driver(node, store, MemoryNetwork().join(identity), tick_interval_s=0.05)
    blobs = MemoryBlobs()
    running = asyncio.create_task(driver.run())
    await driver.do(lambda node, _: None)
    try:
        yield Lonely(node, driver, store, blobs, Bundles(driver, store, blobs, key), hand.person)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
