"""Asks a witness outside the federation for its cosignature (C2SP tlog-witness).

One request a connection, nothing followed, everything bounded: the address comes from this
daemon's own settings, and what answers there is believed in nothing but its signature, which
others verify.
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

import h11

from hanse.core.errors import Unavailable
from hanse.core.limits import WITNESS_ANSWER_BYTES_MAX, WITNESS_S


async def add_checkpoint(url: str, body: bytes) -> tuple[int, bytes]:
    """POST to `<url>/add-checkpoint`: status and body. Raises `Unavailable`."""
    try:
        async with asyncio.timeout(WITNESS_S):
            return await _post(url.rstrip("/") + "/add-checkpoint", body)
    except TimeoutError:
        why = f"it did not answer within {WITNESS_S:.0f} s"
    except (OSError, ValueError, h11.ProtocolError) as error:
        why = str(error) or type(error).__name__
    raise Unavailable(f"the witness at {url} cannot be asked: {why}", fix="is witness_url right?")


async def _post(url: str, body: bytes) -> tuple[int, bytes]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    context = ssl.create_default_context() if secure else None
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
    try:
        talk = h11.Connection(h11.CLIENT)
        headers = [
            ("host", parts.netloc),
            ("content-type", "text/plain; charset=utf-8"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        request = h11.Request(method="POST", target=parts.path, headers=headers)
        for event in (request, h11.Data(body), h11.EndOfMessage()):
            writer.write(talk.send(event) or b"")
        await writer.drain()
        return await _answer(talk, reader)
    finally:
        writer.transport.abort()


async def _answer(talk: h11.Connection, reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status, found = 0, b""
    while True:
        match talk.next_event():
            case h11.Response() as response:
                status = response.status_code
            case h11.Data() as data:
                found += data.data
                if len(found) > WITNESS_ANSWER_BYTES_MAX:
                    raise h11.RemoteProtocolError("its answer is too long")
            case h11.EndOfMessage():
                return status, found
            case h11.NEED_DATA:
                talk.receive_data(await reader.read(4096))
            case h11.InformationalResponse():
                pass
            case _:
                raise h11.RemoteProtocolError("it broke off")
