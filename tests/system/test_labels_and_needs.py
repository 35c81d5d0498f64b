"""A plan that selects regions by labels, and a release that one of two nodes cannot run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from digit_releases import paths
from digit_users import Users, answers
from plan_texts import FIRST
from system_federation import MODEL, REGIONS, Federation, done, hanse

pytestmark = pytest.mark.system
HERE, THERE = REGIONS[:2]

WAVES = """
spec:
  stages:
    - name: pilot
      regions: {matchLabels: {tier: pilot}}
      steps: &steps
        - setWeight: 50
        - analysis: {templates: [sound], minSamples: 40}
        - setWeight: 100
    - name: wave
      regions: {matchLabels: {tier: standard}, maxParallel: 1}
      requires: {stage: pilot, healthy: all, maxAge: 1h}
      steps: *steps
  templates:
    sound:
      alpha: 0.05
      metrics:
        - {name: error-rate, test: one-arm, event: error, slo: 0.05, provenBelow: 0.05}
  rollback: {prefetch: 2}
"""


def relabelled(world: Federation, folder: Path, region: str, *labels: str) -> None:
    home = world.founder.home
    draft = folder / f"labels-{region}.json"
    done("trust", "set-labels", region, *labels, "--home", home, "--out", draft)
    done("trust", "sign", draft, "--yes", "--key", home / "keys/root.key", "--home", home)
    done("trust", "submit", draft, home=home)


def test_a_labelled_region_takes_a_release_on_the_node_that_can_run_it(folder: Path) -> None:
    world = Federation(folder)
    try:
        world.found(regions=(HERE, THERE))
        settings = world.nodes[0].home / "agent.toml"
        settings.write_text(settings.read_text() + 'hardware = "orin"\n')  # [labels] comes last
        world.start((HERE, THERE))
        daemon, home = world.founder, world.founder.home
        relabelled(world, folder, HERE, "tier=pilot")
        first, waves = folder / "first.yaml", folder / "waves.yaml"
        first.write_text(FIRST)
        waves.write_text(WAVES)
        world.publish(paths()["v1"], "1.0.0")
        begun = world.roll_out("1.0.0", first)
        world.until("both serve 1.0.0", lambda: all(answers(n.address) for n in world.nodes))
        with Users(node.address for node in world.nodes) as users:
            world.until("1.0.0 is proven", lambda: daemon.state_in(begun, HERE) == "healthy")
            world.publish(paths()["v2"], "2.0.0", "--require", "hardware=orin", parent="1.0.0")

            name = ("rollout", "plan", f"{MODEL}@2.0.0", "--plan", waves, "-o", "json")
            refused = hanse(*name, home=home)
            assert refused.returncode == 1
            assert "0 regions carry tier=standard" in refused.stderr
            relabelled(world, folder, THERE, "tier=standard")
            plan: dict[str, Any] = json.loads(done(*name, home=home))
            assert [stage["regions"] for stage in plan["stages"]] == [[HERE], [THERE]]
            groups = {tuple(group["names"]): group["variant"] for group in plan["nodes"]}
            assert groups == {("n1",): paths()["v2"].stem.lower(), ("n2",): None}

            rollout = world.roll_out("2.0.0", waves)
            world.until("2.0.0 is proven", lambda: daemon.state_in(rollout, HERE) == "healthy")
            world.until(
                "n1 alone runs 2.0.0",
                lambda: (
                    [n.status()["models"][0]["version"] for n in world.nodes] == ["2.0.0", "1.0.0"]
                ),
            )
            (why,) = world.nodes[1].status()["models"][0]["failed"].values()
            assert "needs hardware orin, and the node does not say what it has" in why
            row = daemon.row()
            assert (row["state"], row["active"]["version"]) == ("healthy", "2.0.0")
            assert (row["nodes"]["on_target"], row["nodes"]["of"], row["nodes"]["unable"]) == (
                1,
                1,
                1,
            )
            assert "1 unable" in done("status", home=home)
            other = world.daemons[THERE]
            world.until(
                "the other region has begun, found by its label",
                lambda: other.state_in(rollout, THERE) not in ("pending", "gated"),
            )
            assert users.failures == []
        world.agreed()
        done("audit", "export", folder / "audit", home=home)
        verified = hanse(
            "audit", "verify", folder / "audit", "--trust-root", home / "trust", home=home
        )
        assert verified.returncode == 0, verified.stderr  # it resolves the labels as daemons do
        assert "2.0.0" in verified.stdout
    finally:
        world.close()
