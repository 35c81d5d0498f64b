"""One federation for each test module, made by the command line and killed at its end."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
from system_federation import Federation

# Whoever runs these under a time limit ends them by SIGTERM: tear down then, as on Ctrl-C.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a short path, so that control sockets fit beside the daemons' files."""
    path = Path(mkdtemp(prefix="hanse-system-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def federation(folder: Path) -> Iterator[Federation]:
    """Founded, not started."""
    made = Federation(folder)
    try:
        made.found()
        yield made
    finally:
        made.close()
