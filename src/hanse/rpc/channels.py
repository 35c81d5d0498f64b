"""One connection to each daemon that this node speaks with, kept and pinned to its authority."""

from __future__ import annotations

import asyncio

import grpc

from hanse.core.assignment import SOURCES_MAX, Source
from hanse.rpc.certificates import Identity
from hanse.rpc.tls import open_channel

Channel = grpc.aio.Channel
CHANNELS_MAX = 2 * SOURCES_MAX


class Channels:
    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._open: dict[tuple[str, str], Channel] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def to(self, address: str, cert_pem: str) -> Channel:
        key = (address, cert_pem)
        if key not in self._open:
            if len(self._open) >= CHANNELS_MAX:
                self._drop_oldest()
            self._open[key] = open_channel(address, self._identity, cert_pem.encode())
        return self._open[key]

    def to_source(self, source: Source) -> Channel:
        return self.to(source.address, source.tls_cert_pem)

    def renew(self, identity: Identity) -> None:
        """Show this certificate from now on. What is under way breaks off and is tried again."""
        self._identity = identity
        while self._open:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Most likely to a daemon that was replaced long ago."""
        oldest = self._open.pop(next(iter(self._open)))
        task = asyncio.create_task(oldest.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        await asyncio.gather(*(channel.close(None) for channel in self._open.values()))
