"""Three daemons in one process: real mutual TLS on loopback, real SQLite at FULL."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tour.federation import free_ports

from hanse.core.catalog.manifest import File, Manifest, Variant
from hanse.core.ids import Digest, Segment, Version
from hanse.core.signing import SigningKey
from hanse.daemon import ceremony
from hanse.daemon.config import load
from hanse.daemon.private_files import read_seed
from hanse.daemon.run import Daemon, assemble
from hanse.daemon.trust_folder import add_file, read_files

REGIONS = ("eu-north", "us-east", "ap-south")
MODEL = Segment("ocr-rec")


@asynccontextmanager
async def federation(folder: Path) -> AsyncIterator[tuple[list[Daemon], SigningKey]]:
    """The daemons, linked and in agreement, and the operator's key."""
    homes, operator = _ceremony(folder)
    async with AsyncExitStack() as stack:
        daemons = [await assemble(load(home), stack) for home in homes]
        driving = [asyncio.create_task(d.driver.run()) for d in daemons]
        while not _settled(daemons):
            await asyncio.sleep(0.02)
        yield daemons, operator
        for daemon, task in zip(daemons, driving, strict=True):
            await daemon.stop(task)


def manifest(number: int) -> Manifest:
    """A small release that nothing will run."""
    name = Segment("model.onnx")
    file = File(name, Digest.of(f"model {number}".encode()), 7)
    variant = Variant(Segment("onnx"), "onnx", name)
    return Manifest(MODEL, Version(f"1.0.{number}"), (file,), (variant,), (), ())


def _ceremony(folder: Path) -> tuple[list[Path], SigningKey]:
    now = datetime.datetime.now(datetime.UTC)
    ports = free_ports(len(REGIONS))
    homes = [folder / region for region in REGIONS]
    founded = ceremony.init(homes[0], "bench", REGIONS[0], f"127.0.0.1:{ports[0]}", "", now)
    for home, region, port in zip(homes[1:], REGIONS[1:], ports[1:], strict=True):
        files = read_files(homes[0] / "trust")
        ceremony.join(home, files, region, f"127.0.0.1:{port}", "", now)
        request = (home / "join-request.json").read_bytes()
        admitted = ceremony.admit(request, files, ceremony.root_keys([founded.root_key]), now)
        add_file(homes[0] / "trust", len(files) + 1, admitted)
    chain = read_files(homes[0] / "trust")
    for home in homes[1:]:
        for version, raw in enumerate(chain, start=1):
            add_file(home / "trust", version, raw)
    return homes, SigningKey(read_seed(founded.operator_key))


def _settled(daemons: list[Daemon]) -> bool:
    linked = all(len(d.driver.node.sync.proven()) == len(daemons) - 1 for d in daemons)
    return linked and len({d.driver.node.book.digest for d in daemons}) == 1
