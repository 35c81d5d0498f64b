"""A call's context that lets a message that is being sent be sent before the call is ended.

gRPC takes no status for a call while a message of it waits for the peer to read. Whoever hangs
up on a slow reader would fail to, and the call would stay open for as long as its connection.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from hanse.rpc.status import Context

SENT_S = 5.0  # a peer that reads nothing for so long stays connected, and gets nothing more


class Sending:
    """Stands in for the context that it is made of."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._message: asyncio.Future[None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        self._message = asyncio.ensure_future(self._context.write(message))
        self._message.add_done_callback(_seen)
        await asyncio.shield(self._message)

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        if self._message is not None and not self._message.done():
            await asyncio.wait({self._message}, timeout=SENT_S)
        await self._context.abort(code, details)


def _seen(message: asyncio.Future[None]) -> None:
    """Whoever waited for it may be gone: its error then has nobody to tell."""
    if not message.cancelled():
        message.exception()
