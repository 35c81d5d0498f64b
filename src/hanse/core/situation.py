"""What the rollout machine is told at one tick: the shared views and our own nodes, as `Facts`.

Reports, holds and bars come from verified events; node counts from the last reports of our own
nodes; nothing here is a guess, and nothing here decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from hanse.core import telemetry
from hanse.core.catalog.lineage import rollback_target, warm_targets
from hanse.core.catalog.profile import references
from hanse.core.catalog.view import ModelView, Release, RolloutView
from hanse.core.declared import Counters
from hanse.core.errors import Rejected
from hanse.core.evidence.drift import Reference
from hanse.core.evidence.ratio import Arms
from hanse.core.evidence.watch import TICK_S
from hanse.core.evidence.window import ArmCounts, PairCounts, Trial, Window
from hanse.core.fleet import Fleet, NodeStatus
from hanse.core.ids import Digest, Origin, Segment
from hanse.core.rollout.facts import Facts, Nodes
from hanse.core.rollout.plan import RolloutSpec
from hanse.core.rollout.progress import Progress
from hanse.core.rollout.spec import salt_of
from hanse.core.rollout.stimuli import Cause
from hanse.core.rollout.table import State
from hanse.core.routing import takes_all

_STATES = frozenset(State)
_NAMED_MAX = 5


@dataclass(slots=True)
class Execution:
    """Our part of one rollout: the plan, where we stand in it, and the counts behind it."""

    plan: RolloutSpec
    progress: Progress
    resumed: bool = False
    totals: dict[str, telemetry.Window] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    """What Prometheus counts for the metrics that the plan declares."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a region sees beside the views, at one moment."""

    region: Segment
    fleet: Fleet
    told: tuple[int, int]
    """Order of the assignment that the nodes were told last."""
    local: set[Digest]
    heard_age_s: Mapping[str, float]
    now_s: float
    wall_ms: int
    """Our own wall clock, for ages that others wrote down and for freeze windows."""
    no_room: bool = False
    waiting: Callable[[Origin], str] = str
    """What the end of a log waits for until it is final."""
    barriers: tuple[tuple[str, str], ...] = ()
    """Why this daemon makes no forward move at all now."""
    attested_ms: Callable[[ModelView, RolloutView], Mapping[str, int]] = lambda *_: {}
    """When regions attested a plan healthy, by their own clocks."""
    rejected: Mapping[Digest, Mapping[str, int]] = field(default_factory=dict)
    """By plan, the metrics that the regions together show to be harmful."""


def facts(
    view: ModelView,
    rollout: RolloutView,
    execution: Execution,
    around: Surroundings,
    counted: tuple[Window, ...] = (),
    declared: Mapping[str, Arms] | None = None,
) -> Facts:
    """Everything that `rollout.machine.advance` may look at; the last two since the last tick."""
    release = view.release(rollout.release)
    holds = {h.region for h in view.holds if h.release == rollout.release}
    target = fallback(view, rollout, around.region)
    local = around.local
    return Facts(
        reports=_reports(rollout, around.region),
        heard_age_s=around.heard_age_s,
        attested_age_s=_ages(view, rollout, execution, around),
        barred=release is None or release.killed or release.quarantined,
        held_here=around.region in holds,
        held_elsewhere=tuple(sorted(holds - {around.region})),
        frozen=view.frozen(around.region) is not None,
        no_room=around.no_room,
        paused=rollout.says(rollout.paused, around.region),
        aborted=rollout.says(rollout.aborted, around.region),
        resumed=execution.resumed,
        superseded=not rollout.current,
        barriers=(*around.barriers, *_barriers(release, rollout, around)),
        unheard={r: around.waiting(log) for r, log in rollout.waiting if r != around.region},
        approvals=rollout.approvals,
        prefetched=rollout.release in local
        and all(r.digest in local for r in warm_targets(view, rollout.plan, around.region)),
        way_back=target is not None,
        nodes=_nodes(view, rollout, execution, target, around),
        rejected=around.rejected.get(rollout.spec_digest, {}),
        references=profile_of(release),
        declared=declared or {},
        gap=execution.counters.gap(execution.plan, around.now_s),
        windows=counted,
    )


def profile_of(release: Release | None) -> dict[str, Reference]:
    """What drift is measured from; nothing for a release that was signed without."""
    return references(release.manifest.profile) if release else {}


def fallback(view: ModelView, rollout: RolloutView, region: str) -> Digest | None:
    """What our nodes run when the rollout is taken away: the active release, else lineage."""
    active = view.active(region)
    if active is not None and active.release != rollout.release:
        return active.release
    found = rollback_target(view, rollout.release, region)
    return found.digest if found else None


def _ages(
    view: ModelView, rollout: RolloutView, execution: Execution, around: Surroundings
) -> dict[str, float]:
    """Asked for where it can matter alone: it takes a walk through the records."""
    requires = execution.plan.stages[execution.progress.stage].requires
    gated = execution.progress.active in (State.PENDING, State.GATED)
    if requires is None or requires.age_ms is None or not gated:
        return {}
    attested = around.attested_ms(view, rollout)
    return {region: (around.wall_ms - at_ms) / 1000 for region, at_ms in attested.items()}


def _barriers(
    release: Release | None, rollout: RolloutView, around: Surroundings
) -> Iterator[tuple[str, str]]:
    """What was recorded elsewhere binds us once it is final; before, others may hear otherwise."""
    if release is not None and not release.usable(around.region):
        why = f"the record of {release.version} is not final: {around.waiting(release.logs[0])}"
        yield Cause.FINALITY, why
    if release is not None and release.retired == "retired":
        yield Cause.RETIRED, f"{release.version} is retired"
    if not rollout.usable(around.region):
        yield Cause.FINALITY, f"the plan is not final: {around.waiting(rollout.logs[0])}"
    for window in rollout.plan.freeze:
        if window.covers(around.wall_ms):
            yield Cause.WINDOW, f"nothing begins or rises in the freeze window {window.text}"


def _reports(rollout: RolloutView, region: str) -> dict[str, State]:
    """Where the others stand. Healthy is who attested it for this very plan, not who says so;
    a word that we do not know (a newer daemon's, or a false one) says nothing."""
    return {
        r.region: State(r.state)
        for r in rollout.reports
        if r.region != region
        and r.state in _STATES
        and (r.state != State.HEALTHY or rollout.attested(r.region, region))
    }


def _nodes(
    view: ModelView,
    rollout: RolloutView,
    execution: Execution,
    target: Digest | None,
    around: Surroundings,
) -> Nodes:
    fleet, release = around.fleet, view.release(rollout.release)
    everybody = fleet.online(around.now_s)
    online = fleet.able(everybody, release)
    obeying = [n for n in online if n.order >= around.told]
    told = [(n, n.models.get(view.model)) for n in online]
    failing = {n.name for n, m in told if m is not None and rollout.release in m.failed}
    ready = {n.name for n, m in told if m and rollout.release in m.ready} - failing
    silent = _silent(view.model, rollout.release, execution.plan.nodes.silent_ms, around)
    weight = execution.progress.weight_percent
    confirmed = [n for n in obeying if n.name in ready] if weight else obeying
    # Who cannot run the target is back once it has left the release.
    back = view.release(target) if target else None
    able = {n.name for n in fleet.able(obeying, back)} if back else set()
    on_target = sum(
        _runs(n.models.get(view.model), back.digest)
        if back and n.name in able
        else not _runs(n.models.get(view.model), rollout.release)
        for n in obeying
    )
    return Nodes(
        len(online),
        weight,
        len(confirmed),
        len(ready),
        len(failing),
        len(silent),
        on_target,
        _whole(rollout.plan, online, weight),
        tuple(sorted({*failing, *silent})[:_NAMED_MAX]),
        len(everybody) - len(online),
    )


def _whole(plan: RolloutSpec, online: Sequence[NodeStatus], weight_percent: int) -> int | None:
    if plan.nodes.assign == "request":
        return None
    salt = salt_of(plan)
    return sum(takes_all(salt, node.name, weight_percent * 100) for node in online)


def _silent(
    model: Segment, release: Digest, silent_ms: int | None, around: Surroundings
) -> list[Segment]:
    """Nodes whose last word was that they have the release, and that was too long ago."""
    if silent_ms is None:
        return []
    since_s = around.now_s - silent_ms / 1000
    gone = [n for n in around.fleet.nodes.values() if n.seen_s < since_s]
    had = ((n.name, n.models.get(model)) for n in gone)
    return [name for name, m in had if m is not None and release in (m.running, *m.ready)]


def take_windows(execution: Execution, around: Surroundings) -> tuple[Window, ...]:
    """Counts of the arms that are set now; those of earlier arms must not be pooled.

    They are handed out once.
    """
    plan, progress = execution.plan, execution.progress
    if progress.watching:
        return _since_promotion(execution, around)
    arms = (progress.weight_percent * 100, progress.shadow_percent * 100)
    found = []
    for node, window in around.fleet.take(plan.model, plan.name, plan.generation):
        if (window.weight_bp, window.shadow_bp) == arms:
            try:
                found.append(_evidence_window(window, node))
            except Rejected:
                continue  # counts that nobody can have counted: a node lies
            _add(execution.totals, f"{progress.stage}.{arms[0]}.{arms[1]}", window)
    return tuple(found)


def _since_promotion(execution: Execution, around: Surroundings) -> tuple[Window, ...]:
    """What the promoted release answered, one tick of the watch at a time."""
    plan, progress = execution.plan, execution.progress
    if around.now_s - progress.telemetry_at_s < TICK_S:
        return ()
    found = []
    for node, counts in around.fleet.take_stable(plan.model, plan.release):
        with suppress(Rejected):  # counts that nobody can have counted: a node lies
            found.append(Window(Trial.CANARY, _arm(counts), series=counts.series, node=node))
    return tuple(found)


def _runs(report: telemetry.ModelReport | None, release: Digest) -> bool:
    return report is not None and report.running == release


def _add(totals: dict[str, telemetry.Window], key: str, window: telemetry.Window) -> None:
    totals[key] = totals[key] + window if key in totals else window


def _evidence_window(window: telemetry.Window, node: Segment) -> Window:
    shadow = window.weight_bp == 0
    pairs, trial = window.pairs, window.shadow if shadow else window.canary
    return Window(
        Trial.SHADOW if shadow else Trial.CANARY,
        _arm(trial),
        _arm(window.stable),
        PairCounts(
            only_trial_wrong=pairs.only_old_right,
            only_stable_wrong=pairs.only_new_right,
            both_right=pairs.both_right,
            both_wrong=pairs.both_wrong,
            agree=pairs.agree,
            disagree=pairs.disagree,
        ),
        pairs.differences,
        trial.series,
        node,
    )


def _arm(counts: telemetry.Counts) -> ArmCounts:
    return ArmCounts(counts.requests, counts.errors, counts.slow, counts.labelled, counts.wrong)
