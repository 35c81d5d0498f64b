"""One region's part in one rollout: our own as it runs, another's as it last signed it.

Of our own region we know the running counts. Of another we know what its last report said:
state, step, reason and the evidence, which anybody can judge again with the signed plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hanse.core import limits
from hanse.core.catalog.view import RolloutView
from hanse.core.errors import Rejected
from hanse.core.events import RolloutReport
from hanse.core.evidence.metrics import Metric
from hanse.core.evidence.tally import Evidence
from hanse.core.evidence.verdict import Kind, Reading, judge
from hanse.core.evidence.watch import alarm_level
from hanse.core.ids import Digest, EventId
from hanse.core.reading import parse_json
from hanse.core.rollout.plan import (
    Analysis,
    Approve,
    Pause,
    RolloutSpec,
    SetWeight,
    Shadow,
    Stage,
    Step,
    Template,
)
from hanse.core.rollout.progress import stage_of
from hanse.core.rollout.table import STEPPING, TERMINAL, State
from hanse.daemon.queries.matter import Matter, plain

BACK = (State.ROLLING_BACK, State.ROLLED_BACK, State.QUARANTINED)
"""States of a part whose release is taken, or was taken, off the region's nodes."""


@dataclass(frozen=True, slots=True)
class Part:
    """`state` is plain text: another region may run a newer program than ours."""

    region: str
    rollout: RolloutView
    plan: RolloutSpec
    stage: Stage
    state: str
    step: int = -1
    weight: int | None = None
    reason: str = ""
    why: str = ""
    said: str = ""  # the verdict of the report
    evidence: Evidence | None = None
    watching: bool = False  # the evidence is of the time since the promotion
    event: EventId | None = None  # the region's last report
    at_ms: int | None = None
    age_s: float | None = None

    @property
    def live(self) -> bool:
        """Under way: neither ended nor overtaken by a newer rollout."""
        return self.rollout.current and self.state not in TERMINAL

    @property
    def exposed(self) -> bool:
        """Whether users, or copies of their requests, may meet the release there."""
        counted = self.evidence is not None and self.evidence.windows > 0
        return self.state in STEPPING or (self.state == State.HELD and counted)

    @property
    def step_text(self) -> str:
        steps = self.stage.steps
        # Reports have no step before the first one: 0 there means nothing.
        if not self.exposed or not 0 <= self.step <= len(steps):
            return ""
        if self.step == len(steps):
            return "soak"
        return f"{self.step + 1}/{len(steps)} {step_text(steps[self.step])}"

    def readings(self) -> Iterator[tuple[Metric, Reading]]:
        """Every watched metric as judged now, at the level that the plan gives it."""
        if self.evidence is None or not self.evidence.windows:
            return
        if self.watching:
            metrics = [row.metric for row in self.evidence.rows]
            found = judge(self.evidence, metrics, alarm_level(len(metrics))).readings
            yield from zip(metrics, found, strict=True)
            return
        for template in self.plan.watched(self.stage):
            level = template.share(self.stage.epochs)
            for reading in judge(self.evidence, template.metrics, level).readings:
                yield self.evidence.row(reading.metric).metric, reading

    @property
    def verdict(self) -> str:
        """healthy | harm | inconclusive, or empty before there is anything to judge."""
        if self.state == State.HEALTHY:
            return Kind.HEALTHY.value
        if self.evidence is None or not self.evidence.windows or self.watching:
            return self.said
        if any(self._kind(template) is Kind.HARM for template in self.plan.watched(self.stage)):
            return Kind.HARM.value
        step = self.stage.steps[self.step] if 0 <= self.step < len(self.stage.steps) else None
        wanted = step.templates if isinstance(step, Analysis) else self.stage.templates
        proven = all(self._kind(self.plan.template(name)) is Kind.HEALTHY for name in wanted)
        return Kind.HEALTHY.value if proven else Kind.INCONCLUSIVE.value

    def _kind(self, template: Template) -> Kind | None:
        if self.evidence is None:
            return None
        return judge(self.evidence, template.metrics, template.share(self.stage.epochs)).kind

    @property
    def text(self) -> str:
        """What the region itself gives as its reason."""
        return plain(self.why or self.reason)


def part(matter: Matter, rollout: RolloutView, region: str) -> Part | None:
    """None if the plan does not cover the region."""
    plan = rollout.plan
    if region not in plan.regions:
        return None
    _, stage = stage_of(plan, region)
    told = _reported(matter, rollout, plan, stage, region)
    execution = matter.execution(rollout) if region == matter.own else None
    if execution is None:
        return told
    progress = execution.progress
    counted = progress.evidence.windows > 0
    return Part(
        region,
        rollout,
        plan,
        stage,
        progress.state.value,
        progress.step,
        progress.weight_percent,
        progress.reason,
        progress.why,
        told.said,
        progress.evidence,
        progress.watching,
        told.event,
        told.at_ms,
        max(0.0, matter.clock.now_s - progress.telemetry_at_s) if counted else None,
    )


def newest_part(matter: Matter, region: str, release: Digest | None = None) -> Part | None:
    """The region's part in the newest rollout, of any release or of this one, that covers it."""
    found = (
        part(matter, rollout, region)
        for rollout in reversed(matter.view.rollouts)
        if release in (None, rollout.release)
    )
    return next((p for p in found if p is not None), None)


def _reported(
    matter: Matter, rollout: RolloutView, plan: RolloutSpec, stage: Stage, region: str
) -> Part:
    found = matter.latest(
        RolloutReport, rollout=rollout.rollout, generation=rollout.generation, region=region
    )
    if found is None:
        return Part(region, rollout, plan, stage, State.PENDING.value)
    record, body = found
    reason, _, why = body.reason.partition(": ")
    at_ms = record.event.header.hlc_ms
    return Part(
        region,
        rollout,
        plan,
        stage,
        plain(body.state, 40),
        body.step,
        None,
        reason,
        why,
        plain(body.verdict, 40),
        _evidence(body.evidence, plan, stage),
        False,
        record.id,
        at_ms,
        max(0.0, (matter.clock.wall_ms - at_ms) / 1000),
    )


def _evidence(raw: bytes, plan: RolloutSpec, stage: Stage) -> Evidence | None:
    """What another region signed as its counts; None if they are not of this plan."""
    if not raw:
        return None
    try:
        document = parse_json(raw, "evidence", bytes_max=limits.EVENT_BYTES_MAX)
        return Evidence.decode(document, plan.metrics(stage))
    except Rejected:
        return None


def step_text(step: Step) -> str:
    match step:
        case Approve(role=role, count=count):
            return f"approve by {count} {role}"
        case Shadow(sample_percent=sample):
            return f"shadow {sample}%"
        case SetWeight(percent, shadow) if shadow:
            return f"setWeight {percent}, shadow {shadow}%"
        case SetWeight(percent):
            return f"setWeight {percent}"
        case Pause():
            return "pause"
        case Analysis(templates=templates):
            return f"analysis {' '.join(templates)}"
