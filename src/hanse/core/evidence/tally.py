"""The evidence of one step so far: for every metric its two processes and its plain totals.

Frozen and made of integers, so it can be stored, digested and read back bit for bit. The hypotheses
are not part of the state: they come from the metrics of the signed spec.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from hanse.core.errors import Conflict, NotFound, Rejected
from hanse.core.evidence.metrics import TESTS, Metric, Process, Setting, totals
from hanse.core.evidence.ratio import Arms
from hanse.core.evidence.window import Window

NOTHING: Final = Arms(0, 0, 0, 0)
NO_SETTING: Final = Setting()


@dataclass(frozen=True, slots=True)
class MetricEvidence:
    metric: Metric
    harm: Process
    proof: Process | None
    totals: Arms = NOTHING

    def observe(self, window: Window) -> Self:
        sample = TESTS[self.metric.test].sample(self.metric, window)
        return replace(
            self,
            harm=self.harm.observe(sample),
            proof=self.proof.observe(sample) if self.proof else None,
            totals=self.totals + totals(self.metric, window),
        )

    def counted(self, arms: Arms) -> Self:
        return replace(
            self,
            harm=self.harm.observe(arms),
            proof=self.proof.observe(arms) if self.proof else None,
            totals=self.totals + arms,
        )

    def encode(self) -> dict[str, object]:
        return {
            "harm": self.harm.encode(),
            "proof": self.proof.encode() if self.proof else None,
            "totals": [*self.totals.bad, *self.totals.exposed],
        }

    def decoded(self, state: object) -> Self:
        if not isinstance(state, Mapping) or set(state) != {"harm", "proof", "totals"}:
            raise Rejected(f"the stored evidence of metric {self.metric.name} is malformed")
        counts = state["totals"]
        if not _counts(counts, 4) or (state["proof"] is None) != (self.proof is None):
            raise Rejected(f"the stored evidence of metric {self.metric.name} is malformed")
        return replace(
            self,
            harm=self.harm.decoded(state["harm"]),
            proof=self.proof.decoded(state["proof"]) if self.proof else None,
            totals=Arms(*counts),
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """All evidence of one (rollout, region, step) since its arms last changed.

    `requests` counts what the trial arm answered.
    """

    rows: tuple[MetricEvidence, ...] = ()
    windows: int = 0
    requests: int = 0

    @classmethod
    def fresh(cls, metrics: Iterable[Metric], setting: Setting = NO_SETTING) -> Self:
        return cls(tuple(_fresh_row(metric, setting) for metric in metrics))

    def observe(self, window: Window) -> Self:
        return replace(
            self,
            rows=tuple(row.observe(window) for row in self.rows),
            windows=self.windows + 1,
            requests=self.requests + window.trial.requests,
        )

    def declare(self, counts: Mapping[str, Arms]) -> Self:
        """Add what others than nodes counted, by metric."""
        return replace(
            self,
            rows=tuple(
                row.counted(counts[row.metric.name]) if row.metric.name in counts else row
                for row in self.rows
            ),
        )

    def row(self, name: str) -> MetricEvidence:
        for row in self.rows:
            if row.metric.name == name:
                return row
        raise NotFound(f"no evidence is kept for metric {name!r}")

    def encode(self) -> dict[str, object]:
        return {
            "metrics": {row.metric.name: row.encode() for row in self.rows},
            "requests": self.requests,
            "windows": self.windows,
        }

    @classmethod
    def decode(
        cls, state: object, metrics: Iterable[Metric], setting: Setting = NO_SETTING
    ) -> Self:
        """Read stored evidence of exactly these metrics. Raises `Rejected`, `Conflict`."""
        if not isinstance(state, Mapping) or set(state) != {"metrics", "requests", "windows"}:
            raise Rejected("stored evidence is malformed")
        rows, empty = state["metrics"], cls.fresh(metrics, setting)
        if not isinstance(rows, Mapping) or not _counts([state["requests"], state["windows"]], 2):
            raise Rejected("stored evidence is malformed")
        if set(rows) != {row.metric.name for row in empty.rows}:
            raise Conflict("stored evidence is of other metrics than the spec names")
        return cls(
            tuple(row.decoded(rows[row.metric.name]) for row in empty.rows),
            state["windows"],
            state["requests"],
        )


def _fresh_row(metric: Metric, setting: Setting) -> MetricEvidence:
    test = TESTS[metric.test]
    proof = None if metric.proven_below is None else test.proof(metric.proven_below)
    return MetricEvidence(metric, test.harm(metric, setting), proof)


def _counts(values: object, length: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == length
        and all(type(value) is int and value >= 0 for value in values)
    )
