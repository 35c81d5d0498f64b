"""A flag is a model: the SDK, the model and the kill switches, between real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from digit_releases import holdout, paths
from digit_users import Users, answers
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from plan_texts import FIRST, HALF
from system_federation import MODEL, Federation, Node, done, hanse

from hanse.openfeature import HanseProvider

pytestmark = pytest.mark.system
EU = "eu-north"
DOCKS = HALF.replace(
    "spec:\n",
    "spec:\n  audience: {unit: customer, target: [{attribute: device, in: [dock]}]}\n"
    "  nodes: {failing: 60%}\n",
)
COUNTED = DOCKS.replace(
    "event: error", """prometheus: {bad: 'a{r="$role"}', total: 'b{r="$role"}'}"""
)


@pytest.fixture(scope="module")
def town(folder: Path) -> Iterator[Federation]:
    """One region, whose daemon shall ask a Prometheus that nobody runs; 1.0.0 serves."""
    made = Federation(folder)
    try:
        made.found(regions=[EU])
        settings = made.founder.home / "hanse.toml"
        usual = '# prometheus_url = ""'
        assert usual in settings.read_text()
        url = 'prometheus_url = "http://127.0.0.1:1"'
        settings.write_text(settings.read_text().replace(usual, url))
        (folder / "first.yaml").write_text(FIRST)
        made.start([EU])
        made.publish(paths()["v1"], "1.0.0")
        rollout = made.roll_out("1.0.0", folder / "first.yaml")
        made.until("both nodes serve", lambda: all(answers(n.address) for n in made.nodes))
        with Users(node.address for node in made.nodes):
            made.until("1.0.0 is proven", lambda: made.founder.state_in(rollout, EU) == "healthy")
            yield made
    finally:
        made.close()


def told(node: Node, unit: str, **attributes: str) -> tuple[str, str]:
    """What the OpenFeature SDK says of a user: version and variant."""
    api.set_provider_and_wait(HanseProvider(node.address, timeout_s=5.0))
    asked = EvaluationContext(unit, attributes)
    found = api.get_client().get_string_details(MODEL, "?", asked)
    return found.value, str(found.variant)


def answered(node: Node, unit: str, **attributes: str) -> tuple[str, str]:
    """What the model answers the same user by."""
    tensor = triton.InferInput("X", [1, 64], "FP32")
    tensor.set_data_from_numpy(holdout()[0][:1])
    parameters = {f"context.{name}": value for name, value in attributes.items()}
    with triton.InferenceServerClient(node.address) as client:
        answer = client.infer(MODEL, [tensor], parameters={"routing_key": unit, **parameters})
    response = answer.get_response()
    return response.model_version, response.parameters["role"].string_param


def test_a_user_is_told_and_answered_alike_by_every_node_until_somebody_turns_it_off(
    town: Federation, folder: Path
) -> None:
    (folder / "docks.yaml").write_text(DOCKS)
    town.publish(paths()["v2"], "2.0.0", parent="1.0.0")
    rollout = town.roll_out("2.0.0", folder / "docks.yaml")
    town.until("it is under way", lambda: town.founder.state_in(rollout, EU) == "paused")
    first, second = town.nodes
    docks = {f"c{i}": told(first, "s", device="dock", customer=f"c{i}") for i in range(30)}
    assert set(docks.values()) == {("1.0.0", "stable"), ("2.0.0", "canary")}
    for customer, said in docks.items():
        for node in town.nodes:
            assert answered(node, "x", device="dock", customer=customer) == said
            assert told(node, "y", device="dock", customer=customer) == said
        assert answered(first, "x", device="gate", customer=customer) == ("1.0.0", "stable")
    dock = {"device": "dock", "customer": next(c for c, said in docks.items() if "canary" in said)}

    done("agent", "off", MODEL, "--reason", "INC-1", "--home", second.home)
    town.until("it is off there", lambda: answered(second, "x", **dock) == ("1.0.0", "stable"))
    assert told(second, "x", **dock) == ("1.0.0", "stable")
    assert told(first, "x", **dock) == ("2.0.0", "canary")
    town.until(
        "the region knows why",
        lambda: "INC-1" in str(second.status()["models"][0]["failed"]),
    )
    assert town.founder.state_in(rollout, EU) == "paused", "one of two is borne by this plan"

    begun_s = time.monotonic()
    words = ("rollout", "abort", MODEL, rollout, "--region", EU, "--reason", "INC-2", "--yes")
    ran = hanse(*words, home=town.founder.home)
    assert ran.returncode == 0, ran.stderr
    stored_s = time.monotonic()
    town.until("it is off everywhere", lambda: told(first, "x", **dock) == ("1.0.0", "stable"))
    print(f"abort {stored_s - begun_s:.2f} s, then off {time.monotonic() - stored_s:.2f} s")
    town.founder.kill()
    first.kill()
    first.start()
    town.founder.handle = None
    town.until("it serves from its disk", lambda: answers(first.address))
    assert answered(first, "x", **dock) == told(first, "x", **dock) == ("1.0.0", "stable")
    town.founder.start()
    town.until("the daemon is back", lambda: town.founder.writing)


def test_a_plan_whose_metrics_cannot_be_looked_up_is_refused_at_entry(
    town: Federation, folder: Path
) -> None:
    (folder / "counted.yaml").write_text(COUNTED)
    town.publish(paths()["v2"], "3.0.0", "--metric", "accuracy=0.9", parent="1.0.0")
    plan = ("--plan", folder / "counted.yaml")
    ran = hanse("rollout", "start", f"{MODEL}@3.0.0", *plan, home=town.founder.home)
    assert ran.returncode == 6, ran.stdout + ran.stderr
    assert "Prometheus at http://127.0.0.1:1 cannot be asked" in ran.stderr
