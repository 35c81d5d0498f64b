"""A plan may wait for people: for these roles, at this step, of this very plan."""

from __future__ import annotations

from typing import Any

import pytest
from hand_federation import CAREFUL, MODEL, Federation, serving

from hanse.core.catalog.view import RolloutView
from hanse.core.errors import Conflict, InvalidSpec, NotFound, NotPermitted
from hanse.core.evidence.verdict import Reason
from hanse.core.ids import Digest
from hanse.core.rollout.table import State
from hanse.core.trust import statements
from hanse.daemon import approvals
from hanse.daemon.queries.approvals import rollout_awaiting

EU, US = "eu-north", "us-east"
GATE = {"approve": {"role": "release-manager"}}


def with_gates(*stages: int, **step: Any) -> dict[str, Any]:
    """The careful plan, in which some stages wait for people before users meet the release."""
    gate = {"approve": {**GATE["approve"], **step}}
    changed = [
        {**stage, "steps": [*stage["steps"][:2], gate, *stage["steps"][2:]]}
        if index in stages
        else stage
        for index, stage in enumerate(CAREFUL["stages"])
    ]
    return {**CAREFUL, "stages": changed}


@pytest.fixture
def town() -> Federation:
    federation = Federation()
    serving(federation)
    return federation


def start(town: Federation, plan: dict[str, Any]) -> Digest:
    old = town.node(EU).catalog.views[MODEL].releases[0].digest
    new = town.publish("4.0.0", parents=(old,))
    town.roll_out("r-2", 2, new, old, **plan)
    return new


def rollout(town: Federation) -> RolloutView:
    found = town.node(EU).catalog.views[MODEL].current_rollout()
    assert found is not None
    return found


def state(town: Federation, region: str) -> State:
    node = town.node(region)
    execution = node.region.execution(node.catalog.views[MODEL], rollout(town))
    assert execution is not None
    return execution.progress.state


def awaiting(town: Federation, **more: Any) -> dict[str, Any]:
    return rollout_awaiting(town.node(EU), town.clock, {"model": MODEL, **more})


def sign(town: Federation, asked: dict[str, Any]) -> str:
    named = (asked["model"], asked["spec"], asked["stage"], asked["step"])
    return statements.sign_control(statements.approval_statement(*named), [town.person]).decode()


def approve(town: Federation, asked: dict[str, Any], region: str = EU, **more: Any) -> None:
    body = {**asked, "envelope": sign(town, asked), **more}
    answer = approvals.approve(town.node(region), body)
    town.settle()
    assert answer()["event"].startswith("ev_")


def test_a_stage_goes_on_when_somebody_signed_and_not_before(town: Federation) -> None:
    start(town, with_gates(0))
    town.run(120.0)
    assert state(town, EU) is State.AWAITING
    approve(town, awaiting(town))
    town.run(60.0)
    assert state(town, EU) is State.HEALTHY


def test_an_approval_may_come_early_and_from_another_region(town: Federation) -> None:
    start(town, with_gates(0, 1))
    second = awaiting(town, stage="wave")
    approve(town, second, region=US)
    approve(town, awaiting(town))
    town.run(300.0)
    assert state(town, US) is State.HEALTHY
    with pytest.raises(NotFound, match="waits"):
        awaiting(town)


def test_harm_does_not_wait_for_the_approver(town: Federation) -> None:
    start(town, with_gates(0))
    town.run(120.0)
    node = town.node(EU)
    execution = node.region.execution(node.catalog.views[MODEL], rollout(town))
    assert execution is not None
    for edge in town.edges[EU]:
        pairs = edge.traffic.pairs
        edge.traffic.pairs = type(pairs)(agree=10, both_right=5, only_old_right=15)
    town.run(60.0)
    assert execution.progress.state in (State.ROLLING_BACK, State.ROLLED_BACK)
    assert execution.progress.reason == Reason.WORSE


def test_the_approval_of_one_step_opens_no_other(town: Federation) -> None:
    start(town, with_gates(0, 1))
    approve(town, awaiting(town, stage="wave"))
    town.run(120.0)
    assert state(town, EU) is State.AWAITING


def test_the_approval_of_another_plan_opens_nothing(town: Federation) -> None:
    new = start(town, with_gates(0))
    earlier = awaiting(town)
    old = town.node(EU).catalog.views[MODEL].releases[0].digest
    town.roll_out("r-3", 3, new, old, **with_gates(0))
    with pytest.raises(Conflict, match="newer"):
        approve(town, earlier)
    town.run(120.0)
    assert state(town, EU) is State.AWAITING


def test_two_are_asked_for_and_one_is_not_enough(town: Federation) -> None:
    start(town, with_gates(0, count=2))
    with pytest.raises(NotPermitted, match="1 of 2 people"):
        approve(town, awaiting(town))


def test_a_forged_approval_and_one_of_no_such_step_are_refused(town: Federation) -> None:
    start(town, with_gates(0))
    asked = awaiting(town)
    with pytest.raises(NotPermitted):
        approve(town, asked, envelope=sign(town, {**asked, "step": asked["step"] + 1}))
    with pytest.raises(InvalidSpec, match="no approve step"):
        approve(town, {**asked, "step": 0})
    with pytest.raises(NotFound):
        approve(town, {**asked, "spec": str(Digest.of(b"another"))})
