"""A call's context that lets what is being sent be sent before the call is ended.

gRPC takes no status for a call while a message of it waits for the peer to read, and marks that
it has sent the headers only when that is done. Whoever hangs up in between would fail to, and
the call would stay open for as long as its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

from hanse.rpc.status import Context

SENT_S = 0.5  # a peer that reads nothing for so long stays connected, and gets nothing more


class Sending:
    """Stands in for the context that it is made of."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last: asyncio.Future[None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        await self._send(self._context.write(message))

    async def send_initial_metadata(self, metadata: Any) -> None:
        await self._send(self._context.send_initial_metadata(metadata))

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        if self._last is not None and not self._last.done():
            await asyncio.wait({self._last}, timeout=SENT_S)
        await self._context.abort(code, details)

    async def _send(self, what: Coroutine[Any, Any, None]) -> None:
        self._last = asyncio.ensure_future(what)
        self._last.add_done_callback(_seen)
        await asyncio.shield(self._last)


def _seen(sent: asyncio.Future[None]) -> None:
    """Whoever waited for it may be gone: its error then has nobody to tell."""
    if not sent.cancelled():
        sent.exception()
