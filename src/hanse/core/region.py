"""One region's own share of every rollout, and what its nodes are told.

The region is its own executor: it reads the views that all daemons share, the reports of its
own nodes and how recently it heard from others, asks the rollout machine what follows, and
turns the answer into events of its own log and one assignment for its nodes. It never decides
for another region; what it knows of them are their signed words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping

from hanse.core.catalog.catalog import Catalog
from hanse.core.catalog.lineage import warm_targets
from hanse.core.catalog.under_way import left
from hanse.core.catalog.view import ModelView, RolloutView
from hanse.core.declared import Answer, Ask, declared, fill, needs_stable
from hanse.core.duty import Duty, assign
from hanse.core.effects import FetchRelease, Heal, Log, PublishAssignment
from hanse.core.errors import Rejected
from hanse.core.events import Healthy, RolloutControl
from hanse.core.evidence.metrics import Metric
from hanse.core.fleet import Fleet
from hanse.core.healing import Healing
from hanse.core.ids import Digest, Origin, Segment
from hanse.core.keeping import Keeping
from hanse.core.reading import canonical_json
from hanse.core.retention import Beside, reached
from hanse.core.rollout.machine import advance
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.progress import Progress, begin
from hanse.core.rollout.table import TERMINAL, State
from hanse.core.rollout.tick import View as Tick
from hanse.core.signing import SigningKey
from hanse.core.situation import (
    Execution,
    Surroundings,
    facts,
    fallback,
    profile_of,
    take_windows,
)
from hanse.core.step import PutLocal, Write
from hanse.core.testimony import Share, Together, Words, together, weigh
from hanse.core.trust.members import Members
from hanse.core.words import Proposal, leave_barred, say

PROGRESS_SPACE = "progress"


def _key(view: ModelView, rollout: RolloutView) -> str:
    """Names may be given twice and plans signed at the same time: only the digest is the plan."""
    return f"{view.model}/{rollout.generation}/{rollout.rollout}/{rollout.spec_digest.short}"


class Region:
    """Owned by the node. `advance` is called once a step, after the views are folded."""

    def __init__(self, me: Origin, key: SigningKey, catalog: Catalog, fleet: Fleet) -> None:
        self.name = me.region
        self.local: set[Digest] = set()  # releases whose every file is here and pinned
        self.executions: dict[str, Execution] = {}
        self.duty = Duty(me, key)
        self.healing = Healing(me)
        self.keeping = Keeping()
        self.no_room = False  # the disk is nearly full: rollouts wait, harm is still undone
        self._catalog, self._fleet = catalog, fleet
        self._wanted: set[Digest] = set()
        self._fetches: list[FetchRelease] = []
        self._writes: list[Write] = []
        self._published: list[PublishAssignment] = []
        self._alarms: list[Log] = []
        self._heals: list[Heal] = []
        self._refused = ""
        self.waiting: Callable[[Origin], str] = str  # what a log waits for until it is final
        self.barriers: tuple[tuple[str, str], ...] = ()  # why nothing may move forward here
        self.words: Words = {}  # the other regions' evidence, as far as it was heard
        self._kept: dict[str, tuple[object, ...]] = {}
        self._looked: dict[Segment, ModelView] = {}

    # -- boot and stimuli --------------------------------------------------------

    def restore(
        self, progress: Mapping[str, bytes], duty: Mapping[str, bytes], now_s: float
    ) -> None:
        """Take back where we stood. The time while we were down counts for nothing."""
        again = self.duty.restore(duty)
        self._published += [again] if again else []
        for view, rollout in self._rollouts():
            key = _key(view, rollout)
            if key in progress:
                plan = rollout.plan
                profile = profile_of(view.release(rollout.release))
                place = Progress.decode(plan, self.name, json.loads(progress[key]), now_s, profile)
                self.executions[key] = Execution(plan, place)
                self._kept[key] = _place(place)

    def have(self, release: Digest) -> None:
        """Every file of this release is here, verified and pinned."""
        self.local.add(release)
        self.keeping.back(release)

    def forget(self, release: Digest) -> None:
        """Some of its files are about to go; should it be needed again, it is fetched again."""
        self.local.discard(release)
        self._wanted.discard(release)
        self._looked.clear()

    @property
    def beside(self) -> Beside:
        """What `retention.decide` has to know of us beside the views and the file system."""
        nodes = self._fleet.nodes.values()
        told = (self.duty.told(model) for model in self._catalog.views)
        return Beside(
            self.name,
            self.duty.me.member,
            self._plans(),
            {digest: note.why for digest, note in self.keeping.pins.items()},
            {digest: node.name for node in nodes for digest in node.on_disk},
            frozenset(digest for each in told if each is not None for digest in each.named),
            frozenset(self._wanted - self.local),
        )

    def execution(self, view: ModelView, rollout: RolloutView) -> Execution | None:
        """Our part of this rollout, if it has begun."""
        return self.executions.get(_key(view, rollout))

    def resume(self, word: RolloutControl) -> None:
        """A person said to go on: lifts, once, what only people may lift."""
        for execution in self.executions.values():
            plan = execution.plan
            ours = (plan.model, plan.name, plan.generation)
            named = (word.model, word.rollout, word.generation)
            if ours == named and word.region in ("", self.name):
                execution.resumed = True

    def asks(self) -> list[Ask]:
        """What Prometheus is to be asked now for the metrics that plans declare."""
        found: list[Ask] = []
        for view, rollout in self._rollouts():
            execution = self.execution(view, rollout)
            if execution is None or not rollout.current or not execution.progress.weight_percent:
                continue
            if execution.progress.state in TERMINAL or execution.counters.epoch is None:
                continue
            stable = fallback(view, rollout, self.name)
            key = _key(view, rollout)
            for metric in declared(execution.plan):
                arms = [(rollout.release, "canary")]
                if needs_stable(metric):
                    arms += [(stable, "stable")] if stable else []
                queries = tuple(self._queries(view, rollout, metric, *arm) for arm in arms)
                found.append(Ask(key, execution.counters.epoch, metric.name, queries))
        return found

    def _queries(
        self, view: ModelView, rollout: RolloutView, metric: Metric, release: Digest, role: str
    ) -> tuple[str, str]:
        known = view.release(release)
        values = {
            "release": str(release),
            "version": known.version if known else "",
            "role": role,
            "model": view.model,
            "region": self.name,
            "rollout": rollout.rollout,
        }
        return fill(metric.bad, values), fill(metric.total, values)

    def counted(self, answers: Iterable[Answer], now_s: float) -> None:
        """What it answered. Answers about arms that were changed meanwhile say nothing."""
        for answer in answers:
            if (execution := self.executions.get(answer.ask.rollout)) is not None:
                execution.counters.hear(answer, now_s)

    # -- one step ----------------------------------------------------------------

    @property
    def must_hear(self) -> frozenset[str]:
        """Regions whose word gates a stage of ours that is not finished."""
        named: set[str] = set()
        for execution in self.executions.values():
            if execution.progress.state not in TERMINAL:
                stage = execution.plan.stages[execution.progress.stage]
                if stage.requires is not None:
                    named |= set(execution.plan.stage(stage.requires.stage).regions)
        return frozenset(named - {self.name})

    def advance(self, heard: Mapping[str, float], now_s: float, wall_ms: int) -> Iterator[Proposal]:
        """Take one tick of every rollout that covers us; yields the events to write."""
        around, watched = self._around(heard, now_s, wall_ms), set[Segment]()
        for view, rollout in self._rollouts():
            execution = self._execution(view, rollout, now_s)
            if execution is None:
                continue
            windows, counters = take_windows(execution, around), execution.counters
            counters.follow(execution.progress, now_s)
            now = facts(view, rollout, execution, around, windows, counters.take())
            execution.resumed = False
            plan, place = execution.plan, execution.progress
            execution.progress, todo = advance(plan, self.name, place, now, now_s)
            self._fetch_needed(view, rollout, execution)
            for action in todo:
                yield from say(view, rollout, execution, action, self.name)
            self._keep(_key(view, rollout), execution.progress, now_s)
            if execution.progress.watching:
                watched.add(view.model)
        self._fleet.drop_untaken(watched)
        for _, view in sorted(self._catalog.views.items()):
            self._fetch_again(view)
            yield from leave_barred(view, self.name)
            yield from self.healing.advance(view, now_s, may_start=not self.barriers)
        self._heals += self.healing.effects(self._catalog.views)

    def look(
        self,
        view: ModelView,
        rollout: RolloutView,
        heard: Mapping[str, float],
        now_s: float,
        wall_ms: int,
    ) -> Tick | None:
        """Our part of a rollout as its next tick would find it. Takes and changes nothing."""
        execution = self.execution(view, rollout)
        if execution is None:
            return None
        plan, place = execution.plan, execution.progress
        now = facts(view, rollout, execution, self._around(heard, now_s, wall_ms))
        return Tick(plan, plan.stages[place.stage], place, now, now_s, self.name)

    def _attested_ms(self, view: ModelView, rollout: RolloutView) -> dict[str, int]:
        """By region; the earliest, should one have said it twice."""
        found: dict[str, int] = {}
        for record in self._catalog.records(view.model):
            body, at_ms = record.event.body, record.event.header.hlc_ms
            if isinstance(body, Healthy) and body.spec_digest == rollout.spec_digest.raw:
                found[body.region] = min(at_ms, found.get(body.region, at_ms))
        return found

    def _around(self, heard: Mapping[str, float], now_s: float, wall_ms: int) -> Surroundings:
        return Surroundings(
            self.name,
            self._fleet,
            self.duty.order,
            self.local,
            heard,
            now_s,
            wall_ms,
            self.no_room,
            self.waiting,
            self.barriers,
            self._attested_ms,
            weigh(self.shares(), self.words, self._catalog.quarantine_quorum),
        )

    def settle(self, members: Members) -> None:
        """Tell the nodes what stands now, if it differs from what they were told."""
        models = [
            assign(view, self.name, self._serving_execution(view), self.local)
            for _, view in sorted(self._catalog.views.items())
        ]
        wanted = [m for m in models if m is not None]
        try:
            published = self.duty.publish(wanted, self._catalog.views, members, self._fleet.obeyed)
        except Rejected as error:
            # Nodes keep what they were told. The alarm is for people: once, not with every tick.
            if self._refused != str(error):
                self._refused = str(error)
                self._alarms.append(Log("error", "assignment_refused", (("why", str(error)),)))
            return
        self._refused = ""
        if published is not None:
            self._published.append(published)
            self._writes += self.duty.writes()

    def effects(self) -> list[FetchRelease | Heal | PublishAssignment | Log]:
        out: list[FetchRelease | Heal | PublishAssignment | Log]
        out = [*self._fetches, *self._heals, *self._published, *self._alarms]
        self._fetches, self._heals, self._published, self._alarms = [], [], [], []
        return out

    def keep(self, space: str, key: str, value: bytes) -> None:
        """Store something of this daemon's own with the next step."""
        self._writes.append(PutLocal(space, key, value))

    def writes(self) -> list[Write]:
        out, self._writes = [*self._writes, *self.healing.writes(), *self.keeping.writes()], []
        return out

    def together(self, rollout: RolloutView) -> Iterator[Together]:
        """What the regions show together of a plan that we have a part in; nothing of others."""
        for share in self.shares():
            if share.digest == rollout.spec_digest:
                yield from together(share, self.words, self._catalog.quarantine_quorum - 1)

    # -- small helpers -----------------------------------------------------------

    def shares(self) -> Iterator[Share]:
        """Our part of every current plan that some region is not done with."""
        for view, rollout in self._rollouts():
            wanted = rollout.current and left(rollout)
            execution = self.execution(view, rollout) if wanted else None
            if execution is not None:
                yield Share(execution.plan, rollout.spec_digest, execution.progress)

    def _rollouts(self) -> Iterator[tuple[ModelView, RolloutView]]:
        for _, view in sorted(self._catalog.views.items()):
            for rollout in view.rollouts:
                yield view, rollout

    def _execution(self, view: ModelView, rollout: RolloutView, now_s: float) -> Execution | None:
        key = _key(view, rollout)
        found = self.executions.get(key)
        if found is None:
            # A region that has attested it has done its part, whichever daemon spoke for it.
            if not rollout.current or self.name in rollout.healthy:
                return None
            if self.name not in (plan := rollout.plan).regions:
                return None
            profile = profile_of(view.release(rollout.release))
            found = self.executions[key] = Execution(plan, begin(plan, self.name, now_s, profile))
        if found.progress.state in TERMINAL and not self._watched(view, rollout, found):
            return None
        return found

    def _watched(self, view: ModelView, rollout: RolloutView, execution: Execution) -> bool:
        """Whether it is promoted and still what counts here.

        An activation that is itself a way back is not watched: an incident that hits every
        release alike would undo one after the other.
        """
        if execution.progress.state is not State.HEALTHY:
            return False
        active = view.active(self.name)
        ours = active and (active.release, active.cause) == (rollout.release, "promote")
        others = (e.progress for e in self.executions.values() if e.plan.model == view.model)
        trial = any(p.exposed and p.state not in TERMINAL for p in others)
        return rollout.current or bool(ours and not trial)

    def _serving_execution(self, view: ModelView) -> Execution | None:
        rollout = view.current_rollout()
        if rollout is None:
            return None
        return self.execution(view, rollout)

    def _fetch_needed(self, view: ModelView, rollout: RolloutView, execution: Execution) -> None:
        """From the state, not from its entry: a restart loses every fetch that was under way."""
        progress = execution.progress
        if progress.state in TERMINAL or progress.active in (State.PENDING, State.GATED):
            return
        targets = warm_targets(view, rollout.plan, self.name)
        for release in (rollout.release, *(target.digest for target in targets)):
            self.bring(view.model, release)

    def _fetch_again(self, view: ModelView) -> None:
        """What was removed and is needed after all, say as a way back; once for every view."""
        gone = self.keeping.tombstones
        if gone and self._looked.get(view.model) is not view:
            self._looked[view.model] = view
            for release in dict.fromkeys(d for d, _ in reached(view, self.name, self._plans())):
                if release in gone:
                    self.bring(view.model, release)

    def _plans(self) -> tuple[RolloutSpec, ...]:
        """Those whose execution here is not over."""
        executions = self.executions.values()
        return tuple(e.plan for e in executions if e.progress.state not in TERMINAL)

    def bring(self, model: Segment, release: Digest) -> None:
        """Have it fetched, unless it is here or on its way."""
        if release not in self.local and release not in self._wanted:
            self._wanted.add(release)
            self._fetches.append(FetchRelease(model, release))

    def _keep(self, key: str, progress: Progress, now_s: float) -> None:
        """Store our place in the plan whenever more than its clocks changed."""
        place = _place(progress)
        if self._kept.get(key) != place:
            self._kept[key] = place
            raw = canonical_json(progress.encode(now_s))
            self._writes.append(PutLocal(PROGRESS_SPACE, key, raw))


def _place(progress: Progress) -> tuple[object, ...]:
    """What must survive a restart, without the clocks."""
    return (
        progress.state,
        progress.resumes,
        progress.reason,
        progress.step,
        progress.weight_percent,
        progress.shadow_percent,
        progress.exposed,
        progress.proofs,
        progress.evidence,
        progress.voices,
        progress.rejected,
    )
