"""What `hanse gc` keeps: nothing that is reached goes, and a rollback works after any of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hand_federation import CAREFUL, FIRST, MODEL, REGIONS, Federation, serving
from hypothesis import HealthCheck, Phase, event, example, given, settings
from hypothesis import strategies as st
from test_lineage import COUNT, DIGESTS, lineages, release, view
from test_rollback_rules import brought, rules

from hanse.core.catalog.lineage import rollback_targets, warm_targets
from hanse.core.catalog.manifest import File
from hanse.core.catalog.view import Activation, ModelView, Release
from hanse.core.effects import FetchRelease
from hanse.core.errors import Conflict
from hanse.core.events import Kill
from hanse.core.ids import Digest, EventId, MemberId, Origin, Segment, segment
from hanse.core.keeping import Note
from hanse.core.limits import TARGETS_KEPT_MIN
from hanse.core.retention import Beside, Plan, Rules, Stored, decide, pin_of
from hanse.daemon import commands

EU, SOMEBODY = Segment("eu"), MemberId("b" * 32)
OLD_S = 1e6
RULES = Rules(60.0)


def own_file(found: Release) -> Release:
    """With one file of its own and one that all share."""
    files = (
        File(segment("model.onnx"), Digest.of(found.digest.raw), 1000),
        File(segment("golden.npz"), Digest.of(b"golden"), 10),
    )
    return replace(found, manifest=replace(found.manifest, files=files))


def chain(count: int, **changed: Any) -> ModelView:
    """Each the child of the one before, all proven, recorded by another daemon."""
    made = (own_file(release(i, (i - 1,) if i else ())) for i in range(count))
    return replace(view(*made), **changed)


def on_disk(known: ModelView, age_s: float = OLD_S) -> list[Stored]:
    files = {f.digest: f.size for r in known.releases for f in r.manifest.files}
    return [Stored(digest, size, age_s) for digest, size in files.items()]


def head(i: int) -> Activation:
    return Activation(EventId(bytes(32)), EU, DIGESTS[i], "eu", "promote")


def decided(known: ModelView, beside: Beside | None = None, rules: Rules = RULES) -> Plan:
    beside = beside or Beside(EU, SOMEBODY)
    return decide({known.model: known}, beside, on_disk(known), rules)


def staying(plan: Plan) -> set[Digest]:
    return {fate.release for fate in plan.releases if fate.why}


def lost(plan: Plan, known: ModelView) -> set[Digest]:
    """Releases of which a file goes."""
    gone = {blob.digest for blob in plan.going}
    return {r.digest for r in known.releases if gone & {f.digest for f in r.manifest.files}}


@settings(deadline=None, max_examples=400)
@given(
    lineages,
    st.integers(0, COUNT - 1),
    st.integers(0, COUNT - 1),
    st.integers(0, COUNT - 1),
    rules,
    st.integers(0, 4),
    st.sets(st.integers(0, COUNT - 1)),
    st.booleans(),
)
def test_nothing_that_is_reached_ever_goes(
    lines: list[tuple[list[int], bool, bool, bool, bool]],
    active: int,
    trial: int,
    old: int,
    rule: dict[str, Any],
    floor: int,
    pinned: set[int],
    origin: bool,
) -> None:
    if old == trial or str(DIGESTS[trial]) in (rule.get("target"), rule.get("fallback")):
        return
    releases = [
        own_file(release(i, tuple(p), proven=a, held=b and c, killed=c and d, quarantined=b and d))
        for i, (p, a, b, c, d) in enumerate(lines)
    ]
    plan = brought(DIGESTS[trial], rule, DIGESTS[old])
    plan = replace(plan, plan=replace(plan.plan, model=Segment("ocr")))
    known = replace(view(*releases, floor=floor), rollouts=(plan,), heads=(head(active),))
    beside = Beside(EU, SOMEBODY, (plan.plan,), {DIGESTS[i]: "an audit" for i in pinned})
    found = decided(known, beside, Rules(60.0, origin))
    needed = {DIGESTS[active], DIGESTS[trial], *(DIGESTS[i] for i in pinned)}
    needed |= {r.digest for r in warm_targets(known, plan.plan, EU)}
    for bad in (DIGESTS[active], DIGESTS[trial]):
        needed |= {r.digest for r in [*rollback_targets(known, bad, EU)][:TARGETS_KEPT_MIN]}
    fallback = rule.get("fallback", "disable")
    named = {DIGESTS[old], *([Digest.parse(fallback)] if fallback != "disable" else [])}
    may_serve = (r for r in releases if not r.killed and r.counter >= floor)
    needed |= named & {r.digest for r in may_serve}
    event(f"{len(lost(found, known))} go")
    assert not lost(found, known) & needed
    assert not lost(found, known) & staying(found)
    assert {fate.release for fate in found.releases if fate.goes} == lost(found, known)


def test_every_reason_is_said_and_what_has_none_goes() -> None:
    known = chain(6, heads=(head(4),))
    plan = decided(known)
    assert [fate.why for fate in plan.releases] == [
        (),
        (),
        ("a way back from 4.0",),
        ("a way back from 4.0",),
        ("serves here",),
        (),
    ]
    assert sum(blob.size for blob in plan.going) == 3000
    assert next(b.why for b in plan.blobs if b.size == 10)  # shared with those that stay
    beside = Beside(
        EU, SOMEBODY, (), {DIGESTS[0]: "an audit"}, {DIGESTS[1]: "n1"}, frozenset({DIGESTS[5]})
    )
    assert [fate.why for fate in decided(known, beside).releases if fate.release != DIGESTS[4]] == [
        ("pinned: an audit",),
        ("node n1 has it",),
        ("a way back from 4.0",),
        ("a way back from 4.0",),
        ("the nodes were told of it",),
    ]


def test_where_it_was_published_it_stays_until_nobody_can_go_back_to_it() -> None:
    home = MemberId("a" * 32)
    known = chain(6, heads=(head(5),), floor=1)
    killed, retired = (replace(known.releases[i], **w) for i, w in (
        (1, {"killed": True}), (2, {"retired": "retired"})
    ))  # fmt: skip
    known = replace(known, releases=(known.releases[0], killed, retired, *known.releases[3:]))
    assert staying(decided(known, Beside(EU, home))) == set(DIGESTS[3:6])
    asked = decided(replace(known, heads=(head(3),)), Beside(EU, home), Rules(60.0, origin=False))
    assert staying(asked) == {DIGESTS[3]}  # of its ancestors none is fit any more


def test_a_plan_that_waits_for_finality_already_keeps_as_many_ways_back_as_it_says() -> None:
    plan = brought(DIGESTS[5], {"prefetch": 4}, DIGESTS[4])
    logs = (Origin.parse(f"acme/us/{'a' * 32}/i1"),)
    plan = replace(plan, plan=replace(plan.plan, model=Segment("ocr")), final=False, logs=logs)
    known = chain(6, heads=(head(4),), rollouts=(plan,))
    found = decided(known, Beside(EU, SOMEBODY, (plan.plan,)))
    assert staying(found) >= {r.digest for r in warm_targets(known, plan.plan, EU)}
    assert staying(found) == set(DIGESTS[1:6])


def test_what_came_a_moment_ago_or_is_on_its_way_stays() -> None:
    known = chain(3)
    young = decide({MODEL: known}, Beside(EU, SOMEBODY), on_disk(known, 59.0), RULES)
    assert young.going == ()
    assert decided(known, Beside(EU, SOMEBODY, arriving=frozenset(DIGESTS))).going == ()
    assert decide({}, Beside(EU, SOMEBODY), on_disk(known, 59.0), RULES).going == ()
    assert len(decide({}, Beside(EU, SOMEBODY), on_disk(known), RULES).going) == 4
    again = [replace(s, age_s=1.0) if s.size == 10 else s for s in on_disk(known)]
    assert decide({MODEL: known}, Beside(EU, SOMEBODY), again, RULES).going == ()  # uploaded again


def test_a_pin_of_a_release_that_goes_keeps_nothing_and_any_other_does() -> None:
    known = chain(1)
    mine = pin_of(DIGESTS[0])
    stored = [replace(blob, pins=(mine,)) for blob in on_disk(known)]
    assert len(decide({MODEL: known}, Beside(EU, SOMEBODY), stored, RULES).going) == 2
    stored = [replace(blob, pins=(mine, "release-unknown")) for blob in on_disk(known)]
    assert decide({MODEL: known}, Beside(EU, SOMEBODY), stored, RULES).going == ()
    assert decide({}, Beside(EU, SOMEBODY), stored, RULES).going == ()


# -- in time --------------------------------------------------------------------------


class World(Federation):
    """Fetches are served by whoever still has all files; nobody else has them."""

    def effect(self, effect: object) -> None:
        if isinstance(effect, FetchRelease):
            holders = [n for n in self.nodes.values() if effect.release in n.region.local]
            assert len(holders) > 1, f"{effect.release} is lost"

    def collect(self, region: str, *, origin: bool = True) -> list[Digest]:
        node = self.node(region)
        known = node.catalog.views[MODEL]
        files = {
            f.digest: f.size
            for r in known.releases
            if r.digest in node.region.local
            for f in r.manifest.files
        }
        stored = [Stored(digest, size, OLD_S) for digest, size in files.items()]
        plan = decide(node.catalog.views, node.region.beside, stored, Rules(60.0, origin))
        gone = [fate.release for fate in plan.releases if fate.goes]
        for each in gone:
            node.region.forget(each)
            node.region.keeping.bury(each, Note(MODEL, "a test", 1))
        return gone


def roll_back(world: World, region: str) -> bool:
    """Whether there was anything to go back to; it is there then, and the nodes are told."""
    node = world.node(region)
    try:
        commands.roll_back(node, {"model": MODEL, "reason": "a test"})
    except Conflict:
        return False
    world.settle()
    world.run(1.0)
    active, told = node.catalog.views[MODEL].active(region), node.region.duty.told(MODEL)
    assert active is not None
    assert told is not None
    assert told.active == active.release
    assert told.active in node.region.local
    return True


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["forward", "trial", "gc", "back", "kill"]), st.sampled_from(REGIONS)
    ),
    min_size=4,
    max_size=8,
)


A_KILLED_PREDECESSOR = [
    ("trial", segment("eu-north")),
    ("kill", segment("eu-north")),
    ("forward", segment("eu-north")),
    ("trial", segment("ap-south")),
    ("gc", segment("us-east")),
    ("trial", segment("ap-south")),
    ("back", segment("eu-north")),
    ("forward", segment("us-east")),
]
"""Back at what followed it, nobody looks for a release that may never serve again."""


@settings(
    deadline=None,
    max_examples=6,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],
)
@example(A_KILLED_PREDECESSOR)
@given(STEPS)
def test_after_any_history_a_collection_leaves_every_way_back(
    steps: list[tuple[str, Segment]],
) -> None:
    world = World(edges=1)
    releases, generation = [serving(world)], 1
    for kind, region in steps:
        node = world.node(region)
        if kind in ("forward", "trial"):
            generation += 1
            new = world.publish(f"{generation + 2}.0.0", parents=(releases[-1],), region=region)
            plan = FIRST if kind == "forward" else CAREFUL
            world.roll_out(f"r-{generation}", generation, new, releases[-1], **plan)
            world.run(20.0 if kind == "forward" else 1.0)
            releases.append(new)
        elif kind == "kill":
            signed = world.control("kill", release=str(releases[-1]))
            world.propose(region, Kill(MODEL, releases[-1], "x"), attestations=[signed])
        elif kind == "gc":
            event("something goes" if world.collect(region) else "nothing goes")
        else:
            roll_back(world, region)
    for region in REGIONS:
        world.collect(region)
        node = world.node(region)
        view = node.catalog.views[MODEL]
        active = view.active(region)  # none, if every release was killed
        ways = list(rollback_targets(view, active.release, region)) if active else []
        assert {r.digest for r in ways[:TARGETS_KEPT_MIN]} <= node.region.local
        while roll_back(world, region):
            pass


def test_what_was_removed_is_fetched_when_it_is_needed_again() -> None:
    world = World(edges=1)
    chained = [serving(world)]
    for i in range(2, 6):
        chained.append(world.publish(f"{i + 2}.0.0", parents=(chained[-1],)))
        world.roll_out(f"r-{i}", i, chained[-1], chained[-2], **FIRST)
        world.run(30.0)
    region = world.node("us-east").region
    assert world.collect("us-east") == chained[:2]
    assert set(region.keeping.tombstones) == set(chained[:2])
    assert world.collect("eu-north") == []  # published here
    assert roll_back(world, "us-east")
    assert set(region.keeping.tombstones) == set(chained[:1])
    assert chained[1] in region.local
    world.collect("us-east")
    for _ in range(3):
        assert roll_back(world, "us-east")
    assert set(region.keeping.tombstones) == {chained[4]}  # held, and nobody's way back


@pytest.mark.parametrize("word", ["pin", "unpin"])
def test_pins_and_tombstones_are_stored_and_read_back(word: str) -> None:
    from hanse.core.keeping import PINS, TOMBSTONES, Keeping

    keeping, stored = Keeping(), {PINS: {}, TOMBSTONES: {}}  # type: ignore[var-annotated]
    keeping.pin(DIGESTS[0], Note(MODEL, "an audit", 1))
    keeping.bury(DIGESTS[1], Note(MODEL, "nothing reached it", 2))
    if word == "unpin":
        keeping.pin(DIGESTS[0], None)
        keeping.back(DIGESTS[1])
    for write in keeping.writes():
        stored[write.space][write.key] = write.value  # type: ignore[union-attr]
    again = Keeping()
    again.restore(*({k: v for k, v in each.items() if v} for each in stored.values()))
    assert (again.pins, again.tombstones) == (keeping.pins, keeping.tombstones)
    assert bool(again.pins) == (word == "pin")
