"""One connection to each daemon or neighbour that this node speaks with, kept and pinned to an
authority: a daemon to its own, a neighbour to the edge CA of the region."""

from __future__ import annotations

import asyncio

import grpc

from hanse.core.assignment import SOURCES_MAX, Source
from hanse.core.ids import check_address
from hanse.rpc.certificates import NODE_NAME, SERVER_NAME, Identity
from hanse.rpc.tls import open_channel

Channel = grpc.aio.Channel
CHANNELS_MAX = 2 * SOURCES_MAX


class Channels:
    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._open: dict[tuple[str, str], Channel] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def to(self, address: str, cert_pem: str, name: str = SERVER_NAME) -> Channel:
        key = (address, cert_pem)
        if key not in self._open:
            if len(self._open) >= CHANNELS_MAX:
                self._drop_oldest()
            self._open[key] = open_channel(address, self._identity, cert_pem.encode(), name)
        return self._open[key]

    def to_source(self, source: Source) -> Channel:
        return self.to(source.address, source.tls_cert_pem)

    def to_neighbour(self, address: str, edge_ca_pem: str) -> Channel:
        """It said itself where it is: a host and a port, whatever else gRPC would take for one.

        Raises `InvalidName`.
        """
        target = f"dns:///{check_address(address, 'neighbour')}"
        return self.to(target, edge_ca_pem, NODE_NAME)

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
