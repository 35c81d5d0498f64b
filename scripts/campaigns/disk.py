"""Power cuts under the event store, on seeds that no test run has seen: nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from power.cuts import Daemon

CUTS = 6


def rounds(seed: int) -> Iterator[Mapping[str, int]]:
    with TemporaryDirectory() as folder:
        for number in count(seed):
            daemon = Daemon(number, Path(folder))
            counts = asyncio.run(daemon.run(CUTS))
            yield {"seeds": 1, **{k.replace("_", " "): v for k, v in asdict(counts).items()}}
