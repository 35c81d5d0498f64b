"""What the machine asks the driver to do, in this order, after the new progress is stored.

All are statements of what shall be, not increments: carrying one out twice changes nothing, so
after a crash the driver repeats the last ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from hanse.core.ids import Digest
from hanse.core.rollout.table import State


@dataclass(frozen=True, slots=True)
class SetTraffic:
    weight_percent: int
    shadow_percent: int


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Bring the release and the rollback target into the region and pin both."""


@dataclass(frozen=True, slots=True)
class Attest:
    """Sign what was found, with the digest of the evidence it rests on.

    Harm: SHA-256 of the evidence in the report made in the same tick. Health: SHA-256 of the JSON
    list of the digests of the evidence with which each analysis step passed, in order.
    """

    healthy: bool
    evidence: Digest


@dataclass(frozen=True, slots=True)
class Hold:
    """Sign a hold on the release, so that other regions stop too."""

    reason: str


@dataclass(frozen=True, slots=True)
class Promote:
    """Make the release the stable one of this region."""


@dataclass(frozen=True, slots=True)
class RollBack:
    """Return every node to the pinned target; done only when their digests say so."""

    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """Sign where this region stands. Made only when the state or the step changed."""

    state: State
    stage: int
    step: int
    verdict: str
    reason: str
    why: str
    evidence: bytes
    """Canonical JSON of the evidence this rests on: integers that anybody can re-judge."""


Action = SetTraffic | Prefetch | Attest | Hold | Promote | RollBack | Report
