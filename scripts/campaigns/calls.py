"""Every call of the event store to its disk fails, in every way: the complete sweep, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from power.calls import WAYS, check_one, count_calls


def rounds(_: int) -> Iterator[Mapping[str, int]]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        for how in WAYS:
            for n in range(1, asyncio.run(count_calls(folder)) + 1):
                refused = asyncio.run(check_one(n, how, folder))
                yield {"calls failed": 1, "refused": refused}
