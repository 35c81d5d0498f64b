"""What one region knows at one tick. The driver and the fold fill it in; nothing here is a guess.

Reports, holds and bars come from verified events only. Ages are measured on the local monotonic
clock: no decision compares clocks of two machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hanse.core.evidence.drift import Reference
from hanse.core.evidence.ratio import Arms
from hanse.core.evidence.window import Window
from hanse.core.rollout.table import State


@dataclass(frozen=True, slots=True)
class Nodes:
    """Counts over the nodes that are online and can run the release.

    A node that is absent, or that no variant fits, is neither success nor failure.
    """

    online: int = 0
    weight_percent: int = 0
    """The asked weight that `confirmed` is about."""
    confirmed: int = 0
    """Nodes that report serving at exactly this weight."""
    ready: int = 0
    """Nodes that have the release loaded."""
    failing: int = 0
    """Online nodes that could not load or run the release."""
    silent: int = 0
    """Nodes that took the release and were not heard for longer than the plan allows."""
    on_target: int = 0
    """Nodes whose running digest is the rollback target."""
    whole: int | None = None
    """Nodes that answer with the release alone at this weight; None: all give it a share."""
    against: tuple[str, ...] = ()
    """Names of those that fail or fell silent, a few of them."""
    unable: int = 0
    """Nodes that are online and counted nowhere else: no variant of the release fits them."""


@dataclass(frozen=True, slots=True)
class Facts:
    reports: Mapping[str, State] = field(default_factory=dict)
    """Latest verified state of other regions for this (rollout, generation)."""
    heard_age_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds since each region was last heard; a region that is missing was never heard."""
    attested_age_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds since regions attested this plan healthy, by their clock and ours: for `maxAge`."""
    barred: bool = False
    """The release is killed or effectively quarantined."""
    held_here: bool = False
    """A signed hold of this region on the release stands."""
    held_elsewhere: tuple[str, ...] = ()
    """Regions whose signed hold on the release stands."""
    frozen: bool = False
    """A freeze on the model or on this region stands."""
    no_room: bool = False
    """The disk of this daemon is nearly full."""
    paused: bool = False
    aborted: bool = False
    resumed: bool = False
    """True for the one tick after an operator said to go on: lifts what only people may lift."""
    superseded: bool = False
    """A rollout of the same model with a higher (generation, digest) is known."""
    barriers: tuple[tuple[str, str], ...] = ()
    """Why no start, raise or promotion may be made now: a reason code and a sentence each."""
    unheard: Mapping[str, str] = field(default_factory=dict)
    """Regions whose attestation is not final yet, and what it waits for."""
    approvals: tuple[tuple[str, int, str, int], ...] = ()
    """Approve steps of this very plan that people signed: stage, step, role, how many."""
    prefetched: bool = False
    """Release and rollback target are both local, verified and pinned."""
    way_back: bool = False
    """Another release is there for this region's nodes to go back to."""
    nodes: Nodes = Nodes()
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Metrics that the regions together show to be harmful, with the evidence for it."""
    references: Mapping[str, Reference] = field(default_factory=dict)
    """The profile that the release was signed with, by series."""
    declared: Mapping[str, Arms] = field(default_factory=dict)
    """By metric, what Prometheus counted of users' requests since the last tick."""
    gap: tuple[str, str] | None = None
    """A reason and a sentence if it counted nothing for too long."""
    windows: tuple[Window, ...] = ()
    """Telemetry since the last tick. None at all is an outage; windows of zeros are no traffic."""
