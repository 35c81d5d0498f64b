"""CPU time of everyday commands, as whole processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tour.federation import HANSE, Process, wait_for

from measure.federation import REGIONS, _ceremony
from measure.table import markdown, spread

ROUNDS = 20


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        homes, _ = _ceremony(Path(folder))
        daemon = Process(
            REGIONS[0], [str(HANSE), "daemon", "run", "--home", str(homes[0])], homes[0] / "log"
        )
        daemon.start()
        status = [str(HANSE), "status", "--home", str(homes[0])]
        try:
            wait_for("the daemon answers", lambda: _cpu_s(status)[1] == 0, within_s=30)
            rows = [
                [name, spread([_cpu_s(command)[0] * 1000 for _ in range(ROUNDS)]), bar]
                for name, command, bar in (
                    ("`python -c pass`", [sys.executable, "-c", "pass"], ""),
                    ("`hanse --help`", [str(HANSE), "--help"], "150"),
                    ("`hanse status`", status, "250"),
                )
            ]
        finally:
            daemon.stop()
    return (
        f"### Command line\n\nUser and system CPU time of the process, {ROUNDS} runs, "
        "median (range).\n\n" + markdown(["command", "CPU ms", "bar"], rows)
    )


def _cpu_s(command: list[str]) -> tuple[float, int]:
    before = os.times()
    code = subprocess.run(command, capture_output=True, check=False).returncode
    after = os.times()
    used = after.children_user - before.children_user
    return used + after.children_system - before.children_system, code
