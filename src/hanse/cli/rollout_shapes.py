"""What the verbs that look into a rollout answer, key by key: see `shapes` for the rules."""

from __future__ import annotations

from typing import TypedDict

from hanse.cli.shapes import MetricReading, ReleaseRef


class PlannedStage(TypedDict):
    stage: str
    regions: list[str]
    starts: str  # when
    steps: list[str]
    soak: str


class PlannedRegion(TypedDict):
    region: str
    stage: str
    active: ReleaseRef | None
    admitted: bool  # by the residency of the release
    download_bytes: int | None  # to this region's daemon; None for other regions


class PlannedFile(TypedDict):
    """A file that a node fetches, and the one like it that it runs"""

    file: str
    digest: str
    size: int
    like: str | None


class PlannedNodes(TypedDict):
    """Nodes of the daemon's own region for which the same is true, as they last reported"""

    variant: str | None  # what they would run; None: none fits
    why: str
    download_bytes: int  # by each of them: whole files that it does not hold
    travels_bytes: int  # of them at most, without what is equal in the files that it runs
    files: list[PlannedFile]
    count: int
    online: int
    names: list[str]  # at most 20


class PlannedCanaries(TypedDict):
    """How many whole nodes of the daemon's own region are in the share of a weight"""

    weight: int
    count: int
    of: int


class RolloutPlanned(TypedDict):
    """rollout.plan {spec}: nothing is started"""

    model: str
    rollout: str
    generation: int
    release: ReleaseRef
    predecessor: ReleaseRef | None
    objections: list[str]  # why starting it now would be refused
    stages: list[PlannedStage]  # in order
    freeze: list[str]  # windows in which nothing begins or rises
    regions: list[PlannedRegion]
    keeps: list[ReleaseRef]  # what stays on the disk of every node to go back to
    canaries: list[PlannedCanaries]  # empty where every node takes its share of the requests
    nodes: list[PlannedNodes]  # the largest group first


class Missing(TypedDict):
    """`have` of `needed`, where it is a matter of quantity"""

    reason: str
    text: str
    have: float | None
    needed: float | None


class NextState(TypedDict):
    state: str  # "" once nothing follows
    step: str  # of the plan, such as "setWeight 50"
    with_next_tick: bool  # False: once nothing is missing


class ExplainedMetric(MetricReading):
    """E-values beside their logarithms, and where each arm's rate lies: 95 %, at every look"""

    e_harm: float
    e_proof: float | None
    e_needed: float
    interval_trial: list[float]  # lowest and highest
    interval_stable: list[float] | None


class TogetherMetric(TypedDict):
    """What several regions show together, without the most that any few others say"""

    metric: str
    regions: int  # our own included
    e_harm: float
    e_needed: float


class Unreached(TypedDict):
    node: str
    seen_s: float
    online: bool


class ExplainedRegion(TypedDict):
    region: str
    stage: str
    state: str
    step: str
    weight: int | None
    since_s: float | None  # in this state, without the time held; None for other regions
    verdict: str
    reason: str
    missing: list[Missing]  # what stops it first stands first; of other regions their word alone
    next: NextState | None  # None for other regions
    metrics: list[ExplainedMetric]
    together: list[TogetherMetric]  # own region, once another one was heard
    unreached: list[Unreached]  # after a rollback; own region, at most 20
    rests_on: str
    age_s: float | None
    event: str | None  # the region's last report


class RolloutExplained(TypedDict):
    """rollout.explain {rollout, model?, region?}"""

    model: str
    rollout: str
    generation: int
    release: ReleaseRef
    predecessor: ReleaseRef | None
    superseded_by: str | None
    regions: list[ExplainedRegion]  # in the order of the plan
