"""What is shipped for installing Hanse fits what it does: units, commands, example plans."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from hanse.cli import plan_file
from hanse.cli.main import hanse
from hanse.core.ids import Digest, segment
from hanse.core.rollout.places import resolve
from hanse.core.rollout.spec import parse_spec

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
PLANS = sorted((DEPLOY / "examples/rollouts").glob("*"))
PROGRAM = "/opt/hanse/bin/hanse"
SECTIONS = ("Unit", "Service", "Install")
REPEATABLE = {"SystemCallFilter"}
ANALYZE = shutil.which("systemd-analyze")


def read_unit(path: Path) -> dict[str, dict[str, list[str]]]:
    """Section -> key -> values. Refuses what is not a comment, a section or KEY=VALUE."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
            assert section in SECTIONS
            assert section not in found, f"{section} stands twice"
            found[section] = {}
            continue
        setting = re.fullmatch(r"([A-Z]\w+)=(.*)", line)
        assert setting is not None, line
        values = found[section].setdefault(setting[1], [])
        assert not values or setting[1] in REPEATABLE, f"{setting[1]} stands twice"
        values.append(setting[2])
    return found


def units() -> list[Any]:
    assert [u.name for u in UNITS] == ["hanse-agent.service", "hanse-daemon.service"]
    return [pytest.param(u, id=u.name) for u in UNITS]


@pytest.mark.parametrize("unit", units())
def test_a_unit_starts_a_command_that_exists_with_options_that_it_has(unit: Path) -> None:
    (line,) = read_unit(unit)["Service"]["ExecStart"]
    program, *words = line.split()
    assert program == PROGRAM
    command: click.Command = hanse
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None
        command = found
    context = command.make_context("hanse", list(words))
    (state,) = read_unit(unit)["Service"]["StateDirectory"]
    assert context.params["home"] == Path("/var/lib") / state


@pytest.mark.parametrize("unit", units())
def test_a_unit_promises_nothing_that_the_program_does_not_do(unit: Path) -> None:
    service = read_unit(unit)["Service"]
    assert service["Type"] == ["exec"]  # there is no readiness notification
    assert not {"WatchdogSec", "ExecReload", "LoadCredential", "NotifyAccess"} & service.keys()


@pytest.mark.parametrize("unit", units())
def test_a_unit_is_restarted_with_a_bound_and_stopped_with_time_to_store(unit: Path) -> None:
    found = read_unit(unit)
    assert found["Service"]["Restart"] == ["on-failure"]
    assert found["Unit"]["StartLimitBurst"] == ["5"]
    assert int(found["Service"]["TimeoutStopSec"][0]) > 10


@pytest.mark.parametrize("unit", units())
def test_a_unit_may_write_only_its_own_folder(unit: Path) -> None:
    service = read_unit(unit)["Service"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["StateDirectoryMode"] == ["0700"]
    assert service["UMask"] == ["0077"]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["CapabilityBoundingSet"] == [""]
    assert "ReadWritePaths" not in service


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", units())
def test_systemd_knows_every_setting_and_finds_little_exposed(unit: Path, tmp_path: Path) -> None:
    """An unknown key is only a warning with exit 0, so nothing may be said at all."""
    copy = tmp_path / unit.name
    # The checker wants the program and the user to exist on this machine.
    text = unit.read_text().replace(PROGRAM, "/bin/true").replace("=hanse\n", "=root\n")
    copy.write_text(text)
    verified = analyze("verify", "--man=no", str(copy))
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    # Rated as the user that it has: who that is makes a difference to the checker.
    copy.write_text(unit.read_text().replace(PROGRAM, "/bin/true"))
    rated = analyze("security", "--offline=true", "--threshold=20", str(copy))
    assert rated.returncode == 0, rated.stdout


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_complains_of_a_setting_that_it_does_not_know(tmp_path: Path) -> None:
    copy = tmp_path / "hanse-daemon.service"
    text = UNITS[1].read_text().replace(PROGRAM, "/bin/true").replace("=hanse\n", "=root\n")
    copy.write_text(text.replace("ProtectHome=", "ProtectHomes="))
    assert "ProtectHomes" in analyze("verify", "--man=no", str(copy)).stderr


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", PLANS, ids=lambda p: p.name)
def test_an_example_plan_is_one(path: Path) -> None:
    first = path.name.startswith("first-")
    prepared: Any = {
        "release": str(Digest.of(b"new")),
        "predecessor": None if first else str(Digest.of(b"old")),
        "generation": 3,
        "regions": ["ap-south", "eu-north", "us-east"],
        "version": "2.0.0",
        "trust": 7,
    }
    tiers = {"ap-south": "pilot", "eu-north": "standard", "us-east": "standard"}
    labels = {segment(region): {"tier": tier} for region, tier in tiers.items()}
    plan = parse_spec(plan_file.complete(plan_file.read(path), "ocr-rec", prepared, None))
    plan = resolve(plan, labels)
    assert (plan.name, plan.generation) == ("r-3", 3)
    assert {r for stage in plan.stages for r in stage.regions} == set(prepared["regions"])


def test_the_readme_of_deploy_names_every_file() -> None:
    text = (DEPLOY / "README.md").read_text()
    for path in (*UNITS, *PLANS):
        assert str(path.relative_to(DEPLOY)) in text


@pytest.mark.parametrize(
    "lock", sorted((ROOT / "requirements").glob("*.lock")), ids=lambda p: p.name
)
def test_nothing_is_installed_but_what_is_pinned_by_its_hash(lock: Path) -> None:
    packages = lock.read_text().replace("\\\n", " ").splitlines()
    asked = [line for line in packages if line.strip() and not line.startswith("#")]
    assert asked
    assert [line for line in asked if "==" not in line or "--hash=sha256:" not in line] == []
    installs = [
        line
        for line in (ROOT / "scripts/setup").read_text().splitlines()
        if "pip install" in line and "--no-deps" not in line
    ]
    assert installs
    assert all("--require-hashes" in line for line in installs)
