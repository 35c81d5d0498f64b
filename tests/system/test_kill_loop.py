"""SIGKILL, SIGTERM and SIGSTOP under write load lose nothing; `scripts/campaign kills` goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_loop import KillLoop

pytestmark = pytest.mark.system
KILLS = 5
SEED = 20261


@pytest.fixture(scope="module")
def loop(folder: Path) -> Iterator[KillLoop]:
    made = KillLoop(folder, SEED)
    yield made
    made.close()


def test_five_kills_under_load_lose_nothing_that_was_acknowledged_or_sent(loop: KillLoop) -> None:
    for _ in range(KILLS):
        loop.kill_under_load()
    assert loop.acknowledged > KILLS * 10
    loop.finish()


def test_sigterm_under_load_ends_it_cleanly_and_loses_nothing(loop: KillLoop) -> None:
    assert loop.stop_under_load() == 0
    loop.finish()


def test_a_daemon_that_was_stopped_and_continued_goes_on_with_its_log(loop: KillLoop) -> None:
    loop.pause_under_load(2.0)
    loop.finish()
