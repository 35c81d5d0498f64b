"""Where a plan says to go back to: target, window and fallback, and what nodes keep on disk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hand_federation import MODEL, Federation, serving
from hypothesis import event, given, settings
from hypothesis import strategies as st
from test_device import V1, V2, V3, V4, Node, wish
from test_lineage import COUNT, DIGESTS, lineages, release, view
from test_rollout_machine import document

from hanse.core.catalog.lineage import rollback_target, rollback_targets, warm_targets
from hanse.core.catalog.view import Activation, ModelView, Release, RolloutView
from hanse.core.errors import InvalidSpec
from hanse.core.events import Hold, Kill, Rollback
from hanse.core.ids import Digest, EventId, Origin, segment
from hanse.core.rollout.spec import canonical, parse_spec, spec_digest

EU = segment("eu")


def brought(
    bad: Digest, rule: dict[str, Any], old: Digest | None, generation: int = 1
) -> RolloutView:
    made = document(release=str(bad), predecessor=str(old) if old else None, rollback=rule)
    made["metadata"]["generation"] = generation
    plan = parse_spec(made)
    return RolloutView(
        EventId(bytes(32)),
        plan.name,
        plan.generation,
        plan.release,
        plan.predecessor,
        canonical(plan),
        spec_digest(plan),
        plan,
        True,
    )


def oracle(known: ModelView, bad: Digest, rule: dict[str, Any], old: Digest) -> Release | None:
    """The same, written down naively: sets of generations, no walking."""
    by_digest = {r.digest: r for r in known.releases}
    generations: list[list[Digest]] = [[bad]]
    while generations[-1]:
        above = [p.release for d in generations[-1] for p in by_digest[d].manifest.parents]
        older = [d for g in generations for d in g]
        generations.append([d for d in dict.fromkeys(above) if d not in older and d in by_digest])
    depth = rule.get("window", {"revisions": 99})["revisions"]
    order = [d for g in generations[1 : depth + 1] for d in g]
    target = rule.get("target", "lastHealthy")
    if target != "lastHealthy":
        order.insert(0, old if target == "predecessor" else Digest.parse(target))
    fine = {
        d for d, r in by_digest.items() if d != bad and not r.barred and r.counter >= known.floor
    }
    for digest in order:
        if digest in fine and by_digest[digest].fit("eu"):
            return by_digest[digest]
    fallback = rule.get("fallback", "disable")
    last = by_digest.get(Digest.parse(fallback)) if fallback != "disable" else None
    return last if last is not None and last.digest in fine and last.usable("eu") else None


names = st.sampled_from([str(d) for d in DIGESTS])
rules = st.fixed_dictionaries(
    {},
    optional={
        "target": st.sampled_from(["lastHealthy", "predecessor"]) | names,
        "window": st.fixed_dictionaries({"revisions": st.integers(1, 4)}),
        "fallback": st.just("disable") | names,
        "prefetch": st.integers(1, 8),
    },
)


@settings(deadline=None, max_examples=600)
@given(
    lineages,
    st.integers(0, COUNT - 1),
    st.integers(0, COUNT - 1),
    rules,
    st.permutations(range(COUNT)),
    st.integers(0, 4),
)
def test_the_target_is_what_the_plan_says_and_the_same_for_everybody(
    lines: list[tuple[list[int], bool, bool, bool, bool]],
    bad: int,
    old: int,
    rule: dict[str, Any],
    order: list[int],
    floor: int,
) -> None:
    """Invariants 1 and 9: neither the bad one nor a barred one, proven or the declared fallback."""
    if old == bad or str(DIGESTS[bad]) in (rule.get("target"), rule.get("fallback")):
        return
    releases = [
        release(i, tuple(p), proven=a, held=b and c, killed=c and d, quarantined=b and d)
        for i, (p, a, b, c, d) in enumerate(lines)
    ]
    plan = brought(DIGESTS[bad], rule, DIGESTS[old])
    known = replace(view(*releases, floor=floor), rollouts=(plan,))
    target = rollback_target(known, DIGESTS[bad], "eu")
    event("found" if target else "none")
    assert target == oracle(known, DIGESTS[bad], rule, DIGESTS[old])
    shuffled = replace(known, releases=tuple(releases[i] for i in order))
    found = list(rollback_targets(shuffled, DIGESTS[bad], "eu"))
    assert (found[0] if found else None) == target
    assert len({r.digest for r in found}) == len(found)
    for each in found:
        assert each.digest != DIGESTS[bad]
        assert not each.barred
        assert each.counter >= floor
        assert each.fit("eu") or str(each.digest) == rule.get("fallback")


def test_the_newest_plan_of_a_release_is_the_one_that_counts() -> None:
    chain = view(release(0), release(1, (0,)), release(2, (1,)))
    first = brought(DIGESTS[2], {"target": str(DIGESTS[0])}, DIGESTS[1], 1)
    second = brought(DIGESTS[2], {}, DIGESTS[1], 2)
    known = replace(chain, rollouts=(first, second))
    assert rollback_target(known, DIGESTS[2], "eu") == chain.releases[1]
    foreign = replace(second, final=False, logs=(Origin.parse(f"acme/us/{'a' * 32}/i1"),))
    known = replace(chain, rollouts=(first, foreign))
    assert rollback_target(known, DIGESTS[2], "eu") == chain.releases[0]


def test_so_many_are_kept_at_hand_as_the_plan_says_the_active_one_first() -> None:
    chain = view(*(release(i, (i - 1,) if i else ()) for i in range(6)))
    head = Activation(EventId(bytes(32)), EU, DIGESTS[4], "eu", "promote")
    for count in (1, 2, 3, 8):
        plan = brought(DIGESTS[5], {"prefetch": count}, DIGESTS[4])
        known = replace(chain, rollouts=(plan,), heads=(head,))
        kept = [r.counter for r in warm_targets(known, plan.plan, EU)]
        assert kept == [4, 3, 2, 1, 0][:count]


def test_a_node_fetches_what_it_may_go_back_to_and_loads_the_nearest_alone() -> None:
    node = Node()
    told = node.assign(wish(1, active=V4, last_good=(V3, V2, V1)))
    assert [line for line in told if line.startswith("fetch")] == [
        "fetch v3",
        "fetch v4",
        "fetch v2",
        "fetch v1",
    ]
    assert sorted(line for line in told if line.startswith("load")) == ["load v3", "load v4"]
    (report,) = node.device.report()
    assert (set(report.ready), set(report.stored)) == ({V4, V3}, {V2, V1})
    assert "forget v1" in node.assign(wish(2, active=V4, last_good=(V3, V2)))


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"target": "sha256:" + "9f" * 32}, "is the release itself"),
        ({"fallback": "sha256:" + "9f" * 32}, "is the release itself"),
        ({"prefetch": 0}, "is not a whole number"),
        ({"prefetch": 9}, "is not a whole number"),
        ({"window": {"revisions": 0}}, "is not a whole number"),
        ({"prefetsh": 1}, "did you mean prefetch?"),
    ],
)
def test_a_rule_that_could_not_be_followed_is_refused(rule: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidSpec, match=why):
        parse_spec(document(rollback=rule))


# -- a region ------------------------------------------------------------------


@pytest.fixture
def town() -> Federation:
    federation = Federation()
    serving(federation)
    return federation


ALL = {
    "stages": [
        {
            "name": "all",
            "regions": ["eu-north", "us-east", "ap-south"],
            "steps": [{"setWeight": 50}, {"analysis": {"templates": ["ok"]}}, {"setWeight": 100}],
        }
    ],
    "templates": {
        "ok": {
            "alpha": 0.05,
            "metrics": [
                {"name": "e", "test": "one-arm", "event": "error", "slo": 0.2, "provenBelow": 0.2}
            ],
        }
    },
    "watch": "none",
}


def active(town: Federation) -> Digest:
    found = town.node("eu-north").catalog.views[MODEL].active(segment("eu-north"))
    assert found is not None
    return found.release


def test_harm_after_the_promotion_goes_to_the_declared_fallback_if_nothing_is_proven(
    town: Federation,
) -> None:
    base = town.publish("0.9.0")  # never rolled out, so nobody has proven it
    old = active(town)
    bad = town.publish("4.0.0", parents=(old,))
    rule = {"target": "lastHealthy", "fallback": str(base)}
    town.roll_out("r-2", 2, bad, old, rollback=rule, **ALL)
    town.run(20)
    assert active(town) == bad
    node = town.node("eu-north")
    town.propose(
        "eu-north", Kill(MODEL, old, "bad"), attestations=[town.control("kill", release=str(old))]
    )
    for region in ("eu-north", "us-east"):
        town.propose(region, Hold(MODEL, segment(region), bad, "bad"))
    town.run(5)
    assert active(town) == base
    assert node.region.duty.told(MODEL).active == base


def test_no_daemon_alone_activates_a_release_that_no_plan_declares(town: Federation) -> None:
    base, old = town.publish("0.9.0"), active(town)
    bad = town.publish("4.0.0", parents=(old,))
    town.roll_out("r-2", 2, bad, old, **ALL)
    town.run(20)
    head = town.node("eu-north").catalog.views[MODEL].active(segment("eu-north"))
    assert head is not None
    assert head.release == bad
    region = segment("eu-north")
    town.propose("eu-north", Rollback(MODEL, region, head.id, bad, base, "because"))
    assert active(town) == bad


def test_a_rollout_waits_until_all_that_it_keeps_is_in_the_region(town: Federation) -> None:
    old = active(town)
    second = town.publish("4.0.0", parents=(old,))
    town.roll_out("r-2", 2, second, old, **ALL)
    town.run(20)
    third = town.publish("5.0.0", parents=(second,))
    node = town.node("us-east")
    node.region.local.discard(old)  # its files were lost, and nobody has asked for them since
    node.region._wanted.clear()
    wanted: list[Digest] = []
    node.region.bring = lambda model, release: wanted.append(release)  # type: ignore[method-assign,assignment]
    town.roll_out("r-3", 3, third, second, rollback={"prefetch": 2}, **ALL)
    town.run(5)
    (place,) = [e.progress for e in node.region.executions.values() if e.plan.release == third]
    assert place.state == "prefetching"
    assert {third, second, old} <= set(wanted)
    for release_ in (third, old):
        node.region.have(release_)
    town.run(20)
    assert node.region.duty.told(MODEL).last_good[:2] == (second, old)


@pytest.mark.parametrize("named", ["predecessor", "by digest"])
def test_a_target_that_is_named_is_tried_before_the_ancestors_if_it_is_fit(named: str) -> None:
    """3 descends from 2 and 1, and took the place of 4, which is no ancestor of it."""
    chain = [release(1), release(2, (1,)), release(3, (2,)), release(4)]
    rule = {"target": "predecessor" if named == "predecessor" else str(DIGESTS[4])}
    plan = brought(DIGESTS[3], rule, DIGESTS[4])
    known = replace(view(*chain), rollouts=(plan,))
    assert rollback_target(known, DIGESTS[3], "eu") == chain[3]
    unproven = replace(view(*chain[:3], release(4, proven=False)), rollouts=(plan,))
    assert rollback_target(unproven, DIGESTS[3], "eu") == chain[1]
