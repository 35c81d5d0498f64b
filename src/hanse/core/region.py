"""One region's own share of every rollout, and what its nodes are told.

The region is its own executor: it reads the views that all daemons share, the reports of its
own nodes and how recently it heard from others, asks the rollout machine what follows, and
turns the answer into events of its own log and one assignment for its nodes. It never decides
for another region; what it knows of them are their signed words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hanse.core import telemetry
from hanse.core.catalog.catalog import Catalog
from hanse.core.catalog.fold import covers, read_plan
from hanse.core.catalog.lineage import rollback_target
from hanse.core.catalog.view import ModelView, RolloutView
from hanse.core.duty import Duty, assign
from hanse.core.effects import FetchRelease, PublishAssignment
from hanse.core.errors import Rejected
from hanse.core.events import Body, Healthy, Hold, Promote, Rollback, RolloutControl, RolloutReport
from hanse.core.evidence.window import ArmCounts, PairCounts, Trial, Window
from hanse.core.fleet import Fleet
from hanse.core.ids import Digest, EventId, Origin, Segment
from hanse.core.reading import canonical_json
from hanse.core.rollout import actions
from hanse.core.rollout.facts import Facts, Nodes
from hanse.core.rollout.machine import advance
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.progress import Progress, begin
from hanse.core.rollout.spec import spec_digest
from hanse.core.rollout.stimuli import Cause
from hanse.core.rollout.table import TERMINAL, State
from hanse.core.signing import SigningKey
from hanse.core.step import PutLocal, Write
from hanse.core.trust.members import Members

PROGRESS_SPACE = "progress"
EVIDENCE_BYTES_MAX = 2048


@dataclass(frozen=True, slots=True)
class Proposal:
    body: Body
    supersedes: tuple[EventId, ...] = ()


@dataclass(slots=True)
class Execution:
    """Our part of one rollout: the plan, where we stand in it, and the counts behind it."""

    plan: RolloutSpec
    progress: Progress
    resumed: bool = False
    totals: dict[str, telemetry.Window] = field(default_factory=dict)


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
        self._catalog, self._fleet = catalog, fleet
        self._wanted: set[Digest] = set()
        self._fetches: list[FetchRelease] = []
        self._writes: list[Write] = []
        self._published: list[PublishAssignment] = []
        self._kept: dict[str, tuple[object, ...]] = {}

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
                plan = read_plan(rollout.spec)
                place = Progress.decode(plan, self.name, json.loads(progress[key]), now_s)
                self.executions[key] = Execution(plan, place)
                self._kept[key] = _place(place)

    def have(self, release: Digest) -> None:
        """Every file of this release is here, verified and pinned."""
        self.local.add(release)

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

    def advance(self, heard: Mapping[str, float], now_s: float) -> Iterator[Proposal]:
        """Take one tick of every rollout that covers us; yields the events to write."""
        for view, rollout in self._rollouts():
            execution = self._execution(view, rollout, now_s)
            if execution is None:
                continue
            facts = self._facts(view, rollout, execution, heard, now_s)
            execution.resumed = False
            progress, todo = advance(execution.plan, self.name, execution.progress, facts, now_s)
            execution.progress = progress
            self._fetch_needed(view, rollout, execution)
            for action in todo:
                yield from self._act(view, rollout, execution, action)
            self._keep(_key(view, rollout), execution.progress, now_s)
        self._fleet.drop_untaken()
        for _, view in sorted(self._catalog.views.items()):
            yield from self._leave_barred(view)

    def settle(self, members: Members, now_s: float) -> None:
        """Tell the nodes what stands now, if it differs from what they were told."""
        models = [
            assign(view, self.name, self._serving_execution(view), self.local)
            for _, view in sorted(self._catalog.views.items())
        ]
        published = self.duty.publish(
            [m for m in models if m is not None], self._catalog.views, members
        )
        if published is not None:
            self._published.append(published)
            self._writes += self.duty.writes()

    def effects(self) -> list[FetchRelease | PublishAssignment]:
        out: list[FetchRelease | PublishAssignment] = [*self._fetches, *self._published]
        self._fetches, self._published = [], []
        return out

    def writes(self) -> list[Write]:
        out, self._writes = self._writes, []
        return out

    # -- facts -------------------------------------------------------------------

    def _rollouts(self) -> Iterator[tuple[ModelView, RolloutView]]:
        for _, view in sorted(self._catalog.views.items()):
            for rollout in view.rollouts:
                yield view, rollout

    def _execution(self, view: ModelView, rollout: RolloutView, now_s: float) -> Execution | None:
        key = _key(view, rollout)
        found = self.executions.get(key)
        if found is None:
            if not rollout.current or not covers(plan := read_plan(rollout.spec), self.name):
                return None
            found = self.executions[key] = Execution(plan, begin(plan, self.name, now_s))
        done = found.progress.state in TERMINAL
        if done and (found.progress.state is not State.HEALTHY or not rollout.current):
            return None
        return found

    def _facts(
        self,
        view: ModelView,
        rollout: RolloutView,
        execution: Execution,
        heard: Mapping[str, float],
        now_s: float,
    ) -> Facts:
        release = view.release(rollout.release)
        holds = {h.region for h in view.holds if h.release == rollout.release}
        target = self._target(view, rollout)
        return Facts(
            reports=self._reports(rollout),
            heard_age_s=heard,
            barred=release is None or release.killed or release.quarantined,
            held_here=self.name in holds,
            held_elsewhere=tuple(sorted(holds - {self.name})),
            frozen=view.frozen(self.name) is not None,
            paused=rollout.says(rollout.paused, self.name),
            aborted=rollout.says(rollout.aborted, self.name),
            resumed=execution.resumed,
            superseded=not rollout.current,
            prefetched=rollout.release in self.local and (target is None or target in self.local),
            nodes=self._nodes(view, rollout, execution, target, now_s),
            windows=self._windows(execution),
        )

    def _reports(self, rollout: RolloutView) -> dict[str, State]:
        """Where the others stand. Healthy is who attested it for this very plan, not who says so;
        a word that we do not know (a newer daemon's, or a false one) says nothing."""
        return {
            r.region: State(r.state)
            for r in rollout.reports
            if r.region != self.name
            and r.state in _STATES
            and (r.state != State.HEALTHY or r.region in rollout.healthy)
        }

    def _target(self, view: ModelView, rollout: RolloutView) -> Digest | None:
        """What our nodes run when the rollout is taken away: the active release, else lineage."""
        active = view.active(self.name)
        if active is not None and active.release != rollout.release:
            return active.release
        found = rollback_target(view, rollout.release)
        return found.digest if found else None

    def _nodes(
        self,
        view: ModelView,
        rollout: RolloutView,
        execution: Execution,
        target: Digest | None,
        now_s: float,
    ) -> Nodes:
        online = self._fleet.online(now_s)
        obeying = [n for n in online if n.order >= self.duty.order]
        ready = [
            n for n in online if (m := n.models.get(view.model)) and rollout.release in m.ready
        ]
        weight = execution.progress.weight_percent
        confirmed = [n for n in obeying if n in ready] if weight else obeying
        on_target = (
            self._fleet.running(obeying, view.model, target)
            if target
            else sum(1 for n in obeying if not _runs(n.models.get(view.model), rollout.release))
        )
        return Nodes(len(online), weight, len(confirmed), len(ready), on_target)

    def _windows(self, execution: Execution) -> tuple[Window, ...]:
        """Counts of the arms that are set now; those of earlier arms must not be pooled."""
        plan, progress = execution.plan, execution.progress
        arms = (progress.weight_percent * 100, progress.shadow_percent * 100)
        found = []
        for window in self._fleet.take(plan.model, plan.name, plan.generation):
            if (window.weight_bp, window.shadow_bp) == arms:
                try:
                    found.append(_evidence_window(window))
                except Rejected:
                    continue  # counts that nobody can have counted: a node lies
                _add(execution.totals, f"{progress.stage}.{arms[0]}.{arms[1]}", window)
        return tuple(found)

    def _serving_execution(self, view: ModelView) -> Execution | None:
        rollout = view.current_rollout()
        if rollout is None:
            return None
        return self.execution(view, rollout)

    # -- actions -----------------------------------------------------------------

    def _act(
        self, view: ModelView, rollout: RolloutView, execution: Execution, action: actions.Action
    ) -> Iterator[Proposal]:
        plan = execution.plan
        match action:
            case actions.Promote():
                yield from self._promote(view, rollout)
            case actions.Attest(healthy=True, evidence=evidence):
                yield Proposal(
                    Healthy(
                        plan.model,
                        plan.release,
                        plan.name,
                        plan.generation,
                        self.name,
                        spec_digest(plan).raw,
                        evidence.raw,
                    )
                )
            case actions.Hold(reason=reason) if reason != Cause.ABORTED:
                # An abort ends this generation; it says nothing against the release itself.
                text = f"{reason}: {execution.progress.why}"[:480]
                yield Proposal(
                    Hold(
                        plan.model,
                        self.name,
                        plan.release,
                        text,
                        rollout=plan.name,
                        generation=plan.generation,
                    )
                )
            case actions.RollBack(reason=reason) if reason != Cause.QUARANTINED:
                yield from self._roll_back(view, rollout.release, reason)
            case actions.Report():
                yield Proposal(self._report(execution, action))
            case _:
                pass  # fetches follow the state; traffic and harm stand in progress and hold

    def _promote(self, view: ModelView, rollout: RolloutView) -> Iterator[Proposal]:
        release = view.release(rollout.release)
        if release is None:
            return
        replaced = tuple(a.id for a in view.heads if a.region == self.name)
        yield Proposal(
            Promote(
                view.model,
                self.name,
                release.digest,
                release.manifest_size,
                release.counter,
                rollout.rollout,
                rollout.generation,
            ),
            replaced,
        )

    def _roll_back(self, view: ModelView, bad: Digest, reason: str) -> Iterator[Proposal]:
        """Undo our activation of `bad`, if we have one; a canary has none to undo."""
        active = view.active(self.name)
        target = rollback_target(view, bad)
        if active is not None and active.release == bad and target is not None:
            yield Proposal(
                Rollback(view.model, self.name, active.id, bad, target.digest, reason[:480])
            )

    def _leave_barred(self, view: ModelView) -> Iterator[Proposal]:
        """An active release that was quarantined gives way to its target, rollout or not.

        A killed one is no head any more: the fold itself has revived what stood before it.
        """
        active = view.active(self.name)
        release = view.release(active.release) if active else None
        if release is not None and release.quarantined:
            yield from self._roll_back(view, release.digest, Cause.QUARANTINED)

    def _fetch_needed(self, view: ModelView, rollout: RolloutView, execution: Execution) -> None:
        """From the state, not from its entry: a restart loses every fetch that was under way."""
        progress = execution.progress
        if progress.state in TERMINAL or progress.active in (State.PENDING, State.GATED):
            return
        for release in (rollout.release, self._target(view, rollout)):
            if release is not None:
                self._fetch(view.model, release)

    def _fetch(self, model: Segment, release: Digest) -> None:
        if release not in self.local and release not in self._wanted:
            self._wanted.add(release)
            self._fetches.append(FetchRelease(model, release))

    def _report(self, execution: Execution, action: actions.Report) -> RolloutReport:
        plan = execution.plan
        evidence = canonical_json(execution.progress.evidence.encode())
        return RolloutReport(
            plan.model,
            plan.name,
            plan.generation,
            plan.release,
            self.name,
            action.state.value,
            action.stage,
            max(0, action.step),
            action.verdict,
            f"{action.reason}: {action.why}"[:480] if action.why else action.reason,
            evidence if len(evidence) <= EVIDENCE_BYTES_MAX else b"",
        )

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
    )


_STATES = frozenset(State)


def _runs(report: telemetry.ModelReport | None, release: Digest) -> bool:
    return report is not None and report.running == release


def _add(totals: dict[str, telemetry.Window], key: str, window: telemetry.Window) -> None:
    totals[key] = totals[key] + window if key in totals else window


def _evidence_window(window: telemetry.Window) -> Window:
    shadow = window.weight_bp == 0
    pairs = window.pairs
    return Window(
        Trial.SHADOW if shadow else Trial.CANARY,
        _arm(window.shadow if shadow else window.canary),
        _arm(window.stable),
        PairCounts(
            only_trial_wrong=pairs.only_old_right,
            only_stable_wrong=pairs.only_new_right,
            both_right=pairs.both_right,
            both_wrong=pairs.both_wrong,
            agree=pairs.agree,
            disagree=pairs.disagree,
        ),
    )


def _arm(counts: telemetry.Counts) -> ArmCounts:
    return ArmCounts(counts.requests, counts.errors, counts.slow, counts.labelled, counts.wrong)
