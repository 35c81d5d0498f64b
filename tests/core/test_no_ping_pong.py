"""T39: numbers that swing send a region back once; forward again it goes by people."""

from __future__ import annotations

import hand_federation
import pytest
from test_healing import DRIFTED, GOOD, WATCHED, Region, promoted

from hanse.core.catalog.lineage import rollback_target
from hanse.core.errors import NotPermitted
from hanse.core.events import HoldLift, Rollback

HOURS = 6  # as in a day, at a quarter of the cost


def test_numbers_that_swing_for_hours_bring_about_one_rollback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    federation = Region()
    first, second = promoted(federation)
    third = federation.publish("5.0.0", parents=(second,))
    federation.roll_out("r-3", 3, third, second, **WATCHED)
    federation.run(90.0)
    assert federation.state("r-3") == "healthy"
    monkeypatch.setattr(hand_federation, "STEP_S", 10.0)  # as often as nodes have to be heard
    for turn in range(HOURS * 3):
        federation.traffic(GOOD if turn % 2 else DRIFTED)
        federation.run(1200.0)
    records = federation.node("eu-north").catalog.records(federation.view.model)
    back = [r.event.body for r in records if isinstance(r.event.body, Rollback)]
    assert [(body.from_release, body.to_release) for body in back] == [(third, second)]
    active = federation.view.active("eu-north")
    assert active is not None
    assert active.release == second
    released = federation.view.release(third)
    assert released is not None
    assert released.barred, "what was left is neither a target nor to be started"
    found = rollback_target(federation.view, second, "eu-north")
    assert found is not None
    assert found.digest == first, "a way back leads further back, never forward"

    (hold,) = [h for h in federation.view.holds if h.release == third]
    with pytest.raises(NotPermitted, match="no operator of eu-north signed it"):
        federation.propose("eu-north", HoldLift(federation.view.model, hold.id))
    lift = federation.control("lift", hold=hold.id.raw.hex())
    federation.propose("eu-north", HoldLift(federation.view.model, hold.id), attestations=[lift])
    released = federation.view.release(third)
    assert released is not None
    assert not released.barred, "people do"
