"""A node as it was when its last step was stored."""

from __future__ import annotations

from collections.abc import Callable

from hanse.core import counted, duty, enrolment, freeze, healing, keeping
from hanse.core.gossip import statuses
from hanse.core.node import Clock, Node
from hanse.core.region import PROGRESS_SPACE
from hanse.core.trust import freshness
from hanse.storage.contract import EventStore
from hanse.storage.serving import whole


async def restore(
    node: Node,
    store: EventStore,
    clock: Callable[[], Clock],
    boot_reason: str,
    ask_s: float | None = None,
) -> None:
    """Give a fresh node back everything that the store kept, and open it: see `Node.open`.

    With `ask_s` it asks its peers for so long, from when its logs are restored. Raises `Broken`
    if a log was altered.
    """
    node.restore_trust(await store.local(freshness.SPACE), clock())
    node.freezer.restore(await store.local(freeze.SPACE))
    for head in await store.heads():
        node.restore(head, await whole(store, head.origin, head.size))
    node.bulletin.restore(await store.local(statuses.SPACE), node.book.chain.current)
    node.open(boot_reason, None if ask_s is None else clock().now_s + ask_s)
    places, told = await store.local(PROGRESS_SPACE), await store.local(duty.SPACE)
    node.region.restore(places, told, clock().now_s)
    node.fleet.counted.restore(await store.local(counted.SPACE))
    ages, mandates = await store.local(healing.AGES), await store.local(healing.MANDATES)
    node.region.healing.restore(ages, mandates)
    pins, tombstones = await store.local(keeping.PINS), await store.local(keeping.TOMBSTONES)
    node.region.keeping.restore(pins, tombstones)
    node.enrolment.restore({space: await store.local(space) for space in enrolment.SPACES})
