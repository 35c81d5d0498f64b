"""The auditor's door: every log over HTTP, as C2SP tlog-tiles, for people who trust nobody.

Off unless `audit_listen` is set. What it serves is `log_files` and nothing else: signed heads,
tiles, events as they are stored, the trust chain. It takes GET alone, reads no body, knows no
session and changes nothing. A connection ends after a minute whatever it does, and there are
at most so many of them, so a caller that dawdles keeps the door shut for others briefly and
the daemon busy never.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from hanse.core.errors import NotFound, Unavailable
from hanse.core.limits import DOOR_CONNECTION_S, DOOR_CONNECTIONS_MAX, DOOR_REQUEST_BYTES_MAX
from hanse.gateways.log_files import LogFiles

log = structlog.get_logger("hanse.door")
_FOR_EVER = "public, max-age=31536000, immutable"
_FOR_NOW = "no-cache"


def door(files: LogFiles) -> Starlette:
    """The door as an ASGI application."""

    async def get(request: Request) -> Response:
        try:
            file = await files.read(request.path_params["path"])
        except NotFound as error:
            return PlainTextResponse(f"{error.message}\n", 404, headers={"cache-control": _FOR_NOW})
        keep = _FOR_EVER if file.immutable else _FOR_NOW
        headers = {"cache-control": keep, "x-content-type-options": "nosniff"}
        return Response(file.data, headers={**headers, "content-type": file.media_type})

    return Starlette(routes=[Route("/{path:path}", get, methods=["GET"])])


@contextlib.asynccontextmanager
async def serve(files: LogFiles, address: str) -> AsyncIterator[None]:
    """Serve on `host:port` while the context is open. Raises `Unavailable` if it is taken."""
    listener = _bind(address)
    server = _Server(
        uvicorn.Config(
            door(files),
            http=_BriefConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=DOOR_CONNECTIONS_MAX,
            backlog=DOOR_CONNECTIONS_MAX,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=DOOR_REQUEST_BYTES_MAX,
        )
    )
    serving = asyncio.create_task(server.serve([listener]))
    log.info("door_open", address=address)
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        listener.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Signals are the daemon's own affair."""
        yield


class _BriefConnection(H11Protocol):
    """uvicorn waits for ever for a request that does not come, and for a reader that stalls."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._end = self.loop.call_later(DOOR_CONNECTION_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        super().connection_lost(exc)


def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, int(port)), family=family, backlog=DOOR_CONNECTIONS_MAX)
    except OSError as error:
        raise Unavailable(
            f"cannot open the auditor's door on {address}: {error.strerror or error}",
            fix="set audit_listen in hanse.toml to a free address of this machine",
        ) from None
