"""A log line that cannot be written is lost; the process that wrote it goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TALK = """
import structlog
from hanse.logs import configure
configure("info")
log = structlog.get_logger("hanse")
for number in range(50):
    log.info("line", number=number, text="." * 1000)
print("went on")
"""


def talk(log: Path) -> subprocess.CompletedProcess[str]:
    with log.open("w") as file:
        command = [sys.executable, "-c", TALK]
        return subprocess.run(command, stdout=-1, stderr=file, text=True, check=True)


def test_a_line_is_one_json_object(tmp_path: Path) -> None:
    talk(tmp_path / "log")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(50))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_log_on_a_full_disk_does_not_end_the_process() -> None:
    assert talk(Path("/dev/full")).stdout == "went on\n"
