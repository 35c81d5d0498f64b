"""The node: stored before sent, many words one signature, and no input that ends it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest
from federation import (
    CHAIN,
    CODEC,
    MODEL,
    OPERATOR,
    REGIONS,
    ROOT,
    Author,
    control,
    key,
    manifest,
    origin,
    plan,
)

from hanse.core import limits
from hanse.core.assignment import parse_assignment
from hanse.core.catalog.lineage import rollback_target
from hanse.core.effects import FetchRelease, PublishAssignment, Send
from hanse.core.errors import Broken, NotPermitted, TooLarge
from hanse.core.events import (
    Hold,
    Kill,
    LogOpen,
    Note,
    Promote,
    ReleaseRecord,
    Rollback,
    RolloutControl,
    RolloutIntent,
    RolloutReport,
)
from hanse.core.gossip.frames import Announce
from hanse.core.ids import Digest, segment
from hanse.core.node import Clock, Node
from hanse.core.rollout.spec import parse_spec
from hanse.core.rollout.stimuli import Cause
from hanse.core.rollout.table import State
from hanse.core.room import Room
from hanse.core.step import AppendEvents, PutLocal, Step, Write
from hanse.core.telemetry import Counts, ModelReport, Report, Window
from hanse.core.trust import statements

EU, US, AP = (origin(r) for r in REGIONS)
RELEASE = manifest("1.0")
DIGEST = Digest.of(RELEASE.encode())


class Daemon:
    """A node with a plain list as its store."""

    def __init__(self, region: str = "eu", stored: Iterable[Write] = ()) -> None:
        self.stored = list(stored)
        self.now_s = 1000.0
        self.sent: list[Send] = []
        self.effects: list[object] = []
        me, own = origin(region), key(region)
        self.node = Node(me, own, region.encode(), CODEC, CHAIN, Random(region), timestamp_key=ROOT)
        logs: dict[object, list[AppendEvents]] = {}
        for write in self.stored:
            if isinstance(write, AppendEvents):
                logs.setdefault(write.head.origin, []).append(write)
        for appends in logs.values():
            self.node.restore(appends[-1].head, [e for a in appends for e in a.events])
        self.open()
        self.node.region.restore(self.local("progress"), self.local("duty"), self.now_s)
        self.node.fleet.counted.restore(self.local("counted"))

    def open(self) -> None:
        self.node.open("test")

    def local(self, space: str) -> dict[str, bytes]:
        puts = [w for w in self.stored if isinstance(w, PutLocal) and w.space == space]
        return {put.key: put.value for put in puts if put.value is not None}

    @property
    def clock(self) -> Clock:
        return Clock(self.now_s, int(self.now_s * 1000))

    def step(self, *, tick: bool = True) -> Step:
        self.now_s += 1
        if tick:
            self.node.tick(self.clock)
        step = self.node.take(self.clock)
        self.stored += step.store
        self.sent += step.send  # type: ignore[arg-type]  # only Send is sent
        self.effects += step.effects
        return step

    def until(self, state: State, seconds: int = 60) -> None:
        for _ in range(seconds):
            self.step()
            if self.state is state:
                return
        raise AssertionError(f"it is {self.state}, not {state}")

    @property
    def state(self) -> State | None:
        found = [e.progress.state for e in self.node.region.executions.values()]
        return found[-1] if found else None

    # -- people ------------------------------------------------------------------

    def publish(self, made: object = RELEASE, counter: int = 1) -> None:
        raw = made.encode()  # type: ignore[attr-defined]  # a manifest
        name = f"{made.model}@{made.version}"  # type: ignore[attr-defined]  # as above
        signed = statements.sign_release(name, Digest.of(raw), counter, [OPERATOR])
        body = ReleaseRecord(MODEL, made.version, counter, raw)  # type: ignore[attr-defined]  # as above
        self.node.propose(body, attestations=[signed])

    def start(self, raw: bytes) -> None:
        spec = parse_spec(json.loads(raw))
        signed = statements.sign_control(statements.rollout_statement(MODEL, raw), [OPERATOR])
        intent = RolloutIntent(
            MODEL, spec.name, spec.generation, spec.release, spec.predecessor, raw
        )
        self.node.propose(intent, attestations=[signed])

    def hear(self, author: Author) -> None:
        """Everything another region wrote, as if it had been pulled."""
        for append in author.appends:
            added = self.node.book.extend(
                append.head.origin, append.start, append.events, append.head.note
            )
            if added is not None:
                self.node.sync.ingested.append(added)

    # -- the edge ----------------------------------------------------------------

    def report(self, requests: int = 400, errors: int = 0) -> None:
        """One edge node that obeys the last assignment and counted this."""
        last = [e for e in self.effects if isinstance(e, PublishAssignment)][-1]
        told = parse_assignment(last.assignment)
        models = []
        for m in told.models:
            window = Window(m.model, m.rollout, m.generation, m.weight_bp, m.shadow_bp)
            counts = Counts(requests, errors)
            window = replace(window, stable=counts, canary=counts if m.candidate else Counts())
            models.append(
                ModelReport(m.model, m.active, bool(m.candidate), m.named, windows=(window,))
            )
        self.node.fleet.watch(segment("node-1"), {}, self.now_s)
        seq = int(self.now_s)
        report = Report(segment("node-1"), told.epoch, told.serial, tuple(models))
        self.node.fleet.report(b"boot", seq, report, self.now_s)


def running(regions: tuple[str, ...] = ("eu",)) -> Daemon:
    """A rollout of the only release is under way and answers half of the requests."""
    daemon = Daemon()
    daemon.publish()
    daemon.start(plan(DIGEST, 1, regions=regions))
    daemon.node.region.have(DIGEST)
    daemon.until(State.WEIGHTING)
    return daemon


def healthy() -> Daemon:
    daemon = running()
    for _ in range(30):
        daemon.report()
        daemon.step()
        if daemon.state is State.HEALTHY:
            return daemon
    raise AssertionError(f"it is {daemon.state}")


# -- the step ------------------------------------------------------------------


def own(step: Step) -> list[AppendEvents]:
    return [w for w in step.store if isinstance(w, AppendEvents) and w.head.origin == EU]


def test_what_a_step_sends_of_our_log_is_in_its_store() -> None:
    daemon = Daemon()
    daemon.node.sync.link_up(US.member, b"us", daemon.now_s)
    daemon.node.sync.links[US.member].proven = True
    daemon.step()
    for i in range(5):
        daemon.node.propose(Note(f"note {i}"))
        step = daemon.step(tick=False)
        (append,) = own(step)
        (announce,) = [s.frame for s in step.send if isinstance(s.frame, Announce)]  # type: ignore[attr-defined]  # only Send is sent
        assert announce.note == append.head.note
        assert announce.events == append.events


def test_nothing_is_sent_or_signed_before_the_step_is_taken() -> None:
    daemon = Daemon()
    daemon.step()
    size = daemon.node.book.size(EU)
    ticket = daemon.node.propose(Note("later"))
    assert daemon.node.sync.out == []
    assert daemon.node.book.size(EU) == size
    assert ticket.event is None


def test_many_proposals_are_one_commit_and_one_signature() -> None:
    daemon = Daemon()
    daemon.step()
    tickets = [daemon.node.propose(Note(f"note {i}")) for i in range(50)]
    (append,) = own(daemon.step(tick=False))
    assert len(append.events) == 50
    assert len({t.event for t in tickets}) == 50
    assert None not in {t.event for t in tickets}


def test_more_than_a_chunk_is_committed_in_chunks() -> None:
    daemon = Daemon()
    daemon.step()
    for i in range(limits.COMMIT_EVENTS_MAX + 10):
        daemon.node.propose(Note(f"{i} " + "x" * 400))
    appends = own(daemon.step(tick=False))
    assert len(appends) > 1
    assert sum(len(a.events) for a in appends) == limits.COMMIT_EVENTS_MAX + 10
    assert [a.start for a in appends[1:]] == [a.head.size for a in appends[:-1]]


def test_a_first_start_opens_the_log_and_a_later_one_does_not() -> None:
    daemon = Daemon()
    (append,) = own(daemon.step())
    assert isinstance(CODEC.decode(append.events[0]).body, LogOpen)
    again = Daemon(stored=daemon.stored)
    assert own(again.step()) == []


# -- proposals -----------------------------------------------------------------


def test_what_would_be_void_is_refused_with_the_reason() -> None:
    daemon = Daemon()
    with pytest.raises(NotPermitted, match="release-manager"):
        daemon.node.propose(Kill(MODEL, DIGEST, "no signature"))
    theirs = RolloutReport(MODEL, segment("r"), 1, DIGEST, segment("us"), "held", 0, 0)
    with pytest.raises(NotPermitted, match="speak for us"):
        daemon.node.propose(theirs)
    daemon.step()
    assert daemon.node.book.size(EU) == 1


def test_what_is_too_large_is_refused_when_proposed_not_when_written() -> None:
    daemon = Daemon()
    with pytest.raises(TooLarge):
        daemon.node.propose(Note("fine"), attestations=[b"x" * limits.EVENT_BYTES_MAX])
    daemon.node.propose(Note("next"))
    daemon.step()
    assert daemon.node.book.size(EU) == 2


# -- restarts ------------------------------------------------------------------


def test_a_restart_continues_where_the_store_ends() -> None:
    daemon = running()
    daemon.report()
    daemon.step()
    again = Daemon(stored=daemon.stored)
    assert again.node.book.digest == daemon.node.book.digest
    assert again.node.catalog.state_digest == daemon.node.catalog.state_digest
    assert again.state is daemon.state
    assert again.node.region.duty.order == daemon.node.region.duty.order


def test_a_restart_while_fetching_fetches_again() -> None:
    daemon = Daemon()
    daemon.publish()
    daemon.start(plan(DIGEST, 1, regions=("eu",)))
    daemon.until(State.PREFETCHING)
    daemon.step()
    assert [e for e in daemon.effects if isinstance(e, FetchRelease)] == [
        FetchRelease(MODEL, DIGEST)
    ], "asked for once"
    again = Daemon(stored=daemon.stored)
    assert again.state is State.PREFETCHING
    again.step()
    assert FetchRelease(MODEL, DIGEST) in again.effects


def test_an_altered_store_ends_the_process() -> None:
    daemon = Daemon()
    daemon.node.propose(Note("true"))
    daemon.step()
    (append,) = (w for w in daemon.stored if isinstance(w, AppendEvents))
    with pytest.raises(Broken):
        daemon.node.book.restore(append.head, append.events[:-1])


# -- what others say -----------------------------------------------------------


def two_stages() -> bytes:
    """us first, then eu: what us says decides whether eu may begin."""
    document = json.loads(plan(DIGEST, 1))
    (stage,) = document["spec"]["stages"]
    document["spec"]["stages"] = [
        {**stage, "name": "pilot", "regions": ["us"]},
        {**stage, "regions": ["eu"], "requires": {"stage": "pilot", "healthy": "all"}},
    ]
    from hanse.core.rollout.spec import canonical

    return canonical(parse_spec(document))


def waiting() -> tuple[Daemon, Author, bytes]:
    daemon, raw = Daemon(), two_stages()
    daemon.publish()
    daemon.start(raw)
    daemon.until(State.GATED)
    daemon.node.sync.link_up(US.member, b"us", daemon.now_s)
    link = daemon.node.sync.links[US.member]
    link.proven, link.heard_s = True, daemon.now_s
    daemon.node.sync.last_word_s[US.member] = daemon.now_s
    return daemon, Author("us"), raw


def says(us: Author, state: str, release: Digest = DIGEST) -> None:
    us.write(RolloutReport(MODEL, segment("r-1"), 1, release, segment("us"), state, 0, 2))


def test_a_stage_opens_on_the_attested_health_of_the_one_before() -> None:
    daemon, us, raw = waiting()
    says(us, "healthy")
    daemon.hear(us)
    daemon.step()
    assert daemon.state is State.GATED, "whoever only says so has attested nothing"
    us.healthy(raw)
    daemon.hear(us)
    daemon.until(State.PREFETCHING)


def test_health_of_another_plan_with_the_same_name_opens_nothing() -> None:
    daemon, us, _ = waiting()
    rival = plan(DIGEST, 1, regions=("us",))
    us.intent(rival)
    us.healthy(rival)
    says(us, "healthy")
    daemon.hear(us)
    daemon.step()
    daemon.step()
    assert State.PREFETCHING not in [
        e.progress.state for e in daemon.node.region.executions.values()
    ]


def test_a_state_that_we_do_not_know_says_nothing() -> None:
    """A newer or a hostile daemon may report anything; it must not end this one."""
    daemon, us, _ = waiting()
    says(us, "ecstatic")
    daemon.hear(us)
    daemon.step()
    assert daemon.state is State.GATED


def test_a_plan_that_replaces_its_namesake_is_carried_out() -> None:
    """Two people sign plans with one name and generation: the winner starts afresh."""
    daemon = running()
    rivals = [plan(DIGEST, 1, regions=("eu",), deadline={"step": f"{h}h"}) for h in range(1, 9)]
    winner = max(rivals, key=Digest.of)
    daemon.start(winner)
    daemon.step()
    daemon.step()
    states = {
        e.plan.deadline.step_ms: e.progress.state for e in daemon.node.region.executions.values()
    }
    current = parse_spec(json.loads(max(winner, plan(DIGEST, 1, regions=("eu",)), key=Digest.of)))
    assert states[current.deadline.step_ms] not in (State.SUPERSEDED, None)
    assert sum(s is State.SUPERSEDED for s in states.values()) <= 1


def test_a_newer_plan_in_the_middle_of_a_canary_moves_neither_what_stands_nor_the_target() -> None:
    """Invariant 20: the older rollout ends, its users go back, and lineage stays as it is."""
    daemon = healthy()
    second, third = manifest("2.0", [DIGEST]), manifest("3.0", [DIGEST])
    digests = [Digest.of(made.encode()) for made in (second, third)]
    for made, digest, counter in ((second, digests[0], 2), (third, digests[1], 3)):
        daemon.publish(made, counter)
        daemon.node.region.have(digest)
    daemon.start(plan(digests[0], 2, DIGEST, regions=("eu",)))
    daemon.until(State.WEIGHTING)
    daemon.start(plan(digests[1], 3, DIGEST, regions=("eu",)))
    daemon.step()
    older, newer = list(daemon.node.region.executions.values())[-2:]
    assert (older.plan.release, newer.plan.release) == tuple(digests)
    assert (older.progress.state, older.progress.weight_percent) == (State.SUPERSEDED, 0)
    view = daemon.node.catalog.views[MODEL]
    assert [head.release for head in view.heads] == [DIGEST]
    for digest in digests:
        target = rollback_target(view, digest, "eu")
        assert target is not None
        assert target.digest == DIGEST


def test_a_quarantined_release_is_rolled_back_once() -> None:
    daemon = healthy()
    second = manifest("2.0", [DIGEST])
    digest = Digest.of(second.encode())
    daemon.publish(second, 2)
    daemon.start(plan(digest, 2, DIGEST, regions=("eu",)))
    daemon.node.region.have(digest)
    for _ in range(40):
        daemon.report()
        daemon.step()
    assert daemon.state is State.HEALTHY
    us, ap = Author("us"), Author("ap")
    for author in (us, ap):
        author.hold(digest)
        daemon.hear(author)
    daemon.step()
    daemon.step()
    written = [
        CODEC.decode(e).body for w in daemon.stored if isinstance(w, AppendEvents) for e in w.events
    ]
    assert len([body for body in written if isinstance(body, Rollback)]) == 1
    view = daemon.node.catalog.views[MODEL]
    assert view.conflicts() == ()
    assert [head.release for head in view.heads] == [DIGEST]


def test_a_resume_concerns_only_the_rollout_that_it_names() -> None:
    daemon = running()
    (execution,) = daemon.node.region.executions.values()
    daemon.node.region.resume(RolloutControl(MODEL, segment("another"), 1, "resume"))
    assert not execution.resumed
    daemon.node.region.resume(RolloutControl(MODEL, segment("r-1"), 1, "resume"))
    assert execution.resumed


def test_a_signed_resume_is_taken() -> None:
    daemon = running()
    pause = daemon.node.propose(RolloutControl(MODEL, segment("r-1"), 1, "pause"))
    daemon.step()
    assert daemon.state is State.HELD
    assert pause.event is not None
    statement = control("resume", rollout="r-1", region="")
    body = RolloutControl(MODEL, segment("r-1"), 1, "resume")
    daemon.node.propose(body, attestations=[statement], supersedes=[pause.event])
    daemon.step()
    assert daemon.state is not State.HELD


def promoted_with(hold_at: int | None) -> int | None:
    """The second at which a release is promoted, if a person says no right before `hold_at`."""
    daemon = running()
    for second in range(40):
        if second == hold_at:
            daemon.node.propose(Hold(MODEL, EU.region, DIGEST, "no"))
        daemon.report()
        step = daemon.step()
        if any(isinstance(CODEC.decode(e).body, Promote) for w in own(step) for e in w.events):
            return second
    return None


def test_a_hold_counts_in_what_is_decided_in_the_same_step() -> None:
    """A plan that promotes now, and a person who says no now: nothing moves forward."""
    assert promoted_with(hold_at=promoted_with(hold_at=None)) is None


# -- what nodes and publishers say -----------------------------------------------


@pytest.mark.parametrize("requests", [2**40, 2**40 + 1, 2**53])
def test_counts_that_nobody_can_have_counted_change_nothing(requests: int) -> None:
    daemon = running()
    daemon.report(requests, requests)
    daemon.step()
    daemon.report(requests, requests)
    daemon.step()
    assert daemon.state is not None


@pytest.mark.parametrize("slow_ms", ["9" * 60, "0", "-1", "soon", "\u0661"])
def test_a_label_of_a_release_cannot_end_a_daemon(slow_ms: str) -> None:
    daemon = Daemon()
    made = replace(RELEASE, labels={"slow_ms": slow_ms})
    digest = Digest.of(made.encode())
    daemon.publish(made)
    daemon.start(plan(digest, 1, regions=("eu",)))
    daemon.node.region.have(digest)
    daemon.until(State.WEIGHTING)
    assert any(isinstance(e, PublishAssignment) for e in daemon.effects)


def test_health_is_attested_and_served() -> None:
    daemon = healthy()
    daemon.step()
    view = daemon.node.catalog.views[MODEL]
    assert view.versions("1.0")[0].proven == ("eu",)
    last = [e for e in daemon.effects if isinstance(e, PublishAssignment)][-1]
    (model,) = parse_assignment(last.assignment).models
    assert (model.active, model.candidate) == (DIGEST, None)


def test_a_rollout_waits_while_the_disk_is_nearly_full_and_goes_on_by_itself() -> None:
    daemon = running()
    daemon.node.set_room(Room(4, 100, 1, True))
    daemon.until(State.HELD)
    (execution,) = daemon.node.region.executions.values()
    assert execution.progress.reason == Cause.NO_ROOM
    daemon.step()
    assert daemon.state is State.HELD
    daemon.node.set_room(Room(5, 100, 1, True))
    daemon.until(State.WEIGHTING)


# -- reports that come again -----------------------------------------------------


def counted_after(daemon: Daemon) -> int:
    (execution,) = daemon.node.region.executions.values()
    return execution.progress.evidence.requests


def restarted(daemon: Daemon) -> Daemon:
    again = Daemon(stored=daemon.stored)
    again.node.region.have(DIGEST)
    again.effects, again.now_s = daemon.effects, daemon.now_s
    return again


def test_a_report_that_comes_again_after_a_restart_counts_once() -> None:
    """The acknowledgement was lost with the process: the node sends the same number again."""
    daemon = running()
    before = counted_after(daemon)
    daemon.report(requests=20)
    reported_s = daemon.now_s
    daemon.step()
    once = counted_after(daemon)
    assert once > before
    again = restarted(daemon)
    assert counted_after(again) == once
    again.now_s = reported_s
    again.report(requests=20)
    again.step()
    assert counted_after(again) == once
    again.report(requests=20)
    again.step()
    assert counted_after(again) == 2 * once - before, "the next one counts"


def test_a_report_whose_counts_were_not_stored_counts_when_it_comes_again() -> None:
    daemon = running()
    before = counted_after(daemon)
    daemon.report(requests=20)  # and the process dies before its step
    again = restarted(daemon)
    again.report(requests=20)
    again.step()
    assert counted_after(again) > before


def test_numbers_are_stored_with_what_they_counted_in_one_step() -> None:
    daemon = running()
    daemon.report(requests=20)
    (number,) = daemon.node.fleet.counted._changed
    assert not [w for w in daemon.step(tick=False).store if isinstance(w, PutLocal)]
    spaces = {w.space for w in daemon.step().store if isinstance(w, PutLocal)}
    assert spaces >= {"counted", "progress"}
    assert number == "node-1"
