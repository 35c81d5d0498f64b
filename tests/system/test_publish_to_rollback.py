"""The main job, from `release publish` to `why`, by real processes that users ask all the time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from digit_releases import paths
from digit_users import Users, answers
from plan_texts import CAREFUL, FIRST
from system_federation import MODEL, REGIONS, Daemon, Federation, done, hanse

pytestmark = pytest.mark.system


@dataclass
class World:
    federation: Federation
    users: Users
    first: Path
    careful: Path

    def nodes_run(self, version: str) -> bool:
        return all(
            [(m["version"], bool(m["candidate"])) for m in node.status().get("models", ())]
            == [(version, False)]
            for node in self.federation.nodes
        )

    def promote(self, version: str, plan: Path) -> None:
        rollout = self.federation.roll_out(version, plan)
        daemon = self.federation.founder
        self.federation.until(
            f"eu-north proves {version}",
            lambda: daemon.state_in(rollout, daemon.region) == "healthy",
        )


@pytest.fixture(scope="module")
def world(federation: Federation, folder: Path) -> Iterator[World]:
    """1.0.0 serves in eu-north, proven, under the eyes of its users."""
    first, careful = folder / "first.yaml", folder / "careful.yaml"
    first.write_text(FIRST)
    careful.write_text(CAREFUL)
    federation.start()
    federation.publish(paths()["v1"], "1.0.0")
    rollout = federation.roll_out("1.0.0", first)
    daemon = federation.founder
    federation.until(
        "both nodes serve 1.0.0", lambda: all(answers(node.address) for node in federation.nodes)
    )
    with Users(node.address for node in federation.nodes) as users:
        federation.until(
            "1.0.0 is proven", lambda: daemon.state_in(rollout, daemon.region) == "healthy"
        )
        yield World(federation, users, first, careful)


def test_a_bad_release_is_found_by_its_numbers_and_undone_where_it_ran(world: World) -> None:
    federation, users, daemon = world.federation, world.users, world.federation.founder
    federation.publish(paths()["swapped"], "2.0.0", parent="1.0.0")
    bad = digest_of(daemon, "2.0.0")
    rollout = federation.roll_out("2.0.0", world.careful)
    federation.until("users get the canary's answers", lambda: users.by_release[bad] > 0)
    users.labels.set()  # only now: before it was exposed, nobody knew that it is wrong
    federation.until(
        "eu-north takes it back", lambda: daemon.state_in(rollout, "eu-north") == "rolledBack"
    )
    federation.until("both nodes run 1.0.0 alone", lambda: world.nodes_run("1.0.0"))
    for region in REGIONS[1:]:
        other = federation.daemons[region]
        federation.until(f"{region} holds", lambda d=other: d.state_in(rollout, d.region) == "held")
        assert other.row()["active"] is None
    federation.agreed()
    assert users.failures == []
    assert daemon.row()["active"]["version"] == "1.0.0"

    for asked in federation.daemons.values():  # every daemon knows, from the signed events alone
        said = asked.ask("why", model=MODEL, version="2.0.0", region="eu-north")
        assert said["sentences"][0].startswith("2.0.0 was rolled back in eu-north")
        assert "labelled pairs" in said["sentences"][0]
        (metric,) = said["metrics"]
        assert metric["bad_trial"] > metric["bad_stable"]
        assert metric["harm"] >= metric["needed"]
    assert "2.0.0 was rolled back in eu-north" in done("why", MODEL, home=daemon.home)
    assert hanse("status", home=daemon.home).returncode == 3  # a rollout waits: not healthy


def test_the_record_of_it_has_every_place_in_its_order(world: World) -> None:
    """Shadow, then canary, then back: what was decided stands in the signed log."""
    found = world.federation.daemons["us-east"].rollout("r-2")
    said = [m["what"] for m in found["timeline"] if m["region"] == "eu-north"]
    places = ["shadowing", "weighting", "analyzing", "rolledBack"]
    at = [next(i for i, what in enumerate(said) if f"is {place}" in what) for place in places]
    assert at == sorted(at), said


def test_a_plan_says_what_would_happen_and_an_explanation_why_it_stands_where_it_does(
    world: World,
) -> None:
    federation, daemon = world.federation, world.federation.founder
    federation.publish(paths()["v2"], "2.5.0", parent="1.0.0")
    federation.publish(paths()["v2"], "2.6.0", "--require", "hardware=orin", parent="1.0.0")
    size = daemon.ask("release.show", model=MODEL, version="2.5.0")["size"]

    def planned(version: str) -> dict[str, Any]:
        name = ("rollout", "plan", f"{MODEL}@{version}", "--plan", world.careful, "-o", "json")
        return dict(json.loads(done(*name, home=daemon.home)))

    able, unable = planned("2.5.0"), planned("2.6.0")
    (group,) = able["nodes"]
    assert (group["variant"], group["names"]) == (paths()["v2"].stem.lower(), ["n1", "n2"])
    assert (group["download_bytes"], group["online"]) == (size, 2)
    assert [each["version"] for each in able["keeps"]] == ["1.0.0"]
    (group,) = unable["nodes"]
    assert (group["variant"], group["count"]) == (None, 2)
    assert "needs hardware orin, and the node does not say" in group["why"]
    for region in REGIONS[1:]:
        other = federation.daemons[region]
        federation.until(f"{region} knows it too", lambda d=other: digest_of(d, "2.6.0"))

    ran = hanse("rollout", "explain", "r-2", "--region", "eu-north", home=daemon.home)
    assert ran.returncode == 3, ran.stderr
    assert "eu-north (pilot) is rolledBack" in ran.stdout
    assert "e of harm" in ran.stdout
    there = federation.daemons["us-east"].home
    said = json.loads(
        done("rollout", "explain", "r-2", "--region", "us-east", "-o", "json", home=there)
    )
    (region,) = said["regions"]
    assert (region["state"], region["missing"][0]["reason"]) == ("held", "heldElsewhere")
    assert region["missing"][0]["text"] == "held by eu-north"


def test_an_operator_rolls_back_a_proven_release_and_sees_it_done(world: World) -> None:
    federation, users, daemon = world.federation, world.users, world.federation.founder
    users.labels.set()
    federation.publish(paths()["v2"], "3.0.0", parent="1.0.0")
    world.promote("3.0.0", world.careful)
    federation.until("both nodes run 3.0.0", lambda: world.nodes_run("3.0.0"))
    ran = hanse(
        *("rollback", MODEL, "--reason", "INC-341", "-y", "--watch", "--timeout", "60s"),
        home=daemon.home,
    )
    assert ran.returncode == 0, ran.stderr
    assert "will move 2 nodes of eu-north from 3.0.0 to 1.0.0" in ran.stderr
    assert all(node.status()["models"][0]["version"] == "1.0.0" for node in federation.nodes)
    assert daemon.row()["active"]["version"] == "1.0.0"
    assert "INC-341" in done("why", f"{MODEL}@3.0.0", home=daemon.home)
    federation.agreed()
    assert users.failures == []


def test_a_freeze_stops_forward_moves_until_it_is_lifted(world: World) -> None:
    federation, daemon = world.federation, world.federation.founder
    done("freeze", MODEL, "--reason", "audit", home=daemon.home)
    assert daemon.row()["state"] == "frozen"
    federation.publish(paths()["v2"], "3.0.1", parent="1.0.0")
    rollout = federation.roll_out("3.0.1", world.careful)
    federation.until(
        "the rollout waits", lambda: daemon.state_in(rollout, "eu-north") in ("gated", "held")
    )
    assert daemon.row()["active"]["version"] == "1.0.0"
    (hold,) = [h for h in daemon.ask("holds", model=MODEL)["holds"] if h["release"] is None]
    done("unfreeze", MODEL, "--hold", hold["hold"][:12], home=daemon.home)
    federation.until(
        "the rollout goes on to its end",
        lambda: daemon.state_in(rollout, "eu-north") == "healthy",
    )
    assert daemon.row()["active"]["version"] == "3.0.1"
    federation.agreed()
    assert world.users.failures == []


def digest_of(daemon: Daemon, version: str) -> str:
    return str(daemon.ask("release.show", model=MODEL, version=version)["release"])
