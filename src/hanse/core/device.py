"""One edge node: what to fetch, load and route to. It decides; the agent carries out.

The rules, in the order of their strength:
1. A barred or locally denied release is never routed to, online or not.
2. A release answers only after it was fetched, verified, loaded and passed its golden inputs.
3. Hearing nothing changes nothing. While the assigned release is not ready, what ran before
   keeps answering; if that may not, the nearest good release that is loaded does.
4. The nearest good release is loaded before it is needed, so falling back is one swap.
5. Assignments only go forward: an older (epoch, serial) is a no-op.
6. What was judged unfit stays so for its (rollout, generation); only fetches are retried.

Every stimulus changes the state and then settles: all effects are derived from the state
alone, so a lost, late or doubled report can do no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from hanse.core.assignment import Assignment, ModelAssignment, Source, parse_assignment
from hanse.core.catalog.manifest import Manifest, parse_manifest
from hanse.core.compat import fit
from hanse.core.device_memory import Denial, Memory, parse_memory
from hanse.core.device_step import DeviceStep, Effect, Fetch, Forget, Load, Route, Unload
from hanse.core.errors import NotPermitted, Rejected
from hanse.core.ids import Digest, Segment
from hanse.core.slots import ANSWERS, ASKS, Happened, Slot, State
from hanse.core.standing import Standing
from hanse.core.telemetry import REASON_BYTES_MAX, ModelReport

STARTS_MAX = 5
_UNMEASURED_S = 1e9


class Device:
    """The state of one node. Not for several threads; `now` is local monotonic seconds.

    `facts` are what it tells its region about itself; without them nothing is held against it.
    """

    def __init__(
        self,
        federation: Segment,
        region: Segment,
        facts: Mapping[str, str] | None = None,
        node: str = "",
    ) -> None:
        self._node = node
        self._federation = federation
        self._region = region
        self._facts = facts
        self._memory = Memory()
        self._manifests: dict[Digest, Manifest] = {}
        self._slots: dict[Digest, Slot] = {}
        self._routes: dict[Segment, Route] = {}
        self._rtt: dict[str, float] = {}
        self._stored = self._memory.encode()

    @classmethod
    def restore(
        cls,
        federation: Segment,
        region: Segment,
        stored: bytes | None,
        on_disk: Iterable[Digest],
        now: float,
        facts: Mapping[str, str] | None = None,
        node: str = "",
    ) -> tuple[Device, DeviceStep]:
        """Begin again from `stored` and the releases whose files are all on disk.

        Raises `Rejected` if the stored state cannot be read.
        """
        device = cls(federation, region, facts, node)
        if stored is not None:
            device._memory = parse_memory(stored)
            device._stored = stored
        device._slots = {d: Slot(State.STORED) for d in on_disk}
        device._adopt()
        device._refuse_what_crashed()
        return device, device._settle(now)

    @property
    def assignment(self) -> Assignment | None:
        return self._memory.assignment

    def state(self, release: Digest) -> State:
        return self._slots.get(release, Slot()).state

    def manifest(self, release: Digest) -> Manifest | None:
        return self._manifests.get(release)

    def route(self, model: Segment) -> Route:
        return self._routes.get(model, Route(model))

    def held(self) -> frozenset[Digest]:
        """Every release that this node has or is getting."""
        return frozenset(self._slots)

    def files(self) -> frozenset[Digest]:
        """The files of every release that this node holds or is getting."""
        held = (self._manifests.get(release) for release in self._slots)
        return frozenset(file.digest for m in held if m for file in m.files)

    def sources(self) -> tuple[Source, ...]:
        """The nearest first, then the unmeasured as the region orders them, the dead last."""
        sources = self._memory.assignment.sources if self._memory.assignment else ()
        return tuple(sorted(sources, key=lambda s: self._rtt.get(s.address, _UNMEASURED_S)))

    def distance_s(self, source: Source) -> float:
        return self._rtt.get(source.address, _UNMEASURED_S)

    @property
    def region(self) -> Segment:
        return self._region

    def unmeasured(self) -> tuple[Source, ...]:
        return tuple(s for s in self.sources() if s.address not in self._rtt)

    def assign(self, raw: bytes, now: float) -> DeviceStep:
        """Obey an assignment whose signature was verified, if it is newer than the last.

        Raises `Rejected` if it cannot be read or is another region's; nothing is changed.
        """
        assignment = parse_assignment(raw)
        if (assignment.federation, assignment.region) != (self._federation, self._region):
            raise NotPermitted(
                f"an assignment for {assignment.federation}/{assignment.region}",
                fix=f"this node belongs to {self._federation}/{self._region}",
            )
        current = self._memory.assignment
        if current is not None and assignment.order <= current.order:
            return DeviceStep()
        if current is not None and assignment.sources != current.sources:
            self._slots = {d: replace(slot, retry_at=now) for d, slot in self._slots.items()}
        self._memory.assignment, self._memory.raw = assignment, raw
        self._adopt()
        return self._settle(now)

    def measured(self, address: str, rtt_s: float | None) -> None:
        """The round trip to a source, or None if it did not answer."""
        self._rtt[address] = float("inf") if rtt_s is None else rtt_s

    def fetched(self, release: Digest, now: float) -> DeviceStep:
        return self._put(release, self._slot(release).after(Happened.FETCHED), now)

    def fetch_failed(
        self, release: Digest, reason: str, now: float, *, transient: bool, jitter: float
    ) -> DeviceStep:
        """`jitter` in [0, 1); what is transient is tried again by `tick`, the rest never."""
        if not transient:
            return self._refuse(release, reason, now)
        slot = self._slot(release).unreached(_short(reason), now, jitter)
        return self._put(release, slot, now)

    def loaded(self, release: Digest, now: float) -> DeviceStep:
        """Loaded, and its golden inputs gave the expected outputs."""
        if self.state(release) is not State.LOADING:
            return DeviceStep(effects=(Unload(release),))
        return self._put(release, self._slot(release).after(Happened.LOADED), now)

    def load_failed(self, release: Digest, reason: str, now: float) -> DeviceStep:
        return self._refuse(release, reason, now)

    def lost(self, release: Digest, now: float) -> DeviceStep:
        """The files of a release are missing or do not have their digests: fetch them again.

        What answers from memory goes on answering.
        """
        return self._put(release, self._slot(release).after(Happened.LOST), now)

    def proved(self, release: Digest, now: float) -> DeviceStep:
        """It gave enough good answers: a later crash is not counted against it."""
        if release not in self._slots:
            return DeviceStep()
        self._memory.proven.add(release)
        self._memory.trials.pop(release, None)
        return self._settle(now)

    def tripped(self, model: Segment, release: Digest, reason: str, now: float) -> DeviceStep:
        """The watchdog saw harm. Deny the release for this generation and swap in this step.

        A stable release stays if nothing else could answer: its errors are no worse than
        silence, and the region sees them in the counts.
        """
        plan, route = self._plan(model), self._routes.get(model)
        if plan is None or route is None or release not in (route.stable, route.candidate):
            return DeviceStep()
        if release == route.stable and self._standing(plan).fallback(release) is None:
            return DeviceStep()
        self._memory.denied[release] = Denial(model, plan.generation, _short(reason))
        return self._settle(now)

    def tick(self, now: float) -> DeviceStep:
        """Repeat the fetches that are due; call about once a second."""
        waiting = (s for s in self._slots.values() if s.state in ASKS and s.attempts)
        return self._settle(now) if any(s.retry_at <= now for s in waiting) else DeviceStep()

    def stopping(self) -> DeviceStep:
        """A clean stop: starts that end here do not count as crashes."""
        trials = self._memory.trials
        self._memory.trials = {d: n for d, n in trials.items() if n >= STARTS_MAX}
        return DeviceStep(self._changed())

    def report(self) -> tuple[ModelReport, ...]:
        """The state of every assigned model, without windows."""
        return tuple(self._standing(p).report(self._routes[p.model]) for p in self._plans())

    # Below: change the state, then settle everything that depends on it.

    def _refuse(self, release: Digest, reason: str, now: float) -> DeviceStep:
        slot = self._slot(release).refused(_short(reason), self._trying(release))
        return self._put(release, slot, now)

    def _put(self, release: Digest, slot: Slot | None, now: float) -> DeviceStep:
        """A report about a release that nobody wants any more, or out of turn, is ignored."""
        if slot is None or release not in self._slots:
            return DeviceStep()
        self._slots[release] = slot
        return self._settle(now)

    def _adopt(self) -> None:
        """Take in a new assignment: reopen, read its manifests, drop what is obsolete."""
        memory = self._memory
        for release, slot in self._slots.items():
            if slot.state is State.FAILED and slot.tried != self._trying(release):
                self._slots[release] = Slot()
                memory.trials.pop(release, None)
        named = memory.assignment.releases if memory.assignment else {}
        known = memory.kept | {d: manifest.encode() for d, manifest in self._manifests.items()}
        gone = set(memory.running.values()) - named.keys()
        memory.kept = {d: known[d] for d in sorted(gone & known.keys())}
        self._manifests = dict(self._read_manifests(memory.kept | named))
        for release, denial in list(memory.denied.items()):
            plan = self._plan(denial.model)
            if plan is None or plan.generation != denial.generation:
                del memory.denied[release]
        memory.proven &= self._manifests.keys()
        memory.trials = {d: n for d, n in memory.trials.items() if d in self._manifests}

    def _read_manifests(self, raws: dict[Digest, bytes]) -> Iterator[tuple[Digest, Manifest]]:
        for release, raw in raws.items():
            try:
                manifest = parse_manifest(raw)
            except Rejected as error:
                self._rule_out(release, f"manifest: {error}")
                continue
            if self._facts is not None and (found := fit(manifest, self._facts)).variant is None:
                self._rule_out(release, f"cannot run it: {found.why}")
            yield release, manifest

    def _rule_out(self, release: Digest, reason: str) -> None:
        """Before a byte of it is fetched, and never what is loaded already."""
        slot = self._slot(release).refused(_short(reason), self._trying(release))
        self._slots[release] = slot or self._slot(release)

    def _refuse_what_crashed(self) -> None:
        good = {d for plan in self._plans() for d in plan.last_good}
        for release, starts in self._memory.trials.items():
            if starts >= STARTS_MAX and release not in good:
                self._rule_out(release, f"this node did not survive {starts} starts with it")

    def _settle(self, now: float) -> DeviceStep:
        """Derive every effect from the state; doing so twice gives nothing new."""
        effects: list[Effect] = [*self._reroute(), *self._tidy(), *self._stage(now)]
        return DeviceStep(self._changed(), tuple(effects))

    def _changed(self) -> bytes | None:
        raw = self._memory.encode()
        if raw == self._stored:
            return None
        self._stored = raw
        return raw

    def _reroute(self) -> Iterator[Route]:
        running, plans = self._memory.running, {plan.model: plan for plan in self._plans()}
        for model in (self._routes.keys() | running.keys()) - plans.keys():
            running.pop(model, None)
            if self._routes.pop(model, None):
                yield Route(model)
        for model, plan in plans.items():
            route = self._standing(plan).route()
            if route.stable is not None:
                running[model] = route.stable
            elif plan.active is None:
                running.pop(model, None)
            if self._routes.get(model) != route:
                self._routes[model] = route
                yield route

    def _tidy(self) -> Iterator[Effect]:
        standings = [self._standing(plan) for plan in self._plans()]
        warm = {d for standing in standings for d in standing.warm()}
        kept = {d for standing in standings for d in standing.kept()}
        for release, slot in list(self._slots.items()):
            if release not in warm and slot.state in ANSWERS:
                self._slots[release] = slot.after(Happened.UNLOAD) or slot
                yield Unload(release)
            if release not in kept:
                del self._slots[release]
                yield Forget(release)
        for release in sorted(kept - self._slots.keys()):
            self._slots[release] = Slot()

    def _stage(self, now: float) -> Iterator[Effect]:
        for plan in self._plans():
            standing = self._standing(plan)
            warm = standing.warm()
            for release in standing.staged():
                slot, manifest = self._slot(release), self._manifests[release]
                if slot.state in ASKS and slot.retry_at <= now and release in plan.named:
                    self._slots[release] = slot.after(Happened.FETCH) or slot
                    yield Fetch(release, manifest)
                elif slot.state is State.STORED and release in warm:
                    self._slots[release] = slot.after(Happened.LOAD) or slot
                    self._count_start(plan, release)
                    yield Load(release, manifest)

    def _count_start(self, plan: ModelAssignment, release: Digest) -> None:
        if release not in self._memory.proven and release not in plan.last_good:
            self._memory.trials[release] = self._memory.trials.get(release, 0) + 1

    def _slot(self, release: Digest) -> Slot:
        return self._slots.get(release, Slot())

    def _plans(self) -> tuple[ModelAssignment, ...]:
        return self._memory.assignment.models if self._memory.assignment else ()

    def _plan(self, model: Segment) -> ModelAssignment | None:
        return next((plan for plan in self._plans() if plan.model == model), None)

    def _standing(self, plan: ModelAssignment) -> Standing:
        memory = self._memory
        running = memory.running.get(plan.model)
        return Standing(plan, running, self._slots, self._manifests, memory.denied, self._node)

    def _trying(self, release: Digest) -> tuple[str, int]:
        for plan in self._plans():
            if release in plan.named:
                return (plan.rollout, plan.generation)
        return ("", 0)


def _short(reason: str) -> str:
    """A reason that fits a report: one line, bounded bytes."""
    line = "".join(c if c.isprintable() else " " for c in reason)
    return line.encode(errors="replace")[:REASON_BYTES_MAX].decode(errors="ignore")
