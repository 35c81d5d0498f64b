"""A process that fetches one file and says how far it is, until it is killed or done.

    python taker.py FOLDER ADDRESS FILE RELEASE SIZE stream|parts

It prints the bytes that are there, and `began N` when part N begins to come.

FOLDER has `own.key`, `own.crt` and `daemon.crt`; the store is in it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from random import Random

from hanse.core.ids import Digest
from hanse.core.transfer.wanted import File
from hanse.rpc import tls
from hanse.rpc.certificates import Identity
from hanse.storage.blobs import BlobStore
from hanse.transfer import fetch as fetching
from hanse.transfer.fetch import fetch_file
from hanse.transfer.landing import Ground, Landing
from hanse.transfer.wish import Progress, Source, Wish


class Telling(Ground):
    def begin(self, number: int) -> Landing | None:
        print("began", number, flush=True)
        return super().begin(number)


async def main(folder: Path, address: str, file: File, size: int, way: str) -> None:
    own = Identity((folder / "own.crt").read_bytes(), (folder / "own.key").read_bytes())
    channel = tls.open_channel(address, own, (folder / "daemon.crt").read_bytes())
    wish = Wish(file, size, "model")
    progress = Progress(wish)

    async def say() -> None:
        while True:
            print(progress.done, flush=True)
            await asyncio.sleep(0.005)

    saying = asyncio.create_task(say())
    source = Source("daemon", lambda: channel, 0.0)
    neighbour = (lambda _: channel) if way == "parts" else None
    fetching.Ground = Telling  # type: ignore[misc]
    store = BlobStore(folder)
    await fetch_file(store, wish, [source], Random(0), progress=progress, neighbour=neighbour)
    saying.cancel()
    print("whole", flush=True)
    await channel.close(None)


if __name__ == "__main__":
    place, where, digest, release, length, how = sys.argv[1:]
    asked = File(Digest(digest), Digest(release))
    asyncio.run(main(Path(place), where, asked, int(length), how))
