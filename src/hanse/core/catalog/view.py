"""What everybody agrees on about one model, computed from its facts alone.

A view holds no clock, no arrival order and no local opinion: two daemons with the same
valid events have equal views and so equal digests (I1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hanse.core.catalog.manifest import Manifest
from hanse.core.ids import Digest, EventId, Origin, Segment, Version
from hanse.core.reading import canonical_json
from hanse.core.rollout.plan import RolloutSpec


@dataclass(frozen=True, slots=True)
class Release:
    """A release as recorded. `proven` lists the regions that attested it healthy.

    `final` says whether one of its records is, and `logs` where they stand; `proven_final`
    lists the regions whose attestation is.
    """

    digest: Digest
    version: Version
    counter: int
    manifest: Manifest
    manifest_size: int
    recorded: EventId
    recorded_by: str
    proven: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    killed: bool = False
    quarantined: bool = False
    final: bool = True
    logs: tuple[Origin, ...] = ()
    proven_final: tuple[str, ...] = ()
    retired: str = ""  # deprecated | retired: nobody starts it or goes back to it

    def usable(self, region: str) -> bool:
        """Whether a region may act on its record: its own word, or one that is final."""
        return self.final or region in {log.region for log in self.logs}

    def fit(self, region: str) -> bool:
        """Whether a region may fall back to it, as far as records and proofs go."""
        return self.usable(region) and (region in self.proven or bool(self.proven_final))

    @property
    def barred(self) -> bool:
        """Neither start, nor grow, nor fall back to it. A hold anywhere is enough."""
        return self.killed or self.quarantined or bool(self.held) or self.retired == "retired"

    @property
    def state(self) -> str:
        if self.killed:
            return "killed"
        if self.quarantined:
            return "quarantined"
        if self.held:
            return "held"
        if self.retired:
            return self.retired
        return "proven" if self.proven else "recorded"


@dataclass(frozen=True, slots=True)
class Activation:
    """One promote or rollback that stands in a region."""

    id: EventId
    region: Segment
    release: Digest
    by: str
    cause: str  # promote | rollback
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HoldView:
    """A hold that nobody has lifted. Without a release it freezes the model there."""

    id: EventId
    region: Segment
    release: Digest | None
    reason: str
    rollout: str
    generation: int
    expires_ms: int
    log: Origin | None = None  # whose daemon said so


@dataclass(frozen=True, slots=True)
class ReportView:
    region: Segment
    state: str
    stage: int
    step: int
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A signed plan and where each region stands. `current`: none of higher rank exists."""

    id: EventId
    rollout: Segment
    generation: int
    release: Digest
    predecessor: Digest | None
    spec: bytes
    spec_digest: Digest
    plan: RolloutSpec
    current: bool
    paused: tuple[str, ...] = ()  # regions, or * for all
    aborted: tuple[str, ...] = ()
    healthy: tuple[str, ...] = ()  # regions that attested exactly this plan's success
    reports: tuple[ReportView, ...] = ()
    final: bool = True
    logs: tuple[Origin, ...] = ()  # where the plan is recorded
    waiting: tuple[tuple[Segment, Origin], ...] = ()  # those of `healthy` that are not final
    approvals: tuple[tuple[Segment, int, str, int], ...] = ()  # stage, step, role, people
    mandated: bool = False  # a daemon started it, under a mandate

    def usable(self, region: str) -> bool:
        """Whether a region may act on this plan: recorded by itself, or final."""
        return self.final or region in {log.region for log in self.logs}

    def attested(self, by: str, reader: str) -> bool:
        """Whether `reader` may count on the attestation of region `by`."""
        return by in self.healthy and (by == reader or by not in dict(self.waiting))

    def says(self, regions: tuple[str, ...], region: str) -> bool:
        return "*" in regions or region in regions


@dataclass(frozen=True, slots=True)
class HealingView:
    """A region asked for a better model than `release`; `outcome` is empty while it waits."""

    id: EventId
    log: Origin
    region: Segment
    release: Digest
    hold: EventId
    cause: str
    reason: str = ""
    outcome: str = ""
    child: Digest | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class ModelView:
    model: Segment
    floor: int
    releases: tuple[Release, ...]  # by (counter, digest)
    heads: tuple[Activation, ...]  # by (region, event); two of one region are a conflict
    holds: tuple[HoldView, ...]
    rollouts: tuple[RolloutView, ...]  # by (generation, spec digest)
    healings: tuple[HealingView, ...] = ()  # in the order of their events

    def release(self, digest: Digest) -> Release | None:
        return next((r for r in self.releases if r.digest == digest), None)

    def versions(self, version: str) -> tuple[Release, ...]:
        return tuple(r for r in self.releases if r.version == version)

    def active(self, region: str) -> Activation | None:
        """The preferred head: the lowest event id key, never a hash or a time."""
        return next((a for a in self.heads if a.region == region), None)

    def conflicts(self) -> tuple[str, ...]:
        regions = [a.region for a in self.heads]
        return tuple(sorted({r for r in regions if regions.count(r) > 1}))

    def current_rollout(self) -> RolloutView | None:
        return self.rollouts[-1] if self.rollouts else None

    @property
    def generation(self) -> int:
        """The highest that any plan of it has; 0 without one."""
        return max((r.generation for r in self.rollouts), default=0)

    @property
    def signed_generation(self) -> int:
        """The highest of those that people have signed."""
        return max((r.generation for r in self.rollouts if not r.mandated), default=0)

    def frozen(self, region: str) -> HoldView | None:
        return next((h for h in self.holds if h.release is None and h.region == region), None)

    def to_mapping(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "floor": self.floor,
            "releases": [_release(r) for r in self.releases],
            "heads": [
                {
                    "event": a.id.raw.hex(),
                    "region": a.region,
                    "release": str(a.release),
                    "cause": a.cause,
                }
                for a in self.heads
            ],
            "holds": [
                {
                    "event": h.id.raw.hex(),
                    "region": h.region,
                    "release": str(h.release) if h.release else None,
                    "reason": h.reason,
                }
                for h in self.holds
            ],
            "rollouts": [_rollout(r) for r in self.rollouts],
            "healings": [
                {
                    "event": h.id.raw.hex(),
                    "outcome": h.outcome,
                    "release": str(h.child) if h.child else None,
                }
                for h in self.healings
            ],
        }

    def encode(self) -> bytes:
        return canonical_json(self.to_mapping())


def _release(release: Release) -> dict[str, Any]:
    return {
        "release": str(release.digest),
        "version": release.version,
        "counter": release.counter,
        "state": release.state,
        "final": release.final,
        "proven": list(release.proven),
        "proven_final": list(release.proven_final),
        "held": list(release.held),
        "retired": release.retired,
        "parents": [str(p.release) for p in release.manifest.parents],
    }


def _rollout(rollout: RolloutView) -> dict[str, Any]:
    return {
        "event": rollout.id.raw.hex(),
        "rollout": rollout.rollout,
        "generation": rollout.generation,
        "release": str(rollout.release),
        "spec": str(rollout.spec_digest),
        "current": rollout.current,
        "paused": list(rollout.paused),
        "aborted": list(rollout.aborted),
        "final": rollout.final,
        "mandated": rollout.mandated,
        "healthy": list(rollout.healthy),
        "waiting": [region for region, _ in rollout.waiting],
        "approvals": [list(approval) for approval in rollout.approvals],
        "reports": {
            r.region: [r.state, r.stage, r.step, r.verdict, r.reason] for r in rollout.reports
        },
    }
