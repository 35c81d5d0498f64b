"""The fold: equal facts, equal state, whatever their order; and what beats what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from federation import CODEC, MODEL, REGIONS, Author, Reader, manifest, origin, plan
from hypothesis import event, given, settings
from hypothesis import strategies as st

from hanse.core.catalog.finals import Finals
from hanse.core.catalog.lineage import rollback_target
from hanse.core.catalog.manifest import Manifest
from hanse.core.events import Healthy, Promote, RolloutReport
from hanse.core.ids import Digest, EventId, Origin, segment
from hanse.core.log.merkle import leaf_hash
from hanse.core.step import AppendEvents
from hanse.sim.ending import told
from hanse.sim.reference import Fact, agreed

KINDS = (
    *("release", "release", "intent", "intent", "promote", "promote", "promote"),
    *("healthy", "healthy", "hold", "lift", "kill", "rollback", "rollback"),
    *("floor", "report", "foreign-lift", "conflict", "retire"),
    *("heal", "heal", "heal"),
)


@dataclass
class World:
    """A federation that grows by valid deeds; every author knows everything written so far."""

    hlc_ms: Callable[[int], int] = lambda i: 1_000 + i
    authors: dict[str, Author] = field(default_factory=lambda: {r: Author(r) for r in REGIONS})
    releases: list[tuple[Digest, Manifest, int]] = field(default_factory=list)
    plans: list[tuple[bytes, int]] = field(default_factory=list)
    active: dict[str, list[tuple[EventId, Digest]]] = field(default_factory=dict)
    holds: list[tuple[str, EventId]] = field(default_factory=list)
    proven: list[Digest] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def do(self, region: str, kind: str, pick: int) -> None:
        author = self.authors[region]
        author.hlc_ms = self.hlc_ms(len(self.done))
        deed = getattr(self, kind.replace("-", "_"))
        if deed(author, pick):
            self.done.append(kind)

    def release(self, author: Author, pick: int) -> bool:
        counter = len(self.releases) + 1
        parents = [d for i, (d, _, _) in enumerate(self.releases) if pick >> i & 1][:3]
        weights = "shared" if pick % 7 == 0 else ""
        made = manifest(f"{counter}.0", parents, weights)
        self.releases.append((author.release(made, counter), made, counter))
        return True

    def intent(self, author: Author, pick: int) -> bool:
        if not self.releases:
            return False
        chosen = pick % len(self.releases)
        # Some plans share their generation, as plans signed at the same time do.
        raw = plan(self.releases[chosen][0], len(self.plans) // 2 + 1)
        self.plans.append((raw, chosen))
        author.intent(raw)
        return True

    def promote(self, author: Author, pick: int, *, forget: bool = False) -> bool:
        if not self.plans:
            return False
        raw, chosen = self.plans[pick % len(self.plans)]
        digest, made, counter = self.releases[chosen]
        before = [] if forget else [id_ for id_, _ in self.active.get(author.region, [])]
        id_ = author.promote(raw, len(made.encode()), counter, before)
        kept = self.active.get(author.region, []) if forget else []
        self.active[author.region] = [*kept, (id_, digest)]
        return True

    def conflict(self, author: Author, pick: int) -> bool:
        return self.promote(author, pick, forget=True)

    def healthy(self, author: Author, pick: int) -> bool:
        if not self.plans:
            return False
        raw, chosen = self.plans[pick % len(self.plans)]
        author.healthy(raw)
        self.proven.append(self.releases[chosen][0])
        return True

    def hold(self, author: Author, pick: int) -> bool:
        if not self.releases:
            return False
        release = self.releases[pick % len(self.releases)][0] if pick % 5 else None
        self.holds.append((author.region, author.hold(release)))
        return True

    def lift(self, author: Author, pick: int) -> bool:
        own = [id_ for region, id_ in self.holds if region == author.region]
        if own:
            author.lift(own[pick % len(own)])
        return bool(own)

    def foreign_lift(self, author: Author, pick: int) -> bool:
        others = [id_ for region, id_ in self.holds if region != author.region]
        if others:
            author.lift(others[pick % len(others)])
        return bool(others)

    def kill(self, author: Author, pick: int) -> bool:
        if self.releases:
            author.kill(self.releases[pick % len(self.releases)][0])
        return bool(self.releases)

    def rollback(self, author: Author, pick: int) -> bool:
        if not self.active.get(author.region) or not self.releases:
            return False
        id_, bad = self.active[author.region][-1]
        # Mostly to what was proven; sometimes, as a stolen key would, to anything.
        to = self.proven or [d for d, _, _ in self.releases]
        target = to[pick % len(to)] if pick % 4 else self.releases[pick % len(self.releases)][0]
        self.active[author.region][-1] = (author.rollback(id_, bad, target), target)
        return True

    def floor(self, author: Author, pick: int) -> bool:
        author.floor(pick % 4)
        return True

    def report(self, author: Author, pick: int) -> bool:
        if not self.plans:
            return False
        raw, chosen = self.plans[pick % len(self.plans)]
        generation = self.plans.index((raw, chosen)) // 2 + 1
        state = ("gated", "healthy", "held", "paused")[pick % 4]
        body = RolloutReport(
            MODEL,
            segment(f"r-{generation}"),
            generation,
            self.releases[chosen][0],
            segment(author.region),
            state,
            0,
            pick % 3,
        )
        author.write(body)
        return True

    def retire(self, author: Author, pick: int) -> bool:
        release = self.releases[pick % len(self.releases)][0]
        author.retire(release, "deprecated" if pick % 3 else "retired")
        return True

    def heal(self, author: Author, pick: int) -> bool:
        """From the RETRAIN to what a daemon starts by itself, now and then with one thing wrong."""
        release, counter = self.releases[pick % len(self.releases)][0], len(self.releases) + 1
        asked = author.retrain(release, author.hold(release))
        parent = self.releases[0][0] if pick % 8 == 1 else release
        label = None if pick % 8 == 2 else asked
        made = manifest(f"{counter}.0", [parent], answers=label)
        child = author.release(made, counter)
        self.releases.append((child, made, counter))
        author.result(asked, "refused" if pick % 8 == 3 else "passed", child)
        generation = len(self.plans) // 2 + (9 if pick % 8 == 4 else 1)
        raw = plan(child, generation)
        self.plans.append((raw, counter - 1))
        teller = self.authors["us"] if pick % 8 == 5 else author
        teller.mandated(raw, 1 + pick % 2)
        if pick % 8 == 6:
            author.result(asked, "failed")  # too late: the first one counts
        return True

    def appends(self) -> list[AppendEvents]:
        return [append for author in self.authors.values() for append in author.appends]


deeds = st.lists(
    st.tuples(st.sampled_from(REGIONS), st.sampled_from(KINDS), st.integers(0, 63)),
    min_size=8,
    max_size=30,
)


def build(script: list[tuple[str, str, int]], hlc_ms: Callable[[int], int] | None = None) -> World:
    world = World(hlc_ms) if hlc_ms else World()
    world.do("eu", "release", 0)
    for region, kind, pick in script:
        world.do(region, kind, pick)
    for kind in sorted(set(world.done)):
        event(kind)
    return world


def in_any_order(world: World, seed: int) -> Reader:
    """Logs interleaved at random, some appends twice, refolded at random moments."""
    rng, reader = Random(seed), Reader()
    left = {name: list(author.appends) for name, author in world.authors.items()}
    while any(left.values()):
        name = rng.choice(sorted(n for n in left if left[n]))
        append = left[name].pop(0)
        for _ in range(rng.randint(1, 2)):
            reader.take(append)
        if rng.random() < 0.3:
            reader.catalog.refold()
    reader.catalog.refold()
    return reader


def in_large_batches(world: World) -> Reader:
    """Each log as one chunk, which ends at the last signed size."""
    reader = Reader()
    for author in world.authors.values():
        if author.appends:
            events = tuple(raw for append in author.appends for raw in append.events)
            head = author.appends[-1].head
            added = reader.book.extend(author.origin, 0, events, head.note)
            for entry in added[1] if added else ():
                reader.catalog.add(entry)
    reader.catalog.refold()
    return reader


def restarted(world: World) -> Reader:
    """What a daemon finds that has everything stored, whatever it had folded before."""
    reader = Reader()
    for author in reversed(world.authors.values()):
        if author.appends:
            events = [raw for append in author.appends for raw in append.events]
            for entry in reader.book.restore(author.appends[-1].head, events):
                reader.catalog.add(entry)
    reader.catalog.refold()
    return reader


@settings(max_examples=60, deadline=None)
@given(deeds, st.integers(0, 2**32))
def test_order_repetition_batches_and_restarts_do_not_matter(
    script: list[tuple[str, str, int]], seed: int
) -> None:
    world = build(script)
    expected = Reader().read(world.authors.values())
    for reader in (in_any_order(world, seed), in_large_batches(world), restarted(world)):
        assert reader.catalog.state_digest == expected.catalog.state_digest
        assert reader.book.digest == expected.book.digest


finality = st.fixed_dictionaries({region: st.integers(0, 40) for region in REGIONS})


def finals(sizes: dict[str, int]) -> dict[Origin, int]:
    return {origin(region): size for region, size in sizes.items()}


@settings(max_examples=60, deadline=None)
@given(deeds, finality, st.sampled_from(REGIONS))
def test_the_fold_says_what_the_naive_reference_says(
    script: list[tuple[str, str, int]], sizes: dict[str, int], where: str
) -> None:
    world = build(script)
    reader = Reader().read(world.authors.values())
    reader.catalog.rejudge(2, Finals(True, finals(sizes)))
    facts = []
    for append in world.appends():
        for raw in append.events:
            decoded = CODEC.decode(raw)
            assert decoded.body is not None
            id_ = EventId(leaf_hash(raw))
            log, header = append.head.origin, decoded.header
            sure = header.seq < sizes[log.region]
            facts.append(Fact(id_, log, header, decoded.body, sure))
    for rollout in reader.view.rollouts:
        event(f"mandated {rollout.mandated}")
    assert told(reader.view, where) == agreed(MODEL, facts, 2, where, {})


@settings(max_examples=60, deadline=None)
@given(deeds, st.lists(finality, min_size=1, max_size=4), st.integers(0, 2**32))
def test_finality_may_come_in_any_pieces(
    script: list[tuple[str, str, int]], pieces: list[dict[str, int]], seed: int
) -> None:
    """Only models that wait for it are folded again, and that misses nothing."""
    world, rng = build(script), Random(seed)
    reader, so_far, left = Reader(), dict.fromkeys(REGIONS, 0), world.appends()
    reader.catalog.rejudge(2, Finals(True))
    for piece in pieces:
        for _ in range(rng.randint(0, len(left))):
            reader.take(left.pop(0))
        so_far = {region: max(so_far[region], size) for region, size in piece.items()}
        reader.catalog.finalise(finals(so_far))
        reader.catalog.refold()
    for append in left:
        reader.take(append)
    reader.catalog.refold()
    anew = Reader().read(world.authors.values())
    anew.catalog.rejudge(2, Finals(True, finals(so_far)))
    anew.catalog.refold()
    assert reader.catalog.state_digest == anew.catalog.state_digest


@settings(max_examples=40, deadline=None)
@given(deeds, finality)
def test_what_is_final_only_adds(script: list[tuple[str, str, int]], sizes: dict[str, int]) -> None:
    """I2: as finality grows, nothing that was usable, proven or quarantined ceases to be."""
    reader = Reader().read(build(script).authors.values())
    reader.catalog.rejudge(2, Finals(True))
    before = reader.view
    for share in (3, 2, 1):
        reader.catalog.finalise(finals({r: size // share for r, size in sizes.items()}))
        after = reader.view
        for old, new in zip(before.releases, after.releases, strict=True):
            assert new.final >= old.final
            assert new.quarantined >= old.quarantined
            assert set(new.proven_final) >= set(old.proven_final)
        for older, newer in zip(before.rollouts, after.rollouts, strict=True):
            assert newer.final >= older.final
            assert set(newer.waiting) <= set(older.waiting)
        before = after


def quarantined(reader: Reader, digest: Digest) -> bool:
    release = reader.view.release(digest)
    assert release is not None
    assert release.held == ("eu", "us"), "a hold bars at once"
    return release.quarantined


def test_holds_quarantine_once_a_quorum_of_them_is_final() -> None:
    s = Story()
    s.us.hold(s.digests[1])
    s.eu.hold(s.digests[1])
    reader = Reader().read([s.us, s.eu])
    reader.catalog.rejudge(2, Finals(True))
    assert not quarantined(reader, s.digests[1])
    reader.catalog.finalise({s.us.origin: s.us.book.size(s.us.origin)})
    assert not quarantined(reader, s.digests[1])
    reader.catalog.finalise({s.eu.origin: s.eu.book.size(s.eu.origin)})
    assert quarantined(reader, s.digests[1])


def test_holds_from_before_there_were_witnesses_go_on_counting() -> None:
    """A policy that begins to ask for witnesses must not lift a quarantine, even for a moment."""
    s = Story()
    s.us.hold(s.digests[1])
    s.eu.hold(s.digests[1])
    reader = Reader().read([s.us, s.eu])
    assert quarantined(reader, s.digests[1])
    reader.catalog.rejudge(2, Finals(True, unwitnessed=(1,)))
    assert quarantined(reader, s.digests[1])
    reader.catalog.rejudge(2, Finals(True))
    assert not quarantined(reader, s.digests[1])


@settings(max_examples=25, deadline=None)
@given(deeds)
def test_no_clock_enters_the_fold(script: list[tuple[str, str, int]]) -> None:
    """Ids cover the claimed time, so they are compared by what they stand for."""
    script = [each for each in script if each[1] != "heal"]  # its publisher signs such an id
    clocks = (lambda i: 0, lambda i: 1_000 + i, lambda i: 10**13 - i * 10**9)
    views = [without_ids(Reader().read(build(script, c).authors.values())) for c in clocks]
    assert views[0] == views[1] == views[2]


def without_ids(reader: Reader) -> Any:
    ids = {
        record.id.raw.hex(): f"{record.origin.region}/{record.event.header.seq}"
        for record in reader.catalog.records(MODEL)
    }

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: named(v) for k, v in value.items()}
        if isinstance(value, list):
            return [named(v) for v in value]
        return ids.get(value, value) if isinstance(value, str) else value

    return named(reader.view.to_mapping())


@settings(max_examples=40, deadline=None)
@given(deeds, st.integers(0, 2**32))
def test_kills_and_quarantines_only_grow(script: list[tuple[str, str, int]], seed: int) -> None:
    """As events arrive one by one, in whatever order."""
    world, reader, rng = build(script), Reader(), Random(seed)
    left = {name: list(author.appends) for name, author in world.authors.items()}
    quarantined: set[Digest] = set()
    named: set[Digest] = set()
    while any(left.values()):
        name = rng.choice(sorted(n for n in left if left[n]))
        reader.take(left[name].pop(0))
        reader.catalog.refold()
        view = reader.catalog.views.get(MODEL)
        if view is None:
            continue
        assert quarantined <= {r.digest for r in view.releases if r.quarantined}
        assert named <= {r.digest for r in view.releases if r.killed}
        quarantined = {r.digest for r in view.releases if r.quarantined}
        named = {r.digest for r in view.releases if r.killed}


@settings(max_examples=60, deadline=None)
@given(deeds)
def test_no_head_is_killed_or_below_the_floor(script: list[tuple[str, str, int]]) -> None:
    view = Reader().read(build(script).authors.values()).view
    for head in view.heads:
        release = view.release(head.release)
        assert release is not None
        assert not release.killed
        assert release.counter >= view.floor


# -- single facts --------------------------------------------------------------


class Story:
    """eu publishes three releases in a row and runs each of them."""

    def __init__(self) -> None:
        self.eu, self.us, self.ap = (Author(r) for r in REGIONS)
        self.digests: list[Digest] = []
        self.plans: list[bytes] = []
        self.made: list[Manifest] = []
        for i in range(3):
            made = manifest(f"{i + 1}.0", self.digests[-1:])
            self.made.append(made)
            self.digests.append(self.eu.release(made, i + 1))
            self.plans.append(plan(self.digests[i], i + 1))
            self.eu.intent(self.plans[i])

    def promote(self, author: Author, i: int, *replaced: EventId) -> EventId:
        size = len(self.made[i].encode())
        return author.promote(self.plans[i], size, i + 1, replaced)

    @property
    def view(self) -> Any:
        return Reader().read([self.eu, self.us, self.ap]).view

    def heads(self, region: str = "eu") -> list[Digest]:
        return [head.release for head in self.view.heads if head.region == region]


def test_a_promotion_replaces_what_it_names() -> None:
    s = Story()
    s.promote(s.eu, 1, s.promote(s.eu, 0))
    assert s.heads() == [s.digests[1]]


@pytest.mark.parametrize("hlc_ms", [0, 10**13])
def test_of_two_promotions_in_conflict_the_older_is_preferred_whatever_the_clocks(
    hlc_ms: int,
) -> None:
    s = Story()
    first = s.promote(s.eu, 0)
    s.eu.hlc_ms = hlc_ms
    s.promote(s.eu, 1)
    assert s.view.conflicts() == ("eu",)
    assert s.view.active("eu").id == first


def test_a_kill_revives_the_predecessor() -> None:
    s = Story()
    s.promote(s.eu, 1, s.promote(s.eu, 0))
    s.us.kill(s.digests[1])
    assert s.heads() == [s.digests[0]]


def test_a_kill_does_not_revive_what_was_replaced_long_ago() -> None:
    """1, then 2, then 3: killing 2 leaves 3 alone, and no conflict with 1."""
    s = Story()
    s.promote(s.eu, 2, s.promote(s.eu, 1, s.promote(s.eu, 0)))
    s.us.kill(s.digests[1])
    assert s.heads() == [s.digests[2]]


def test_killing_what_was_rolled_back_leaves_no_conflict() -> None:
    s = Story()
    s.us.healthy(s.plans[0])
    bad = s.promote(s.eu, 1, s.promote(s.eu, 0))
    undone = s.eu.rollback(bad, s.digests[1], s.digests[0])
    s.us.kill(s.digests[1])
    assert [head.id for head in s.view.heads] == [undone]


def test_a_kill_reaches_every_release_with_the_same_weights() -> None:
    s = Story()
    twin = s.eu.release(manifest("9.0", weights="1.0"), 9)
    s.us.kill(s.digests[0])
    assert {r.version for r in s.view.releases if r.killed} == {"1.0", "9.0"}
    assert twin in {r.digest for r in s.view.releases}


def test_a_rollback_to_something_unproven_changes_nothing() -> None:
    """Otherwise the daemon's own key could activate any release by calling it a rollback."""
    s = Story()
    bad = s.promote(s.eu, 1)
    s.eu.rollback(bad, s.digests[1], s.digests[0])
    assert s.heads() == [s.digests[1]]
    s.us.healthy(s.plans[0])
    assert s.heads() == [s.digests[0]], "it counts from the proof on, wherever that arrives"


def test_a_rollback_of_what_was_never_active_changes_nothing() -> None:
    s = Story()
    s.us.healthy(s.plans[0])
    theirs = s.promote(s.us, 1)
    s.eu.rollback(theirs, s.digests[1], s.digests[0])
    s.eu.rollback(EventId(bytes(32)), s.digests[1], s.digests[0])
    assert s.heads() == []
    assert s.heads("us") == [s.digests[1]]


def test_a_rollback_may_undo_a_rollback() -> None:
    s = Story()
    s.us.healthy(s.plans[0])
    s.us.healthy(s.plans[1])
    first = s.eu.rollback(s.promote(s.eu, 2), s.digests[2], s.digests[1])
    s.eu.rollback(first, s.digests[1], s.digests[0])
    assert s.heads() == [s.digests[0]]


def test_a_promotion_without_a_signed_plan_changes_nothing() -> None:
    s = Story()
    body = Promote(MODEL, segment("eu"), s.digests[0], len(s.made[0].encode()), 1, "r-9", 9)
    s.eu.write(body)
    assert s.heads() == []


def test_a_plan_that_leaves_a_region_out_promotes_nothing_there() -> None:
    s = Story()
    raw = plan(s.digests[0], 7, regions=("us",))
    s.eu.intent(raw)
    s.eu.promote(raw, len(s.made[0].encode()), 1)
    assert s.heads() == []


def test_a_hold_bars_a_release_until_its_own_region_lifts_it() -> None:
    s = Story()
    hold = s.us.hold(s.digests[0])
    assert s.view.release(s.digests[0]).barred
    s.eu.lift(hold)
    assert s.view.release(s.digests[0]).barred, "another region's lift is no lift"
    s.us.lift(hold)
    assert not s.view.release(s.digests[0]).barred


def test_a_hold_beats_a_promotion_as_a_rollback_target() -> None:
    s = Story()
    for i in range(2):
        s.us.healthy(s.plans[i])
    assert rollback_target(s.view, s.digests[2], "us").digest == s.digests[1]
    s.ap.hold(s.digests[1])
    assert rollback_target(s.view, s.digests[2], "us").digest == s.digests[0]


def test_holds_of_two_regions_quarantine_for_ever() -> None:
    s = Story()
    first = s.us.hold(s.digests[0])
    assert not s.view.release(s.digests[0]).quarantined
    s.us.hold(s.digests[0])
    assert not s.view.release(s.digests[0]).quarantined, "one region twice is one region"
    second = s.ap.hold(s.digests[0])
    assert s.view.release(s.digests[0]).quarantined
    s.us.lift(first)
    s.ap.lift(second)
    assert s.view.release(s.digests[0]).quarantined


def test_a_report_replaces_the_older_one_of_its_author_in_any_order() -> None:
    s = Story()
    for state in ("gated", "paused", "healthy"):
        s.us.write(
            RolloutReport(MODEL, segment("r-1"), 1, s.digests[0], segment("us"), state, 0, 1)
        )
    for order in (1, -1):
        reader = Reader()
        entries = reader.book.restore(
            s.us.appends[-1].head, [e for a in s.us.appends for e in a.events]
        )
        reader.read([s.eu])
        for entry in entries[::order]:
            reader.catalog.add(entry)
        (report,) = reader.view.rollouts[0].reports
        assert (report.region, report.state) == ("us", "healthy")


def test_health_counts_only_for_the_plan_that_it_names() -> None:
    s = Story()
    spec = Digest.of(b"another plan").raw
    proof = Digest.of(b"evidence").raw
    s.us.write(Healthy(MODEL, s.digests[0], segment("r-1"), 1, segment("us"), spec, proof))
    assert s.view.release(s.digests[0]).proven == ()
    assert s.view.rollouts[0].healthy == ()
    s.us.healthy(s.plans[0])
    assert s.view.release(s.digests[0]).proven == ("us",)
    assert s.view.rollouts[0].healthy == ("us",)


def test_a_plan_recorded_twice_is_one_plan() -> None:
    """Two daemons may be asked during a partition; the plan must not supersede itself."""
    s = Story()
    s.us.intent(s.plans[2])
    assert [(r.generation, r.current) for r in s.view.rollouts] == [
        (1, False),
        (2, False),
        (3, True),
    ]


def test_of_two_plans_of_one_generation_the_same_one_wins_everywhere() -> None:
    s = Story()
    rival = plan(s.digests[0], 3, s.digests[1])
    s.us.intent(rival)
    (winner,) = (r for r in s.view.rollouts if r.current)
    assert winner.spec_digest == max(Digest.of(rival), Digest.of(s.plans[2]))


@settings(max_examples=60, deadline=None)
@given(deeds, st.integers(0, 2**32))
def test_retirement_only_grows_and_takes_nothing_away(
    script: list[tuple[str, str, int]], seed: int
) -> None:
    """What runs goes on, and nobody is sent back to a retired one, in whatever order it is told."""
    # A rollback may lead to a retired one; answers name an event, whose place would differ.
    script = [each for each in script if each[1] not in ("rollback", "heal")]
    kept = [each for each in script if each[1] != "retire"]
    event(f"some are retired: {kept != script}")
    view = in_any_order(build(script), seed).view
    without = Reader().read(build(kept).authors.values()).view
    assert [a.release for a in view.heads] == [a.release for a in without.heads]
    for release in view.releases:
        for region in REGIONS:
            target = rollback_target(view, release.digest, region)
            assert target is None or target.retired != "retired"
    named: dict[Digest, str] = {}
    reader = Reader()
    for append in build(script).appends():
        reader.take(append)
        for release in reader.view.releases:
            assert named.get(release.digest, "") <= release.retired
            named[release.digest] = release.retired


WRONG = {
    0: "all is right",
    1: "another parent than the release that was worse",
    2: "the publisher does not name the RETRAIN",
    3: "it did not pass",
    4: "more generations than the mandate gives",
    5: "another daemon starts it",
    6: "a second result is too late",
}


@pytest.mark.parametrize("pick", WRONG, ids=lambda pick: WRONG[pick])
def test_a_daemon_starts_by_itself_only_the_answer_to_its_own_retrain(pick: int) -> None:
    world = World()
    world.do("eu", "release", 0)
    world.do("eu", "release", 2)
    world.do("eu", "intent", 1)
    world.do("eu", "heal", pick if pick != 1 else 9)
    view = Reader().read(world.authors.values()).view
    started = [r for r in view.rollouts if r.mandated]
    assert len(started) == (pick in (0, 6)), WRONG[pick]


def test_a_new_plan_that_people_sign_gives_a_mandate_its_uses_again() -> None:
    def generations(signed: int) -> int:
        world = World()
        world.do("eu", "release", 0)
        release = world.releases[0][0]
        if signed:
            world.authors["eu"].intent(plan(release, signed))
        world.plans = [(b"", 0)] * 8
        world.do("eu", "heal", 0)  # generation 5 under a mandate for one use
        return len(Reader().read(world.authors.values()).view.rollouts)

    assert (generations(0), generations(3), generations(4)) == (0, 1, 2)
