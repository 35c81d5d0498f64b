"""Whom residency kept from files, written into this daemon's log: auditors find it there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hanse.core.denials import Denials
from hanse.core.events import Note
from hanse.core.ids import Digest
from hanse.daemon.driver import Driver
from hanse.rpc.tls import Peer


def on_record(driver: Driver) -> Callable[[Peer, Digest], None]:
    """To be told of each denial; it blocks nobody, and of what is no news it says nothing."""
    loop = asyncio.get_running_loop()
    denials = Denials(loop.time())

    def denied(peer: Peer, release: Digest) -> None:
        if denials.is_news(peer.name, release, loop.time()):
            note = Note(f"denied {peer.kind} {peer.name} of {peer.region} the files of {release}")
            driver.post(lambda node, _: node.propose(note))

    return denied
