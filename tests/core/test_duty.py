"""What nodes are told rises in order, is said once, and is never half a truth."""

from __future__ import annotations

import pytest
from hand_federation import PEM

from hanse.core.assignment import MODELS_MAX, ModelAssignment, open_assignment, parse_assignment
from hanse.core.catalog.view import ModelView
from hanse.core.duty import Duty
from hanse.core.errors import Rejected
from hanse.core.ids import Origin, Segment, member_id
from hanse.core.signing import SigningKey
from hanse.core.trust.members import Member, Members, Region

KEY, ROOT = SigningKey(b"k" * 32), SigningKey(b"r" * 32)
ME = Origin(Segment("harbour"), Segment("eu-north"), member_id(KEY.public), 1)
MEMBERS = Members(
    ME.federation,
    1,
    (ROOT.public,),
    1,
    "seed",
    (Region(ME.region, PEM),),
    (Member(ME.region, KEY.public, PEM, "eu-north:1"),),
    (),
)


def models(count: int) -> tuple[list[ModelAssignment], dict[Segment, ModelView]]:
    names = [Segment(f"model-{i}") for i in range(count)]
    views = {name: ModelView(name, 0, (), (), (), ()) for name in names}
    return [ModelAssignment(name) for name in names], views


def test_the_same_is_said_once_and_news_with_a_higher_serial() -> None:
    duty = Duty(ME, KEY)
    first = duty.publish(*models(1), MEMBERS)
    assert first is not None
    assert open_assignment(first.assignment, first.signature, KEY.public).order == (1, 1)
    assert duty.publish(*models(1), MEMBERS) is None
    assert duty.publish(*models(2), MEMBERS) is not None
    assert duty.order == (1, 2)


def test_what_no_node_could_read_is_refused_and_the_last_word_stands() -> None:
    duty = Duty(ME, KEY)
    duty.publish(*models(1), MEMBERS)
    with pytest.raises(Rejected):
        duty.publish(*models(MODELS_MAX + 1), MEMBERS)
    assert duty.order == (1, 1)
    (stored,) = duty.writes()
    assert len(parse_assignment(stored.value).models) == 1


def test_a_restart_goes_on_from_the_last_serial() -> None:
    before = Duty(ME, KEY)
    before.publish(*models(1), MEMBERS)
    (stored,) = before.writes()
    after = Duty(ME, KEY)
    again = after.restore({stored.key: stored.value})
    assert again is not None
    assert after.publish(*models(1), MEMBERS) is None
    assert after.order == (1, 1)
