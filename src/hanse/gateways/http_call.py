"""One HTTP request to an address that an operator wrote down, and its answer.

One request a connection, nothing followed, everything bounded. What answers there is believed
in nothing; whoever asked judges the body.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import h11

from hanse.core.errors import Unavailable

READ_BYTES = 4096


async def call(
    method: str,
    url: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    within_s: float,
    answer_bytes_max: int,
) -> tuple[int, bytes]:
    """Status and body. Raises `Unavailable` if nobody answers like a server within the time."""
    try:
        async with asyncio.timeout(within_s):
            return await _call(method, url, body, headers or {}, answer_bytes_max)
    except TimeoutError:
        raise Unavailable(f"no answer within {within_s:.0f} s") from None
    except (OSError, ValueError, h11.ProtocolError) as error:
        raise Unavailable(str(error) or type(error).__name__) from None


async def _call(
    method: str, url: str, body: bytes, more: Mapping[str, str], answer_bytes_max: int
) -> tuple[int, bytes]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    context = ssl.create_default_context() if secure else None
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
    try:
        talk = h11.Connection(h11.CLIENT)
        headers = {
            "host": parts.netloc,
            **more,
            "content-length": str(len(body)),
            "connection": "close",
        }
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = h11.Request(method=method, target=target, headers=list(headers.items()))
        for event in (request, h11.Data(body), h11.EndOfMessage()):
            writer.write(talk.send(event) or b"")
        await writer.drain()
        return await _answer(talk, reader, answer_bytes_max)
    finally:
        writer.transport.abort()


async def _answer(
    talk: h11.Connection, reader: asyncio.StreamReader, bytes_max: int
) -> tuple[int, bytes]:
    status, found = 0, b""
    while True:
        match talk.next_event():
            case h11.Response() as response:
                status = response.status_code
            case h11.Data() as data:
                found += data.data
                if len(found) > bytes_max:
                    raise h11.RemoteProtocolError("its answer is too long")
            case h11.EndOfMessage():
                return status, found
            case h11.NEED_DATA:
                talk.receive_data(await reader.read(READ_BYTES))
            case h11.InformationalResponse():
                pass
            case _:
                raise h11.RemoteProtocolError("it broke off")
