"""What the verbs of the control socket that look at something answer, key by key.

The daemon fills these mappings, a test holds it to them, and the command line shows them;
`-o json` prints them whole. What a verb that changes something answers is shown as it comes.
Every key is always present; `None` is "not known here", never "zero". Times `*_ms` are Unix
milliseconds, ages `*_s` are seconds by the daemon's own clock. Lists whose order matters say so.
A number that somebody will act on stands with its n and its age.

Digests are `sha256:…`; events are `ev_<12 hex digits>` for reading, and 64 hex digits where a
field says `hex`, because that is what a signed statement about an event names.
"""

from __future__ import annotations

from typing import TypedDict

REGION_STATES = (
    "failing",  # the active release is barred, a rollout shows harm, or nodes report errors
    "conflict",  # two activations stand in the region
    "rolling-back",
    "held",  # a rollout of this model is held, or the rollout's release is
    "degraded",  # some online nodes do not run what the region assigned
    "unknown",  # nothing heard for longer than is trusted
    "frozen",
    "rolling-out",
    "rolled-back",
    "healthy",
    "empty",  # no release is active
)
"""Worst first. A model's state is the worst of its regions'."""

UNHEALTHY = ("failing", "conflict", "rolling-back", "held", "degraded")
"""States for which `hanse status` exits with 3."""


class ReleaseRef(TypedDict):
    release: str  # digest
    version: str


class Nodes(TypedDict):
    """k of n nodes. `offline` are known, not counted in `of`, and named in `offline_names`."""

    on_target: int  # run what the region assigned
    cached: int  # hold the rollback target warm; 0 where there is none
    of: int  # online, and able to run it
    unable: int  # online, and no variant of it fits them
    offline: int
    offline_names: list[str]  # at most 20
    age_s: float | None  # of the oldest report counted


class Quality(TypedDict):
    """The latest rate of one thing going wrong, over the active release."""

    metric: str  # error-rate | slow-rate | wrong-rate
    bad: int
    n: int
    age_s: float | None


class RegionStatus(TypedDict):
    region: str
    state: str  # one of REGION_STATES
    since_ms: int | None
    active: ReleaseRef | None
    nodes: Nodes | None  # None for other regions: their nodes are not known here
    quality: Quality | None
    rollout: str | None  # running here, or held
    reason: str  # one sentence, empty if there is nothing to say
    heard_s: float | None  # age of the last word from that region; 0 for our own


class ModelStatus(TypedDict):
    model: str
    state: str
    sentence: str  # "ocr-rec 4.0.0 FAILING ap-south af-south since 03:02 | last good 3.0.0, …"
    last_good: ReleaseRef | None  # what a rollback in this region goes to
    regions: list[RegionStatus]  # worst first, then by name


class Peers(TypedDict):
    connected: int
    of: int  # other members of the trust file
    oldest_s: float | None  # longest silence among the regions, seconds


class DiskStatus(TypedDict):
    level: str  # enough | low (nothing new is begun) | full (and no events of others are taken)
    free_bytes: int
    total_bytes: int
    reserve_kept: bool  # False: it was given up so that something could be written, or is 0


class DaemonStatus(TypedDict):
    federation: str
    region: str
    member: str
    origin: str
    address: str
    trust_version: int
    trust_stale: str  # why trust stops forward moves, or soon will; empty if it does not
    log_size: int
    final_size: int  # how much of it is final
    phase: str  # recovering | writing | rivalled
    why: str  # why it does not write, or what the next event opens a new incarnation for
    fix: str
    state_digest: str  # equal on all daemons with equal events
    waits: list[str]  # why no rollout moves forward in this region, a sentence each
    started_ms: int
    disk: DiskStatus | None  # None until it was measured
    damage: list[DamageStatus]  # what was found damaged in the blob store, the newest first
    version: str  # of the program


class DamageStatus(TypedDict):
    """A file of the blob store that was not what it had been."""

    digest: str
    what: str  # the file, or what is kept beside it
    at_ms: int
    healed: bool  # whole again


class MemberStatus(TypedDict):
    """What a daemon said of itself last, signed by it."""

    member: str
    region: str
    said_s: float
    nodes_online: int | None
    nodes_known: int | None
    differs: bool  # computed another state than ours from the same logs


class LogStatus(TypedDict):
    """A log that does not go on here."""

    log: str  # its origin, or the member that two processes speak for
    region: str
    state: str  # stalled | frozen | cut | doubled
    reason: str
    fix: str


class Status(TypedDict):
    """status {model?}"""

    at_ms: int
    daemon: DaemonStatus
    peers: Peers
    members: list[MemberStatus]  # those who have spoken, by id
    logs: list[LogStatus]  # by origin; empty when all is well
    models: list[ModelStatus]  # worst first, then by name
    fetching: list[Fetching]  # files that are on their way here
    counters: dict[str, int]  # how often each limit has bitten since the start


class Fetching(TypedDict):
    """One file on its way; also in the status of a node."""

    release: str
    file: str
    bytes: int  # that are here
    of: int
    bytes_per_s: int  # from peers, since it began
    # and "from": list[str], the peers that were asked


class Counters(TypedDict):
    """counters {}"""

    counters: dict[str, int]


class ReleaseRow(TypedDict):
    model: str
    release: str
    version: str
    counter: int
    state: str  # killed | quarantined | held | proven | recorded
    proven: list[str]  # regions
    held: list[str]
    active: list[str]  # regions in which it is active
    size: int  # bytes of all files
    parents: list[str]  # digests
    by: str  # name of the person who signed it
    recorded_by: str  # region
    event: str
    at_ms: int
    local: bool  # every file is in this daemon's blob store


class ReleaseList(TypedDict):
    """release.list {model?}"""

    releases: list[ReleaseRow]  # by model, newest counter first


class ReleaseShown(ReleaseRow):
    """release.show {model, version | release}

    `manifest` is the canonical text, `envelope` the publisher's DSSE text: both as signed.
    A version that names several releases is a `Conflict` whose fix lists their digests.
    """

    manifest: str
    envelope: str
    trust_version: int  # of the event
    parent_versions: dict[str, str]  # by digest; empty: not known here


class Prepared(TypedDict):
    """release.prepare {model}: the counter that the next release must carry."""

    counter: int


class RolloutPrepared(TypedDict):
    """rollout.prepare {model, version | release, regions?}: regions as a text, with commas"""

    release: str
    version: str
    predecessor: str | None  # digest that is active in most of the regions now
    generation: int  # one above the highest known
    regions: list[str]  # of the whole federation
    labels: dict[str, dict[str, str]]  # of each region
    trust: int  # the trust version that they are of
    under_way: str | None  # the rollout that a new one would cancel


class Linted(TypedDict):
    """One file of `hanse rollout lint`; made by the command line itself"""

    file: str
    stages: int
    problem: str | None  # with file and line


class MetricReading(TypedDict):
    """One metric as judged last. Log e-values: harm when `harm` reaches `needed`."""

    metric: str
    test: str  # ratio | paired | one-arm
    bad_trial: int
    n_trial: int
    bad_stable: int | None
    n_stable: int | None
    harm: float
    proof: float | None
    needed: float
    dry_run: bool
    text: str


class RolloutRegion(TypedDict):
    region: str
    stage: str
    state: str  # of the rollout machine: pending, gated, … healthy, rolledBack
    step: str  # "3/5 setWeight 25" or ""
    weight: int | None  # percent now, None for other regions
    verdict: str  # healthy | harm | inconclusive | ""
    reason: str
    nodes: Nodes | None
    metrics: list[MetricReading]
    age_s: float | None  # of the counts, or of the region's last report


class Moment(TypedDict):
    at_ms: int
    region: str
    event: str
    what: str  # one sentence


class RolloutStatus(TypedDict):
    model: str
    rollout: str
    generation: int
    release: ReleaseRef
    predecessor: ReleaseRef | None
    state: str  # running | paused | held | healthy | rolled-back | aborted | superseded
    current: bool
    regions: list[RolloutRegion]  # in the order of the plan
    timeline: list[Moment]  # oldest first


class RolloutStatuses(TypedDict):
    """rollout.status {model?, rollout?}: current ones; with `rollout` that one, of any age."""

    rollouts: list[RolloutStatus]  # running first, then newest


class Approvable(TypedDict):
    """rollout.awaiting {model, rollout?, stage?}; the same is asked of rollout.approve.

    `envelope` there is a DSSE text over approval_statement(model, spec, stage, step).
    """

    model: str
    rollout: str
    spec: str
    stage: str
    step: int
    role: str
    count: int


class HoldRow(TypedDict):
    """holds {model}: those that stand in this daemon's own region, oldest first."""

    hold: str  # hex
    event: str
    release: ReleaseRef | None  # None: the model is frozen
    reason: str
    until_ms: int | None
    at_ms: int


class Holds(TypedDict):
    holds: list[HoldRow]


class LineageParent(TypedDict):
    release: str
    relation: str


class LineageNode(TypedDict):
    release: str
    version: str  # "" for a parent that was never recorded here
    counter: int
    parents: list[LineageParent]
    regions: dict[str, str]  # region -> active | canary | held | proven
    training_data: list[str]  # name, or name=sha256:…
    residency: list[str]  # regions that release and trust let hold its files, or *
    barred: bool
    retired: str  # deprecated | retired | empty
    proven: list[str]
    by: str


class LineageEdge(TypedDict):
    child: str
    parent: str
    relation: str


class Lineage(TypedDict):
    """lineage {model, version? | release?}: with one of them its ancestors and descendants."""

    model: str
    nodes: list[LineageNode]  # parents before children
    edges: list[LineageEdge]


class Why(TypedDict):
    """why {model, version?, region?}: without a version, of the latest that went wrong."""

    model: str
    version: str
    release: str
    region: str
    sentences: list[str]  # the answer first, then what it rests on
    metrics: list[MetricReading]  # that decided
    timeline: list[Moment]  # oldest first
