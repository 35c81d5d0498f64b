"""What of the facts is final, as the fold sees it.

A word of another region's daemon is acted upon in three places only, and there it must be
final, or its author could show each region another history: a release or plan that it
recorded, its attestation that a release is healthy, and its hold where holds of many regions
add up to a quarantine. Where the policy in force asks for no witnesses, everything counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hanse.core.catalog.facts import Record
from hanse.core.events import Healthy, Hold, ReleaseRecord, RolloutIntent
from hanse.core.ids import Origin

WITNESSED = (ReleaseRecord, RolloutIntent, Healthy, Hold)
"""Events whose finality the fold looks at."""


@dataclass(frozen=True, slots=True)
class Finals:
    """How far each log is final, and whether that matters."""

    required: bool = False
    sizes: Mapping[Origin, int] = field(default_factory=dict)
    unwitnessed: Collection[int] = ()
    """Trust versions whose policy asked for no witnesses."""

    def covers(self, record: Record) -> bool:
        return not self.required or record.event.header.seq < self.sizes.get(record.origin, 0)

    def bars(self, hold: Record) -> bool:
        """Whether a hold adds to a quarantine. It never ceases to, whatever policy comes."""
        return self.covers(hold) or hold.event.header.trust_version in self.unwitnessed


EVERYTHING = Finals()
