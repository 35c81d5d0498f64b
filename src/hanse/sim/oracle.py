"""What must hold in every run, checked while it runs and at its end.

Safety, at every step:
- nothing of our own log is sent before the store has it, and nothing that was acknowledged
  is ever lost;
- equal heads mean equal state digests;
- a region neither promotes nor gives more traffic to a release that it knows to be held;
- a rollback goes to the target that lineage names: proven, not held, not killed.

Liveness, once all faults are over: equal heads within three anti-entropy periods and the
diameter, and the state that the naive reference computes from the union of all events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hanse.core import limits
from hanse.core.assignment import parse_assignment
from hanse.core.catalog.lineage import rollback_target
from hanse.core.catalog.view import ModelView
from hanse.core.effects import PublishAssignment
from hanse.core.events import Promote, Rollback
from hanse.core.gossip.frames import Announce, Frame, Heads
from hanse.core.ids import Digest, EventId, Origin, Segment
from hanse.core.log.checkpoint import Checkpoint
from hanse.core.log.merkle import leaf_hash
from hanse.core.log.note import Note
from hanse.core.node import Ticket
from hanse.core.step import AppendEvents, Step
from hanse.sim.faults import FaultPlan
from hanse.sim.history import History
from hanse.sim.process import CODEC, Process, done
from hanse.sim.reference import Fact, agreed
from hanse.sim.timeline import Timeline

CONVERGENCE_S = 3 * limits.ANTI_ENTROPY_S * (1 + limits.ANTI_ENTROPY_JITTER) + 5


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
    ) -> None:
        self._time, self._plan, self._processes, self._history = time, plan, processes, history
        self._acknowledged: dict[EventId, str] = {}
        self._weights: dict[tuple[str, str, Digest], int] = {}
        self._digests: dict[bytes, tuple[bytes, str]] = {}
        self.converged_s: float | None = None

    @property
    def acknowledged(self) -> int:
        return len(self._acknowledged)

    def is_acknowledged(self, event: EventId | None) -> bool:
        return event in self._acknowledged

    # -- at every step ---------------------------------------------------------

    def stored(self, process: Process, step: Step, acknowledged: Sequence[Ticket]) -> None:
        for ticket in acknowledged:
            assert ticket.event is not None
            self._acknowledged[ticket.event] = process.name
        for write in step.store:
            if isinstance(write, AppendEvents) and write.head.origin == process.origin:
                for raw in write.events:
                    self._judge(process, CODEC.decode(raw).body)
        if step.store:
            self._same_heads_same_state(process)

    def sending(self, process: Process, frame: Frame) -> None:
        """I5: what leaves of our own log is on our disk."""
        claims: list[tuple[Origin, int]] = []
        match frame:
            case Announce(origin, note):
                claims = [(origin, Checkpoint.parse(Note.parse(note).text).size)]
            case Heads(heads):
                claims = [(head.origin, head.size) for head in heads]
        stored = {head.origin: head.size for head in done(process.store.heads())}
        for named, size in claims:
            if named == process.origin and size > stored.get(named, 0):
                self._fail(f"{process.name} sent event {size - 1} before it was stored")

    def assigning(self, process: Process, effect: PublishAssignment) -> None:
        """Hold beats promotion, on the nodes too: a held release gets no more traffic."""
        assert process.node is not None
        for model in parse_assignment(effect.assignment).models:
            view = process.node.catalog.views.get(model.model)
            release = view.release(model.candidate) if view and model.candidate else None
            if release is None:
                continue
            key = (process.name, model.model, release.digest)
            if release.barred and model.weight_bp > self._weights.get(key, 0):
                self._fail(f"{process.name} raised {release.version} although it is held")
            self._weights[key] = model.weight_bp

    def _judge(self, process: Process, body: object) -> None:
        assert process.node is not None
        if isinstance(body, Promote):
            release = process.node.catalog.views[body.model].release(body.release)
            if release is not None and release.barred:
                self._fail(f"{process.name} promoted {release.version}, which is {release.state}")
        if isinstance(body, Rollback):
            view = process.node.catalog.views[body.model]
            target = rollback_target(view, body.from_release)
            if target is None or target.digest != body.to_release:
                self._fail(f"{process.name} rolled back to {body.to_release.short}, not the target")
            elif target.barred or not target.proven:
                self._fail(f"{process.name} rolled back to {target.version}: {target.state}")

    def _same_heads_same_state(self, process: Process) -> None:
        assert process.node is not None
        heads, state = process.node.book.digest, process.node.catalog.state_digest
        known = self._digests.setdefault(heads, (state, process.name))
        if known[0] != state:
            self._fail(f"{process.name} and {known[1]} differ although their logs are equal")

    # -- once a second ---------------------------------------------------------

    def look(self) -> None:
        """After the calm: note when all logs were first equal, and insist that they soon are."""
        now_s = self._time.now_s
        if self.converged_s is not None or now_s < self._plan.calm_s:
            return
        if self.agreed():
            self.converged_s = now_s
            heads = done(next(iter(self._processes.values())).store.heads())
            events = sum(head.size for head in heads)
            self._history.say("all", f"converged on {events} events of {len(heads)} logs")
        elif now_s > self.deadline_s:
            sizes = {p.name: self._sizes(p) for p in self._processes.values()}
            self._fail(f"no convergence {CONVERGENCE_S:.0f} s after the last fault: {sizes}")

    def agreed(self) -> bool:
        """Whether every daemon is up and all hold the same logs."""
        nodes = [p.node for p in self._processes.values()]
        up = [node for node in nodes if node is not None]
        return len(up) == len(nodes) and len({node.book.digest for node in up}) == 1

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
        self._nothing_lost()
        self._as_the_reference_says()

    def _nothing_lost(self) -> None:
        """Every acknowledged event is in every store, once (set-full)."""
        for process in self._processes.values():
            found = [leaf_hash(raw) for _, raw in _events(process)]
            for event, name in self._acknowledged.items():
                if (times := found.count(event.raw)) != 1:
                    self._fail(f"{process.name} has {event} of {name} {times} times")

    def _as_the_reference_says(self) -> None:
        union: dict[EventId, Fact] = {}
        for process in self._processes.values():
            for origin, raw in _events(process):
                event = CODEC.decode(raw)
                if event.body is not None:
                    id_ = EventId(leaf_hash(raw))
                    union[id_] = Fact(id_, origin, event.header, event.body)
        for process in self._processes.values():
            assert process.node is not None
            for model, view in process.node.catalog.views.items():
                expected = agreed(model, union.values(), process.node.catalog.quarantine_quorum)
                if (found := told(view)) != expected:
                    different = [k for k in expected if expected[k] != found[k]]
                    self._fail(f"{process.name} differs from the reference in {different}")

    def _fail(self, what: str) -> None:
        raise Violated(f"{what}, at {self._time.now_s:.3f} s")


def told(view: ModelView) -> dict[str, Any]:
    """A view in the words of the reference."""
    targets = {r.digest: rollback_target(view, r.digest) for r in view.releases}
    return {
        "killed": sorted(str(r.digest) for r in view.releases if r.killed),
        "quarantined": sorted(str(r.digest) for r in view.releases if r.quarantined),
        "held": {str(r.digest): list(r.held) for r in view.releases},
        "proven": {str(r.digest): list(r.proven) for r in view.releases},
        "floor": view.floor,
        "heads": sorted((a.region, str(a.release), a.id.raw.hex()) for a in view.heads),
        "targets": {str(d): str(t.digest) if t else None for d, t in targets.items()},
    }


def _events(process: Process) -> list[tuple[Any, bytes]]:
    return [
        (head.origin, raw)
        for head in done(process.store.heads())
        for raw in done(process.store.events(head.origin, 0, head.size, 2**60))
    ]
