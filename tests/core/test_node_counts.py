"""What the reports of nodes say about a release: who has it, who failed it, who fell silent."""

from __future__ import annotations

from hand_federation import CAREFUL, MODEL, Federation, serving

from hanse.core.ids import Digest
from hanse.core.rollout.table import State

EU = "eu-north"


def trying(**body: object) -> tuple[Federation, Digest]:
    town = Federation()
    old = serving(town)
    new = town.publish("4.0.0", parents=(old,))
    town.roll_out("r-2", 2, new, old, **{**CAREFUL, **body})
    return town, new


def state(town: Federation) -> State:
    node = town.node(EU)
    view = node.catalog.views[MODEL]
    rollout = view.current_rollout()
    assert rollout is not None
    execution = node.region.execution(view, rollout)
    assert execution is not None
    return execution.progress.state


def test_a_node_that_cannot_run_it_undoes_the_rollout() -> None:
    town, new = trying()
    town.edges[EU][0].failed[new] = "golden outputs differ"
    town.run(60.0)
    assert state(town) is State.ROLLED_BACK
    assert town.node(EU).catalog.views[MODEL].versions("4.0.0")[0].held == (EU,)


def test_a_plan_that_bears_it_goes_on_without_that_node() -> None:
    town, new = trying(nodes={"failing": "50%"})
    town.edges[EU][0].failed[new] = "golden outputs differ"
    town.run(120.0)
    assert state(town) is State.HEALTHY


def test_a_node_that_took_it_and_was_never_heard_again_counts_if_the_plan_says_so() -> None:
    for rules, expected in (
        ({"silentAfterUpdate": "20s"}, State.ROLLED_BACK),
        ({}, State.HEALTHY),
    ):
        town, new = trying(nodes=rules, stages=_slow())
        town.run(30.0)
        quiet = town.edges[EU][0]
        report = town.node(EU).fleet.nodes[quiet.name].models[MODEL]
        assert new in report.ready
        quiet.silent = True
        town.run(120.0)
        assert state(town) is expected


def _slow() -> list[dict[str, object]]:
    pilot = dict(CAREFUL["stages"][0])
    pilot["steps"] = [{"shadow": {"sample": "50%", "duration": "60s"}}, *pilot["steps"][1:]]
    return [pilot]
