"""The local control socket: one request a connection, one JSON line a message.

    -> {"verb": "freeze", "model": "ocr-rec", "reason": "INC-341"}
    <- {"progress": {...}}                      any number of times
    <- {"result": {...}}  or  {"error": {"kind", "message", "fix", "code"}}

Only the daemon's own user and root are answered; the kernel says who calls (SO_PEERCRED). A
verb that takes bytes (`blob.put`) reads them with `upload` after it has answered
`{"progress": {"send": true}}`: a client sends nothing before, so a refusal costs nothing. A verb
that gives bytes puts them into a progress as `data`: the line says how many, and they follow it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from hanse.core.errors import (
    Broken,
    Conflict,
    HanseError,
    InvalidSpec,
    NotFound,
    NotPermitted,
    Unavailable,
)
from hanse.core.limits import BLOB_CHUNK_BYTES, CONTROL_LINE_BYTES_MAX
from hanse.core.reading import canonical_json, parse_json
from hanse.daemon.error_codes import to_mapping

Progress = Callable[[Mapping[str, Any]], Awaitable[None]]
Handler = Callable[[dict[str, Any], Progress, asyncio.StreamReader], Awaitable[Mapping[str, Any]]]
"""Takes the arguments without the verb, a way to report progress, and the bytes that follow."""


CONNECTIONS_MAX = 64
SILENCE_S = 30.0  # a caller that says nothing for so long is hung up on
_UCRED = struct.Struct("3i")

log = structlog.get_logger()


def plain(verb: Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]) -> Handler:
    """A verb that needs its arguments alone."""

    async def handle(
        args: dict[str, Any], _: Progress, __: asyncio.StreamReader
    ) -> Mapping[str, Any]:
        return await verb(args)

    return handle


@contextlib.asynccontextmanager
async def serve(path: Path, verbs: Mapping[str, Handler]) -> AsyncIterator[None]:
    """Answer on `path` (mode 0600) while the context is open.

    Raises `Conflict` if another daemon answers there, `NotPermitted` if the folder is not ours.
    """
    listener = _bind(path)
    turns = asyncio.Semaphore(CONNECTIONS_MAX)
    at_work: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        at_work.add(task)
        try:
            async with turns:
                await _answer(verbs, reader, writer)
        except asyncio.CancelledError:
            pass  # the daemon stops: the caller sees that the connection closes
        finally:
            at_work.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(connected, sock=listener, limit=CONTROL_LINE_BYTES_MAX)
    try:
        yield
    finally:
        server.close()
        for task in at_work:
            task.cancel()
        await asyncio.gather(*at_work, return_exceptions=True)
        path.unlink(missing_ok=True)


async def upload(stream: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    """Exactly `size` bytes in chunks. Raises `Unavailable` if the caller goes away or stalls."""
    left = size
    while left:
        try:
            async with asyncio.timeout(SILENCE_S):
                chunk = await stream.read(min(left, BLOB_CHUNK_BYTES))
        except TimeoutError:
            chunk = b""
        if not chunk:
            raise Unavailable(f"the upload stopped {left} bytes before its end", fix="try again")
        left -= len(chunk)
        yield chunk


async def _answer(
    verbs: Mapping[str, Handler], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    async def say(key: str, value: Mapping[str, Any]) -> None:
        writer.write(canonical_json({key: value}) + b"\n")
        await writer.drain()

    async def progress(value: Mapping[str, Any]) -> None:
        data = value.get("data")
        if isinstance(data, bytes):
            writer.write(canonical_json({"progress": {**value, "data": len(data)}}) + b"\n")
            writer.write(data)
            await writer.drain()
        else:
            await say("progress", value)

    verb = "?"
    try:
        _check_caller(writer)
        request = await _request(reader)
        verb = str(request.pop("verb"))
        if verb not in verbs:
            raise NotFound(
                f"this daemon does not know the verb {verb[:80]!r}",
                fix="run the same version of hanse as the daemon",
            )
        key, value = "result", await verbs[verb](request, progress, reader)
    except HanseError as error:
        key, value = "error", to_mapping(error)
    except ConnectionError:
        return
    except Exception:
        log.exception("control_verb_failed", verb=verb)
        hidden = Broken("the daemon failed on this request", fix="see its log for the cause")
        key, value = "error", to_mapping(hidden)
    with contextlib.suppress(ConnectionError):
        await say(key, value)


async def _request(reader: asyncio.StreamReader) -> dict[str, Any]:
    try:
        async with asyncio.timeout(SILENCE_S):
            line = await reader.readuntil(b"\n")
    except TimeoutError:
        raise Unavailable("no request came", fix="send one JSON line") from None
    except asyncio.LimitOverrunError:
        raise InvalidSpec(f"the request is longer than {CONTROL_LINE_BYTES_MAX} bytes") from None
    except asyncio.IncompleteReadError:
        raise ConnectionResetError from None
    request = parse_json(line, "request", bytes_max=CONTROL_LINE_BYTES_MAX)
    if not isinstance(request, dict) or not isinstance(request.get("verb"), str):
        raise InvalidSpec("the request is not a mapping with a verb")
    return request


def _check_caller(writer: asyncio.StreamWriter) -> None:
    _, uid, _ = _UCRED.unpack(
        writer.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size
        )
    )
    if uid not in (0, os.geteuid()):
        raise NotPermitted(
            f"user {uid} may not command this daemon",
            fix=f"run as user {os.geteuid()}, or as root",
        )


def _bind(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.geteuid():
        raise NotPermitted(
            f"the folder {path.parent} belongs to another user",
            fix="set control_socket in hanse.toml to a path in a folder of the daemon's user",
        )
    _clear_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    return listener


def _clear_stale(path: Path) -> None:
    """Remove what a daemon that was killed left behind; never a socket that answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise Conflict(
        f"a daemon answers on {path} already", fix="stop it first, or name another --home"
    )
