"""One process of the transfer benchmark: it gives a file by a bare stream, or takes one.

    python -m measure.taker give HOME FILE             prints its port
    python -m measure.taker bare FOLDER PORT SIZE SHA256
    python -m measure.taker hanse FOLDER ADDRESS SIZE SHA256 RELEASE
    python -m measure.taker parts FOLDER ADDRESS SIZE SHA256 RELEASE

Takers do the same with what arrives: hash, write, fsync, compare, rename. They print how many
seconds that took and by how much they grew. FOLDER is that of an enrolled node, HOME a daemon's.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any, cast

import grpc

from hanse.core.ids import Digest, member_id
from hanse.core.signing import SigningKey
from hanse.core.transfer.wanted import File
from hanse.daemon.private_files import read_seed
from hanse.rpc import certificates, tls
from hanse.rpc.certificates import Identity
from hanse.storage.blobs import BlobStore
from hanse.transfer.fetch import fetch_file
from hanse.transfer.wish import Source, Wish

PIECE_BYTES = 1024**2
METHOD = "/bare.Stream/Take"


def main() -> None:
    kind, folder, *rest = sys.argv[1:]
    keys = Path(folder) / "keys"
    own = Identity((keys / "tls.crt").read_bytes(), (keys / "tls.key").read_bytes())
    ways: dict[str, Callable[..., Coroutine[Any, Any, None]]]
    ways = {"give": _give, "bare": _bare, "hanse": _hanse, "parts": _parts}
    asyncio.run(ways[kind](Path(folder), own, *rest))


async def _give(folder: Path, own: Identity, path: str) -> None:
    """What gRPC does at its best: pieces of 1 MiB as they are, read in a thread."""

    async def stream(request: bytes, context: Any) -> None:
        fd = os.open(path, os.O_RDONLY)
        while piece := await asyncio.to_thread(os.read, fd, PIECE_BYTES):
            await context.write(piece)
        os.close(fd)

    name = member_id(SigningKey(read_seed(folder / "keys/daemon.key")).public)
    shown = certificates.issue(
        certificates.daemon_uri("bench", "here", name),
        own,
        certificates.from_now(datetime.datetime.now(datetime.UTC), certificates.LIFE),
    )
    server = grpc.aio.server(options=tls.SERVER_OPTIONS)
    methods = {"Take": grpc.unary_stream_rpc_method_handler(stream)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bare.Stream", methods)])
    credentials = grpc.ssl_server_credentials(
        [(shown.key_pem, shown.cert_pem)],
        (folder / "keys/edge-ca.crt").read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def _bare(folder: Path, own: Identity, port: str, size: str, sha256: str) -> None:
    pinned = (folder / "keys/daemon.crt").read_bytes()
    channel = tls.open_channel(f"127.0.0.1:{port}", own, pinned)
    path, found = folder / "taken.new", hashlib.sha256()

    async def take() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

        def keep(piece: bytes) -> None:
            found.update(piece)
            os.write(fd, piece)

        call = channel.unary_stream(METHOD, None, None)(b"")
        while piece := cast(bytes, await call.read()):
            await asyncio.to_thread(keep, piece)
        await asyncio.to_thread(os.fsync, fd)
        os.close(fd)
        assert found.hexdigest() == sha256
        path.rename(folder / "taken.whole")

    await _timed(take)
    (folder / "taken.whole").unlink()
    await channel.close(None)


async def _parts(folder: Path, own: Identity, *where: str) -> None:
    """As a node that may have neighbours."""
    await _hanse(folder, own, *where, by_parts=True)


async def _hanse(
    folder: Path,
    own: Identity,
    address: str,
    size: str,
    sha256: str,
    release: str,
    *,
    by_parts: bool = False,
) -> None:
    pinned = (folder / "keys/daemon.crt").read_bytes()
    channel = tls.open_channel(address, own, pinned)
    store, file = BlobStore(folder / "taken"), File(Digest(sha256), Digest.parse(release))
    wish = Wish(file, int(size), "model.safetensors")
    source = Source("daemon", lambda: channel, 0.0)
    neighbour = (lambda _: channel) if by_parts else None
    await _timed(lambda: fetch_file(store, wish, [source], Random(0), neighbour=neighbour))
    store.delete(file.digest)
    await channel.close(None)


async def _timed(take: Any) -> None:
    before, most = resident(os.getpid()), 0

    async def look() -> None:
        nonlocal most
        while True:
            most = max(most, resident(os.getpid()))
            await asyncio.sleep(0.05)

    looking = asyncio.create_task(look())
    begin, cpu = time.perf_counter(), time.process_time()
    await take()
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    looking.cancel()
    print(json.dumps({"seconds": seconds, "cpu": cpu, "grew": most - before}), flush=True)


def resident(pid: int) -> int:
    """Bytes of a process that lie in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
