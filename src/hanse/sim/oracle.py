"""What must hold in every run, checked while it runs and at its end.

Safety, at every step:
- nobody sends the same news to the same peer twice;
- nothing of our own log is sent before the store has it, and nothing that was acknowledged
  is ever lost;
- equal heads mean equal state digests;
- what is final stays final, and nowhere is another history of that log final (I2, I3);
- no log of an honest member whose key is its own is proven to have forked (I13);
- a region neither promotes nor gives more traffic to a release that it knows to be held;
- a rollback goes to the target that lineage names: proven, not held, not killed;
- the trust version never falls (I10).

Promises are those of honest daemons: what a liar stores, sends or loses is its own affair.

Liveness, once all faults are over: a log of which honest daemons stored two branches is proven
to have forked at all who hold it; equal heads within three anti-entropy periods and the
diameter, and the state that the naive reference computes from the union of all events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from hanse.core import limits
from hanse.core.assignment import parse_assignment
from hanse.core.catalog.lineage import rollback_target
from hanse.core.catalog.view import ModelView
from hanse.core.effects import Log, PublishAssignment
from hanse.core.events import Promote, Rollback
from hanse.core.gossip.frames import Announce, Frame, Heads
from hanse.core.ids import Digest, EventId, MemberId, Origin, Segment
from hanse.core.log.checkpoint import Checkpoint
from hanse.core.log.merkle import leaf_hash
from hanse.core.log.note import Note
from hanse.core.node import Ticket
from hanse.core.step import AppendEvents, Head, Step
from hanse.sim.ending import events_of, lost, misread
from hanse.sim.faults import FaultPlan
from hanse.sim.history import History
from hanse.sim.process import CODEC, Process, done
from hanse.sim.timeline import Timeline
from hanse.sim.vices import doubtful

CONVERGENCE_S = 3 * limits.ANTI_ENTROPY_S * (1 + limits.ANTI_ENTROPY_JITTER) + 5

_OF_TWO_SELVES = ("heads_differ", "own_log_extended_by_another", "recovery")


class Violated(AssertionError):
    """A promise was broken; the message says which, where and when."""


class Oracle:
    """Owned by the world; it looks, and never changes anything."""

    def __init__(
        self,
        time: Timeline,
        plan: FaultPlan,
        processes: Mapping[Segment, Process],
        history: History,
        honest: Callable[[Process], bool],
    ) -> None:
        self._honest = honest
        self._doubtful = doubtful(plan.vices)
        self._cloned = {v.region for v in plan.vices if v.kind == "clone"}
        self._trusted: dict[str, int] = {}
        self._time, self._plan, self._processes, self._history = time, plan, processes, history
        self._acknowledged: dict[EventId, str] = {}
        self._weights: dict[tuple[str, str, Digest], int] = {}
        self._digests: dict[bytes, tuple[bytes, str]] = {}
        self._final: dict[tuple[str, Origin], int] = {}
        self._announced: dict[str, set[tuple[object, ...]]] = {}
        self._final_logs: dict[Origin, list[bytes]] = {}
        self._leaves: dict[tuple[Origin, int], bytes] = {}
        self._written: dict[tuple[Origin, int], bytes] = {}
        self._copies: dict[Segment, Process] = {}
        self._torn: set[Origin] = set()
        """Logs that may fork without a lie of their author: a daemon and its copy wrote them while
        one of the two had no honest peer, or their end was lost where only a liar had heard it."""
        self._forked: set[Origin] = set()
        """Logs of which honest daemons have stored two branches."""
        self.converged_s: float | None = None

    @property
    def acknowledged(self) -> int:
        return len(self._acknowledged)

    def is_acknowledged(self, event: EventId | None) -> bool:
        return event in self._acknowledged

    # -- at every step ---------------------------------------------------------

    def stored(self, process: Process, step: Step, acknowledged: Sequence[Ticket]) -> None:
        if not self._honest(process):
            return
        self._trust_rises(process)
        for ticket in acknowledged:
            assert ticket.event is not None
            self._acknowledged[ticket.event] = process.name
        for write in step.store:
            if not isinstance(write, AppendEvents):
                continue
            self._finality(process, write.head)
            if process.wrote and process.node and write.head.origin == process.node.me:
                self._one_self(process, write)
            for seq, raw in enumerate(write.events, write.start):
                place, leaf = (write.head.origin, seq), leaf_hash(raw)
                ours = process.label == process.name  # a copy's own branch may die with it
                if ours and self._leaves.setdefault(place, leaf) != leaf:
                    self._forked.add(write.head.origin)
            if process.wrote and process.node and write.head.origin == process.node.me:
                # What people say may cross a hold that is on its way; the machine looked first.
                said = {ticket.event for ticket in acknowledged}
                for raw in write.events:
                    if EventId(leaf_hash(raw)) not in said:
                        self._judge(process, CODEC.decode(raw).body)
        if step.store:
            self._same_heads_same_state(process)

    def _one_self(self, process: Process, write: AppendEvents) -> None:
        """Two processes of one key that share no honest peer cannot know of each other."""
        if process.label != process.name:
            self._copies[process.name] = process
        for seq, raw in enumerate(write.events, write.start):
            place, leaf = (write.head.origin, seq), leaf_hash(raw)
            if self._written.setdefault(place, leaf) != leaf and process.name in self._copies:
                selves = (self._processes[process.name], self._copies[process.name])
                if not all(map(self._honest_peers, selves)):
                    self._torn.add(write.head.origin)

    def _honest_peers(self, process: Process) -> int:
        links = process.node.sync.proven() if process.node else []
        honest = {p.member for p in self._honest_ones()}
        return sum(link.peer in honest for link in links)

    def set_back(self, process: Process) -> None:
        """An old disk keeps no promise of its own; what has reached others must come back."""
        self._trusted.pop(process.label, None)
        for place in [place for place in self._final if place[0] == process.label]:
            del self._final[place]
        others = [p for p in self._honest_ones() if p is not process]
        told = {leaf_hash(raw) for p in others for raw in events_of(p)}
        kept = told.union(map(leaf_hash, events_of(process)))
        for (log, seq), leaf in list(self._leaves.items()):
            if log.member == process.member and leaf not in kept:
                # Lost with the disk. If anybody knows it, then a liar, who may show it one day.
                del self._leaves[log, seq]
                if len(self._honest_ones()) < len(self._processes):
                    self._torn.add(log)
        mine = [e for e, name in self._acknowledged.items() if name == process.name]
        for event in mine:
            if event.raw not in told:
                del self._acknowledged[event]

    def sending(self, process: Process, peer: MemberId, frame: Frame) -> None:
        """I5: what leaves of our own log is on our disk. T49: nobody is sent news twice."""
        if not self._honest(process):
            return
        if isinstance(frame, Announce) and frame.events:
            # By the head: after a branch was dropped, another one of the same size is news.
            news = (process.boots, peer, Checkpoint.parse(Note.parse(frame.note).text))
            if news in self._announced.setdefault(process.label, set()):
                self._fail(f"{process.name} announces {frame.origin} to the same peer again")
            self._announced[process.label].add(news)
        claims: list[tuple[Origin, int]] = []
        match frame:
            case Announce(origin, note) if origin == process.origin:
                claims = [(origin, Checkpoint.parse(Note.parse(note).text).size)]
            case Heads(heads):
                claims = [(head.origin, head.size) for head in heads]
        stored = {head.origin: head.size for head in done(process.store.heads())}
        for named, size in claims:
            if named.member == process.member and size > stored.get(named, 0):
                self._fail(f"{process.name} sent event {size - 1} before it was stored")

    def assigning(self, process: Process, effect: PublishAssignment) -> None:
        """Hold beats promotion, on the nodes too: a held release gets no more traffic."""
        assert process.node is not None
        if not self._honest(process):
            return
        for model in parse_assignment(effect.assignment).models:
            view = process.node.catalog.views.get(model.model)
            release = view.release(model.candidate) if view and model.candidate else None
            if release is None:
                continue
            key = (process.name, model.model, release.digest)
            if release.barred and model.weight_bp > self._weights.get(key, 0):
                self._fail(f"{process.name} raised {release.version} although it is held")
            self._weights[key] = model.weight_bp

    def _finality(self, process: Process, head: Head) -> None:
        place = (process.label, head.origin)
        before = self._final.get(place, 0)
        if head.final_size < before:
            self._fail(f"{process.name} has less of {head.origin} final than it had")
        if head.final_size == before:
            return
        self._final[place] = head.final_size
        events = done(process.store.events(head.origin, 0, head.final_size, 2**60))
        known = self._final_logs.setdefault(head.origin, events)
        shorter = min(len(known), len(events))
        if known[:shorter] != events[:shorter]:
            self._fail(f"two histories of {head.origin} are final up to {shorter}")
        if len(events) > len(known):
            self._final_logs[head.origin] = events

    def _judge(self, process: Process, body: object) -> None:
        assert process.node is not None
        if isinstance(body, Promote):
            release = process.node.catalog.views[body.model].release(body.release)
            if release is not None and release.barred:
                self._fail(f"{process.name} promoted {release.version}, which is {release.state}")
            if release is not None and not release.usable(process.name):
                self._fail(f"{process.name} promoted {release.version} before it was final")
        if isinstance(body, Rollback):
            view = _without_holds(process.node.catalog.views[body.model], body.to_release)
            target = rollback_target(view, body.from_release, process.name)
            if target is None or target.digest != body.to_release:
                self._fail(f"{process.name} rolled back to {body.to_release.short}, not the target")
            elif target.barred or not target.fit(process.name):
                self._fail(f"{process.name} rolled back to {target.version}: {target.state}")

    def _same_heads_same_state(self, process: Process) -> None:
        assert process.node is not None
        heads, state = process.node.book.digest, process.node.catalog.state_digest
        known = self._digests.setdefault(heads, (state, process.name))
        if known[0] != state:
            self._fail(f"{process.name} and {known[1]} differ although their logs are equal")

    def alarmed(self, process: Process, alarm: Log) -> None:
        """An error in an honest daemon's log has its reason in the plan, or is a defect."""
        explained = alarm.event in _OF_TWO_SELVES and bool(self._doubtful or self._torn)
        # Two that run at once take turns in one log, and whoever notices says so.
        cloned = process.name in self._cloned and alarm.event != "heads_differ"
        explained = explained or (alarm.event in _OF_TWO_SELVES and cloned)
        if alarm.event == "log_forked":  # I13: no faults and no liar freeze an honest log
            log = Origin.parse(str(dict(alarm.fields)["log"]))
            explained = log.region in self._doubtful or log in self._torn
        if self._honest(process) and not explained:
            self._fail(f"{process.name} logged {alarm.event} {dict(alarm.fields)}")

    def _trust_rises(self, process: Process) -> None:
        """I10: across restarts, restored disks and clocks."""
        assert process.node is not None
        version = process.node.book.chain.current.version
        if version < self._trusted.get(process.label, 0):
            self._fail(f"{process.name} went back to trust version {version}")
        self._trusted[process.label] = version

    # -- once a second ---------------------------------------------------------

    def look(self) -> None:
        """After the calm: note when all logs were first equal, and insist that they soon are."""
        now_s = self._time.now_s
        if self.converged_s is not None or now_s < self._plan.calm_s:
            return
        if self.agreed():
            self.converged_s = now_s
            heads = done(self._honest_ones()[0].store.heads())
            events = sum(head.size for head in heads)
            self._history.say("all", f"converged on {events} events of {len(heads)} logs")
        elif now_s > self.deadline_s:
            sizes = {p.name: self._sizes(p) for p in self._honest_ones()}
            self._fail(f"no convergence {CONVERGENCE_S:.0f} s after the last fault: {sizes}")

    def agreed(self) -> bool:
        """Whether every honest daemon is up, all hold the same logs, and theirs are final."""
        nodes = [p.node for p in self._honest_ones()]
        if None in nodes or len({node.book.digest for node in nodes if node}) != 1:
            return False
        logs = {p.origin for p in self._honest_ones() if p.name not in self._doubtful}
        heads = (node.book.heads[log] for node in nodes if node for log in logs - self._torn)
        return all(head.final_size == head.size for head in heads)

    def _honest_ones(self) -> list[Process]:
        return [p for p in self._processes.values() if self._honest(p)]

    @property
    def deadline_s(self) -> float:
        """Daemons that are still down when the faults end may return after the calm."""
        crashes = self._plan.crashes
        down_s = max((crash.down_s for crash in crashes), default=0.0)
        return self._plan.calm_s + down_s + CONVERGENCE_S

    def _sizes(self, process: Process) -> dict[str, int]:
        heads = process.node.book.heads if process.node else {}
        return {str(o.region): h.size for o, h in sorted(heads.items())}

    # -- at the end ------------------------------------------------------------

    def finish(self) -> None:
        """Every acknowledged event is in every store, once (set-full); the fold is right."""
        processes = self._honest_ones()
        forked = self._doubtful | {log.region for log in self._torn}
        kept = {e: name for e, name in self._acknowledged.items() if name not in forked}
        for process, log in product(processes, sorted(self._forked)):
            assert process.node is not None
            if log in process.node.book.heads and log not in process.node.book.forks:
                self._fail(f"{process.name} has no evidence that {log} has forked")
        for complaint in (*lost(processes, kept), *misread(processes)):
            self._fail(complaint)

    def _fail(self, what: str) -> None:
        raise Violated(f"{what}, at {self._time.now_s:.3f} s")


def _without_holds(view: ModelView, target: Digest) -> ModelView:
    """Before others held the target: their word may have come in the step that goes back to it."""
    releases = tuple(replace(r, held=()) if r.digest == target else r for r in view.releases)
    return replace(view, releases=releases)
