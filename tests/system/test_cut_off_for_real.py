"""Real daemons in networks of their own, cut off from each other in the middle of a rollout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from digit_releases import paths
from digit_users import Users, answers
from namespaces import Regions, possible
from plan_texts import CAREFUL, FIRST
from system_federation import MODEL, REGIONS, Federation, done

pytestmark = pytest.mark.system
PILOT, WAVE, BYSTANDER = REGIONS
WITHIN_S = 15.0
CANARY = ("weighting", "paused", "analyzing")
PAUSE_S = 20.0  # of the wave's canary: the news that it begins with is older by then
_CANARY = "- setWeight: {weight: 20, shadow: 100%}"
_WAVE = f"""
      steps:
        {_CANARY}
        - pause: {{duration: {PAUSE_S:g}s}}
        - analysis: {{templates: [accuracy], minSamples: 40}}
        - setWeight: 100"""
PLAN = CAREFUL.replace(f"{WAVE}, {BYSTANDER}", WAVE).replace("minSamples: 40", "minSamples: 200")
PLAN = PLAN.replace("\n      steps: *steps", _WAVE)
PLAN += f"  freshness: {{within: {WITHIN_S:g}s}}\n"


@pytest.fixture(scope="module")
def network() -> Iterator[Regions]:
    if not possible():
        pytest.skip("network namespaces cannot be made")
    with Regions(REGIONS) as made:
        yield made


@pytest.fixture
def apart(network: Regions, folder: Path) -> Iterator[Federation]:
    """Each region in its own network, with a node in the first two."""
    made = Federation(folder)
    made.found(nodes=(), hosts={region: network.host(region) for region in REGIONS})
    for region, name in ((PILOT, "n1"), (WAVE, "n2")):
        made.nodes.append(made.enrol(name, f"unix:{folder / name}.sock", region))
    for process, region in (*zip(made.daemons.values(), REGIONS), *zip(made.nodes, REGIONS)):  # noqa: B905
        process.under = network.inside(region)
    try:
        yield made
    finally:
        made.close()


def test_nobody_proceeds_who_should_not_and_everybody_goes_back(
    apart: Federation, network: Regions, folder: Path
) -> None:
    federation, plan, first = apart, folder / "plan.yaml", folder / "first.yaml"
    plan.write_text(PLAN)
    first.write_text(FIRST.replace(f"[{PILOT}]", f"[{PILOT}, {WAVE}]"))
    pilot, wave, bystander = federation.daemons.values()
    federation.start()
    federation.publish(paths()["v1"], "1.0.0")
    rollout = federation.roll_out("1.0.0", first)
    addresses = [node.address for node in federation.nodes]
    federation.until("both serve 1.0.0", lambda: all(map(answers, addresses)))
    with Users(addresses) as users:
        for daemon in (pilot, wave):
            federation.until(
                f"1.0.0 is proven in {daemon.region}",
                lambda d=daemon: pilot.state_in(rollout, d.region) == "healthy",
            )
        users.labels.set()
        federation.publish(paths()["v2"], "2.0.0", parent="1.0.0")
        rollout = federation.roll_out("2.0.0", plan)

        # The pilot is cut off in the middle of its canary, and goes on to its end alone.
        federation.until("the canary", lambda: pilot.state_in(rollout, PILOT) in CANARY)
        federation.until("the wave knows", lambda: wave.state_in(rollout, WAVE) == "gated")
        network.cut([PILOT])
        federation.until("proof", lambda: pilot.state_in(rollout, PILOT) == "healthy")
        assert pilot.row()["active"]["version"] == "2.0.0"
        assert wave.state_in(rollout, WAVE) == "gated", "it cannot know that the pilot is healthy"
        network.heal()

        # The wave is cut off in the middle of its own canary: it waits, and serves on.
        federation.until("the wave's canary", lambda: wave.state_in(rollout, WAVE) in CANARY)
        network.cut([WAVE])
        federation.until("it waits", lambda: wave.state_in(rollout, WAVE) == "held")
        (held,) = [r for r in wave.rollout(rollout)["regions"] if r["region"] == WAVE]
        assert "not heard within" in held["reason"], held
        answered = users.sent[addresses[1]]
        federation.until("users are answered", lambda: users.sent[addresses[1]] > answered + 20)

        # Each side goes back on the word of its own people.
        why = ("--reason", "we are alone", "-y")
        done("rollout", "abort", MODEL, rollout, "--region", WAVE, *why, home=wave.home)
        federation.until("the wave is back", lambda: runs(federation, 1, "1.0.0"))
        done("release", "kill", f"{MODEL}@2.0.0", "--reason", "wrong", "-y", home=pilot.home)
        federation.until("the pilot is back", lambda: runs(federation, 0, "1.0.0"))
        assert state_of(wave) != "killed", "it cannot know"

        network.heal()
        federation.until("all know", lambda: {state_of(d) for d in (pilot, wave)} == {"killed"})
        federation.agreed()
        assert all(runs(federation, i, "1.0.0") for i in (0, 1))
        assert users.failures == []
        assert bystander.state_digest == pilot.state_digest


def state_of(daemon: object) -> str:
    releases = daemon.ask("release.list", model=MODEL)["releases"]  # type: ignore[attr-defined]
    return next(str(r["state"]) for r in releases if r["version"] == "2.0.0")


def runs(federation: Federation, node: int, version: str) -> bool:
    models = federation.nodes[node].status().get("models", ())
    return [(m["version"], bool(m["candidate"])) for m in models] == [(version, False)]
