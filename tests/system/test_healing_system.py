"""Healing by real processes: a bad release, a hook that is a command, and power cuts around it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from digit_releases import holdout, paths
from digit_users import Users, answers
from plan_texts import CAREFUL, FIRST
from system_federation import MODEL, Daemon, Federation, done, hanse
from tour.federation import HANSE

pytestmark = pytest.mark.system
PUBLISH = """\
import os, subprocess, sys, time
from pathlib import Path

key = os.environ["HANSE_RETRAIN"]
with open("calls", "a") as calls:
    print("begin", key, os.getpid(), sys.stdin.read().count(key), file=calls)
while Path("slow").exists():
    time.sleep(0.05)
subprocess.run(
    [
        os.environ["HANSE"], "release", "publish", "model.onnx", "-n", os.environ["HANSE_MODEL"],
        "-v", "9.0.0-" + key[:8], "--parent", os.environ["HANSE_RELEASE"],
        "--relation", "retrained-from", "--outcome", "label:label",
        "--training-data", "region=sha256:" + "0" * 64, "--label", "hanse.retrain=" + key,
    ],
    check=True,
)
while Path("slow after").exists():
    time.sleep(0.05)
with open("calls", "a") as calls:
    print("end", key, file=calls)
"""


@dataclass
class World:
    federation: Federation
    work: Path
    careful: Path

    @property
    def daemon(self) -> Daemon:
        return self.federation.founder

    def calls(self, word: str) -> list[list[str]]:
        file = self.work / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.split() for line in lines if line.startswith(word)]

    def status(self) -> dict[str, Any]:
        (found,) = self.daemon.ask("heal.status", model=MODEL)["models"]
        return dict(found)

    def healing(self) -> dict[str, Any]:
        return dict(self.status()["healings"][-1])

    def until(self, what: str, happened: Callable[[], Any]) -> Any:
        return self.federation.until(what, happened, within_s=90)

    def a_bad_release(self, version: str) -> None:
        """Found out and rolled back, so that the daemon asks for a better one."""
        before = len(self.status()["healings"])
        self.federation.publish(paths()["swapped"], version, parent="1.0.0")
        self.federation.roll_out(version, self.careful)
        self.until(f"{version} is retrained", lambda: len(self.status()["healings"]) > before)

    def kill_and_start(self) -> None:
        self.daemon.kill()
        self.daemon.start()
        self.until("the daemon writes again", lambda: self.daemon.writing)


@pytest.fixture(scope="module")
def world(folder: Path) -> Iterator[World]:
    """One region that serves 1.0.0, declares a hook, and has users who tell what was right."""
    made = Federation(folder)
    try:
        made.found(nodes=("n1",), regions=("eu-north",))
        work = folder / "work"
        work.mkdir()
        (work / "model.onnx").write_bytes(paths()["v2"].read_bytes())
        (work / "retrain.py").write_text(PUBLISH)
        x, y = holdout()
        np.savez(folder / "eu-north" / "heldout.npz", **{"in.X": x[:200], "label": y[:200]})
        declare(made.founder.home, work, folder)
        careful = folder / "careful.yaml"
        careful.write_text(
            CAREFUL.partition("    - name: wave")[0]
            + "  templates"
            + CAREFUL.partition("  templates")[2]
        )
        first = folder / "first.yaml"
        first.write_text(FIRST)
        made.start(regions=("eu-north",))
        made.publish(paths()["v1"], "1.0.0")
        rollout = made.roll_out("1.0.0", first)
        made.until("the node serves 1.0.0", lambda: answers(made.nodes[0].address))
        with Users(node.address for node in made.nodes) as users:
            users.labels.set()
            made.until(
                "1.0.0 is proven", lambda: made.founder.state_in(rollout, "eu-north") == "healthy"
            )
            yield World(made, work, careful)
    finally:
        made.close()


def declare(home: Path, work: Path, folder: Path) -> None:
    """The hook publishes with a key of its own, which is a publisher and nothing else."""
    key, draft = folder / "hook.key", folder / "hook.json"
    public = done("trust", "key", key).strip()
    done(
        *("trust", "add-person", "retrainer", public, "--role", "publisher"),
        *("--home", home, "--out", draft),
    )
    done("trust", "sign", draft, "--yes", "--key", home / "keys/root.key", "--home", home)
    hanse("trust", "submit", draft, home=home)
    environment = f'{{HANSE = "{HANSE}", HANSE_KEY = "{key}"}}'
    (home / "healing.toml").write_text(
        f"""
[{MODEL}]
cooldown = "1s"
budget = 20
heldout = "heldout.npz"
[{MODEL}.command]
argv = ["{sys.executable}", "retrain.py"]
folder = "{work}"
timeout = "60s"
environment = {environment}
"""
    )


def test_what_the_hook_brings_is_checked_and_waits_for_a_person_without_a_mandate(
    world: World,
) -> None:
    world.a_bad_release("2.0.0")
    healed = world.until("an answer", lambda: world.healing()["outcome"] and world.healing())
    assert (healed["outcome"], healed["cause"]) == ("passed", "trial"), healed["why"]
    assert "of 200 held-out examples" in healed["why"]
    assert healed["rollout"] is None
    (call,) = world.calls("begin")
    assert call[3] == "2", "the CloudEvent on its standard input names the key as id and in data"
    release = world.daemon.ask("release.show", model=MODEL, version=healed["child"]["version"])
    assert release["by"] == "retrainer"
    shown = hanse("heal", "status", MODEL, home=world.daemon.home)
    assert shown.returncode == 3, "it waits for a person"
    assert "a person starts the rollout of what comes back" in shown.stdout
    assert "2.0.0 has its answer: start its rollout" in shown.stdout
    said = done("why", f"{MODEL}@2.0.0", home=world.daemon.home)
    assert "retraining of 2.0.0 asked for: it was worse in its rollout" in said
    assert "eu-north had 2.0.0 retrained: passed by 9.0.0-" in said


def test_under_a_mandate_it_rolls_out_and_is_proven_with_nobody_watching(world: World) -> None:
    done(
        *("heal", "mandate", MODEL, "--plan", world.careful, "--uses", "5"),
        home=world.daemon.home,
    )
    rollout = world.until("it is started", lambda: world.healing()["rollout"])
    world.until("it is proven", lambda: world.daemon.state_in(rollout, "eu-north") == "healthy")
    active = world.daemon.row()["active"]["version"]
    assert active == world.healing()["child"]["version"]
    assert world.healing()["settled"]
    why = done("why", f"{MODEL}@{active}", home=world.daemon.home)
    assert "started by eu-north under a mandate of operator" in why
    assert "started by itself under a mandate of operator" in why


@pytest.mark.parametrize("moment", ["while it trains", "after it has published"])
def test_a_daemon_that_dies_calls_the_hook_again_with_the_same_key_and_gets_one_release(
    world: World, moment: str
) -> None:
    if world.status()["mandate"]:
        done("heal", "revoke", MODEL, home=world.daemon.home)  # it would compare equal models
    before = len(world.calls("begin"))
    slow = world.work / ("slow" if moment == "while it trains" else "slow after")
    slow.touch()
    version = "3.0.0" if moment == "while it trains" else "4.0.0"
    world.a_bad_release(version)
    world.until("the hook runs", lambda: len(world.calls("begin")) > before)
    key, pid = world.calls("begin")[-1][1:3]
    if moment == "after it has published":
        world.until("it has published", lambda: answered(world, key))
    world.kill_and_start()
    if moment == "while it trains":
        world.until("it runs again", lambda: len(world.calls("begin")) > before + 1)
        assert not alive(int(pid)), "the one that outlived its daemon was ended first"
        slow.unlink()
    healed = world.until("an answer", lambda: world.healing()["outcome"] and world.healing())
    slow.unlink(missing_ok=True)
    assert healed["outcome"] == "passed", healed["why"]
    assert healed["retrain"] == key
    assert {call[1] for call in world.calls("begin")[before:]} == {key}
    assert len(answered(world, key)) == 1


def test_a_second_release_for_one_key_is_refused(world: World) -> None:
    key = world.healing()["retrain"]
    ran = hanse(
        *("release", "publish", paths()["v1"], "-n", MODEL, "-v", "9.9.9"),
        *("--outcome", "label:label", "--label", f"hanse.retrain={key}"),
        home=world.daemon.home,
    )
    assert ran.returncode == 1
    assert "is answered by" in ran.stderr


def test_a_release_is_retired_once_nobody_needs_it(world: World) -> None:
    home = world.daemon.home
    used = hanse("release", "uses", f"{MODEL}@1.0.0", home=home)
    assert (used.returncode, "would fall back" in used.stdout) == (3, True), used.stdout
    assert "n1" in used.stdout, "the node that keeps it ready"
    refused = hanse("release", "retire", f"{MODEL}@1.0.0", "--reason", "old", "-y", home=home)
    assert (refused.returncode, "cannot be retired" in refused.stderr) == (1, True)
    done("release", "deprecate", f"{MODEL}@1.0.0", "--reason", "2.0 is better", home=home)
    assert "deprecated" in done("release", "list", MODEL, home=home)
    done("release", "retire", f"{MODEL}@2.0.0", "--reason", "wrong classes", "-y", home=home)
    plan = ("--plan", world.careful)
    start = hanse("rollout", "start", f"{MODEL}@2.0.0", *plan, home=home)
    assert start.returncode == 1
    lines = done("lineage", MODEL, home=home).splitlines()
    assert any(line.startswith("2.0.0") and "retired" in line for line in lines)


def answered(world: World, key: str) -> list[str]:
    rows = world.daemon.ask("release.list", model=MODEL)["releases"]
    shown = [world.daemon.ask("release.show", model=MODEL, release=r["release"]) for r in rows]
    manifests = [json.loads(each["manifest"]) for each in shown]
    return [m["version"] for m in manifests if m["labels"].get("hanse.retrain") == key]


def alive(pid: int) -> bool:
    """A process that nobody has waited for yet is no more than a line in a table."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
