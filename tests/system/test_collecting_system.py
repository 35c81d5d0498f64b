"""`hanse gc` on a real daemon: it is killed in the midst of it, and every rollback still works."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from digit_releases import paths
from digit_users import Users, answers
from plan_texts import FIRST
from system_federation import ENVIRONMENT, MODEL, Federation, done, hanse
from tour.federation import HANSE

pytestmark = pytest.mark.system
CHAIN = {"1.0.0": "v1", "2.0.0": "v2", "3.0.0": "v2", "4.0.0": "v2"}
GC = ("gc", "--unused", "-y", "--grace", "1ms")


def test_what_was_kept_is_enough_to_go_back(federation: Federation, folder: Path) -> None:
    daemon, plan = federation.founder, folder / "first.yaml"
    plan.write_text(FIRST)
    federation.start()
    parent = ""
    with Users(node.address for node in federation.nodes):
        for version, model in CHAIN.items():
            federation.publish(paths()[model], version, parent=parent)
            rollout = federation.roll_out(version, plan)
            federation.until(
                f"{version} is proven",
                lambda r=rollout: daemon.state_in(r, daemon.region) == "healthy",
            )
            parent = version

        def collect(*words: str) -> dict[str, Any]:
            return dict(json.loads(done(*words, "-o", "json", home=daemon.home)))

        def fates(found: dict[str, Any]) -> dict[str, list[str]]:
            return {r["version"]: r["why"] for r in found["releases"]}

        said = fates(collect("gc", "--dry-run", "--grace", "1ms"))
        assert all(said.values())
        assert "published here" in said["1.0.0"][-1]
        shown = done("gc", "--dry-run", home=daemon.home)
        assert f"{MODEL}@1.0.0" in shown
        assert shown.splitlines()[-1].startswith("0 B would go, ")
        federation.until(
            "no node needs 1.0.0",
            lambda: not fates(collect(*GC, "--dry-run"))["1.0.0"],
        )
        said = fates(collect(*GC, "--dry-run"))
        assert said["4.0.0"][0] == "serves here"
        assert {"a way back from 4.0.0"} <= {*said["3.0.0"]} & {*said["2.0.0"]}

        done("release", "pin", f"{MODEL}@1.0.0", "--reason", "audit 7", home=daemon.home)
        assert "audit 7" in fates(collect(*GC))["1.0.0"][0]
        done("release", "unpin", f"{MODEL}@1.0.0", home=daemon.home)

        command = [str(HANSE), *GC, "--home", str(daemon.home)]
        removing = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        federation.until("the file of 1.0.0 goes", lambda: not there(daemon.home, "v1"))
        daemon.kill()
        removing.wait()
        daemon.start()
        federation.until("it writes again", lambda: daemon.writing)
        shown = json.loads(
            done("release", "show", f"{MODEL}@1.0.0", "-o", "json", home=daemon.home)
        )
        assert shown["local"] is False
        collect(*GC)

        for back in ("3.0.0", "2.0.0"):
            ran = hanse(
                *("rollback", MODEL, "--reason", "INC-7", "-y", "--watch", "--timeout", "60s"),
                home=daemon.home,
            )
            assert ran.returncode == 0, ran.stderr
            assert daemon.row()["active"]["version"] == back
            collect(*GC)
        assert all(answers(node.address) for node in federation.nodes)


def there(home: Path, model: str) -> bool:
    from hanse.core.ids import Digest

    digest = Digest.of(paths()[model].read_bytes()).hex
    return (home / "blobs/blobs/sha256" / digest[:2] / digest[2:]).exists()
