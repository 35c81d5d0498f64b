"""A rollout plan as values. `spec.parse_spec` makes them; once made, they are consistent.

Durations are whole milliseconds and weights whole percent, so a plan has one canonical text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from hanse.core.audience import EVERYBODY, Audience
from hanse.core.evidence.metrics import Metric
from hanse.core.ids import Digest, Segment
from hanse.core.rollout.freeze_windows import FreezeWindow
from hanse.core.rollout.places import Selector

WATCH_FACTOR: Final[float | None] = 1.5


@dataclass(frozen=True, slots=True)
class Shadow:
    """Copy `sample_percent` of the traffic to the release; nobody sees its answers."""

    sample_percent: int
    duration_ms: int
    samples_min: int = 0


@dataclass(frozen=True, slots=True)
class SetWeight:
    """Answer this share of the traffic with the release, and wait until every node does.

    `shadow_percent` of what the stable release answers is mirrored meanwhile: labelled pairs
    tell a small difference with a fraction of the requests that two separate arms need.
    """

    percent: int
    shadow_percent: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """Stay at this weight for the duration and until the release answered `samples_min`."""

    duration_ms: int
    samples_min: int = 0


@dataclass(frozen=True, slots=True)
class Analysis:
    """Go on only when every deciding metric of these templates is proven."""

    templates: tuple[Segment, ...]
    samples_min: int = 0


APPROVERS: Final = ("approver", "release-manager")


@dataclass(frozen=True, slots=True)
class Approve:
    """Go on when `count` people who hold `role` have signed; harm meanwhile still undoes it."""

    role: str
    count: int = 1

    def met(self, stage: str, step: int, approvals: Iterable[tuple[str, int, str, int]]) -> bool:
        return any(
            (s, n, role) == (stage, step, self.role) and count >= self.count
            for s, n, role, count in approvals
        )


Step = Shadow | SetWeight | Pause | Analysis | Approve


@dataclass(frozen=True, slots=True)
class Requires:
    """The gate of a stage: how many regions of an earlier stage attested healthy."""

    stage: Segment
    healthy: Literal["all", "majority"] | int
    age_ms: int | None = None
    """None of so many attestations may be older than this when the stage begins."""

    def quorum(self, regions: int) -> int:
        if self.healthy == "all":
            return regions
        return regions // 2 + 1 if self.healthy == "majority" else self.healthy


@dataclass(frozen=True, slots=True)
class Stage:
    """`regions` of a stage that selects them by labels are known once it is resolved."""

    name: Segment
    regions: tuple[Segment, ...]
    steps: tuple[Step, ...]
    soak_ms: int = 0
    requires: Requires | None = None
    """None only for the first stage."""
    select: Selector | None = None

    def turn(self, region: str) -> tuple[tuple[Segment, ...], int]:
        """The regions before this one, and how many of them must have ended before it begins.

        In one order, known to all and asked of nobody: of the regions up to the last one that has
        begun, at most `parallel` have not ended, also where some cannot hear each other.
        """
        before = self.regions[: self.regions.index(Segment(region))]
        parallel = self.select.parallel if self.select else None
        return before, 0 if parallel is None else max(0, len(before) - parallel + 1)

    @property
    def templates(self) -> tuple[Segment, ...]:
        named = (
            name for step in self.steps if isinstance(step, Analysis) for name in step.templates
        )
        return tuple(dict.fromkeys(named))

    @property
    def epochs(self) -> int:
        """How often the arms change, and with them the evidence starts anew."""
        return sum(isinstance(step, Shadow | SetWeight) for step in self.steps)


@dataclass(frozen=True, slots=True)
class Rollback:
    """Where to go back to from this release once it is active; see `catalog.lineage`."""

    target: Literal["lastHealthy", "predecessor"] | Digest = "lastHealthy"
    window_revisions: int | None = None
    """So many generations of ancestors may be gone back to; None: all."""
    fallback: Literal["disable"] | Digest = "disable"
    prefetch: int = 1
    """So many of what may be gone back to lie on the disk of the region and of every node."""


@dataclass(frozen=True, slots=True)
class Freshness:
    within_ms: int = 300_000
    """No start, weight increase or promotion unless the required regions were heard since."""
    telemetry_ms: int = 120_000
    """Without any telemetry, or with telemetry of no traffic, for longer: hold."""


@dataclass(frozen=True, slots=True)
class Deadline:
    step_ms: int | None = None
    """Longest time in one step; time spent held does not count."""
    stage_ms: int | None = None
    """Longest time from the first step to healthy; time spent held counts."""
    on_exceeded: Literal["hold", "rollback"] = "hold"


@dataclass(frozen=True, slots=True)
class NodeRules:
    """How nodes share in a weight, and when they speak against the release by themselves."""

    assign: Literal["request", "node"] = "request"
    """Every node gives a share of its requests to the release, or a share of the nodes all."""
    min_online: int = 0
    """No start, raise or promotion with fewer nodes online that can run the release."""
    failing_share: float = 0.1
    """More of the nodes that took it may not fail to load or to run it."""
    silent_ms: int | None = None
    """A node that took it and was not heard for so long counts as failing; None: it does not."""
    on_exceeded: Literal["hold", "rollback"] = "rollback"


@dataclass(frozen=True, slots=True)
class Propagation:
    quarantine_quorum: int | None = None
    """So many regions that held the release quarantine it; fewer make the others hold. The trust
    file decides: a plan that says otherwise is not started."""


@dataclass(frozen=True, slots=True)
class Template:
    name: Segment
    alpha: float
    metrics: tuple[Metric, ...]

    @property
    def deciding(self) -> tuple[Metric, ...]:
        return tuple(metric for metric in self.metrics if not metric.dry_run)

    def share(self, epochs: int) -> float:
        """The level of one metric in one epoch, so that all together err with at most alpha.

        Dry-run metrics take no share: adding one must not change any verdict.
        """
        return self.alpha / (len(self.deciding) * epochs)


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    name: Segment
    model: Segment
    generation: int
    release: Digest
    predecessor: Digest | None
    stages: tuple[Stage, ...]
    templates: tuple[Template, ...]
    supersedes: tuple[Segment, ...] = ()
    rollback: Rollback = Rollback()
    freshness: Freshness = Freshness()
    deadline: Deadline = Deadline()
    nodes: NodeRules = NodeRules()
    propagation: Propagation = Propagation()
    background: tuple[Segment, ...] = ()
    """Templates judged for harm in every state with traffic, beside those of the stage."""
    audience: Audience = EVERYBODY
    freeze: tuple[FreezeWindow, ...] = ()
    trust: int | None = None
    """The trust version by whose labels stages select regions; None if none does."""
    """Which requests take part, and by what units are told apart."""
    watch_factor: float | None = WATCH_FACTOR
    """After promotion, harm is so many times the rate of the rollout; None: nobody watches."""

    def template(self, name: str) -> Template:
        return next(template for template in self.templates if template.name == name)

    @property
    def regions(self) -> tuple[Segment, ...]:
        """Every region that it covers, in the order of the stages."""
        return tuple(region for stage in self.stages for region in stage.regions)

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def watched(self, stage: Stage) -> tuple[Template, ...]:
        """The templates whose metrics are kept and judged for harm throughout this stage."""
        names = dict.fromkeys((*stage.templates, *self.background))
        return tuple(self.template(name) for name in names)

    def metrics(self, stage: Stage) -> tuple[Metric, ...]:
        return tuple(metric for template in self.watched(stage) for metric in template.metrics)
