"""Other nodes of the region, as this one takes from them, and what it has of files under way.

Whom to ask is the daemon's word; each is reached by a connection that the region's edge CA vouches
for. They have a pool of their own: however many there are, none takes the daemon's place in it.
"""

from __future__ import annotations

from collections.abc import Callable

from hanse.core.errors import Unavailable
from hanse.core.transfer.wanted import Neighbour
from hanse.rpc.certificates import Identity
from hanse.rpc.channels import Channel, Channels
from hanse.transfer.underway import Underway


class Near:
    """`edge_ca` is asked for the CA's certificate, PEM; it is empty until the daemon was heard."""

    def __init__(self, identity: Identity, edge_ca: Callable[[], str]) -> None:
        self._channels, self._edge_ca = Channels(identity), edge_ca
        self.underway = Underway()

    @property
    def known(self) -> bool:
        """Whether neighbours can be told from strangers."""
        return bool(self._edge_ca())

    def channel_to(self, neighbour: Neighbour) -> Channel:
        """Raises `InvalidName`, `Unavailable`."""
        if not self.known:
            raise Unavailable("the region's edge CA is not known", fix="wait for the daemon")
        return self._channels.to_neighbour(neighbour.address, self._edge_ca())

    def renew(self, identity: Identity) -> None:
        self._channels.renew(identity)

    async def close(self) -> None:
        await self._channels.close()
