"""A small federation's logs as the files of a door, for whoever audits them in tests."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from hand_federation import Federation

from hanse.core.audit.replay import Read
from hanse.core.ids import Segment
from hanse.core.step import PutTrust
from hanse.gateways.log_files import LogFiles
from hanse.storage.memory import MemoryEventStore

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Nothing in memory ever waits, so one step is the whole way."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("it waits for something")


def stored(federation: Federation) -> MemoryEventStore:
    """What a daemon that heard everything has on its disk."""
    store = MemoryEventStore()
    chain = federation.node("eu-north").book.chain
    run(store.apply([PutTrust(v, raw) for v, raw in enumerate(chain.files, start=1)]))
    run(store.apply([federation.appends[key] for key in sorted(federation.appends)]))
    return store


def door_of(store: MemoryEventStore, federation: str = "hansa") -> Read:
    files = LogFiles(store, Segment(federation))
    return lambda path: run(files.read(path)).data


def bootstrap(federation: Federation) -> bytes:
    return federation.node("eu-north").book.chain.files[0]
