"""The power fails at any moment: nothing acknowledged is lost, no step is there by halves (F01)."""

from __future__ import annotations

from pathlib import Path

import pytest

from hanse.core.errors import HanseError
from hanse.sim.oracle import Violated
from hanse.sim.run import run
from hanse.storage import connections
from power.cuts import Counts, Daemon
from power.world import REGIONS, play_on_disks

SEEDS, CUTS = 150, 4


async def test_no_power_cut_loses_what_was_acknowledged(tmp_path: Path) -> None:
    total = Counts()
    for seed in range(SEEDS):
        total += await Daemon(seed, tmp_path).run(CUTS)
    assert total.cuts >= 500
    # What was not tried proves nothing.
    assert total.in_a_write > 300
    assert total.in_an_open > 50
    assert total.survived > 10
    assert total.steps > 500


@pytest.mark.parametrize("seed", range(10))
def test_a_federation_under_power_cuts_is_the_one_that_memory_simulates(
    seed: int, tmp_path: Path
) -> None:
    """The same history, step by step, though every crash takes what was not synced with it."""
    assert play_on_disks(seed, tmp_path) == run(seed, REGIONS, "crashes")


def weaken(monkeypatch: pytest.MonkeyPatch, synchronous: str) -> None:
    weaker = connections._WRITER_PRAGMAS.replace("= FULL", f"= {synchronous}")
    assert weaker != connections._WRITER_PRAGMAS
    monkeypatch.setattr(connections, "_WRITER_PRAGMAS", weaker)


async def losing(seed: int, folder: Path) -> bool:
    """Whether this seed sees a loss, or a database in disorder."""
    try:
        await Daemon(seed, folder / str(seed)).run(CUTS)
    except Exception:  # a database in disorder breaks anything
        return True
    return False


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
async def test_the_harness_sees_what_less_than_full_loses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synchronous: str
) -> None:
    weaken(monkeypatch, synchronous)
    found = [await losing(seed, tmp_path) for seed in range(20)]
    assert sum(found) >= 15


# A store that cannot even open leaves a thread that says so to a loop which is closed by then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_simulator_sees_what_less_than_full_loses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weaken(monkeypatch, "NORMAL")
    lost = 0
    for seed in range(4):
        try:
            play_on_disks(seed, tmp_path / f"{seed}")
        except (Violated, HanseError):
            lost += 1
    assert lost >= 2
