"""What the evidence says: healthy, harm or inconclusive, and why in one sentence.

Inconclusive is an answer of its own: it never promotes and never rolls back. Nothing observed is
inconclusive, whatever the metrics ask for. A dry-run metric is shown and changes nothing.

- harm: any deciding metric shows harm at alpha;
- healthy: enough samples, every deciding metric has data and, where asked, its proof at alpha;
- else inconclusive, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from hanse.core.evidence.grid import log_threshold
from hanse.core.evidence.metrics import TESTS, Metric, unit
from hanse.core.evidence.ratio import Arms
from hanse.core.evidence.tally import Evidence, MetricEvidence


class Kind(StrEnum):
    HEALTHY = "healthy"
    HARM = "harm"
    INCONCLUSIVE = "inconclusive"


class Reason(StrEnum):
    """Why the verdict is what it is; the spelling that records and reports carry."""

    PROVEN = "proven"
    WORSE = "worse"
    NO_TRAFFIC = "noTraffic"
    NOT_ENOUGH_SAMPLES = "notEnoughSamples"
    TELEMETRY_GAP = "telemetryGap"
    UNDECIDED = "undecided"
    ONE_NODE = "oneNode"
    """Harm that shows with the word of one node alone, or only without it: see `voices`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric at the moment of judging: the numbers that were used."""

    metric: str
    counts: Arms
    harm_log_e: float
    proof_log_e: float | None
    """None where the spec asks for no positive proof (`provenBelow: none`)."""
    needed_log_e: float
    harmful: bool
    proven: bool
    dry_run: bool
    text: str
    """The counts in words, such as `trial 30 of 1000, stable 27 of 9000`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    kind: Kind
    reason: Reason
    why: str
    readings: tuple[Reading, ...] = ()
    on_fail: str | None = None
    """For harm only: `rollback` or `hold`, the strongest that a harmful metric asks for."""


def inconclusive(reason: Reason, why: str, readings: tuple[Reading, ...] = ()) -> Verdict:
    return Verdict(Kind.INCONCLUSIVE, reason, why, readings)


def judge(
    evidence: Evidence, metrics: Iterable[Metric], alpha: float, samples_min: int = 0
) -> Verdict:
    """The verdict over these metrics. `alpha` is already split; `samples_min` are trial requests.

    Raises `NotFound` for a metric that the evidence does not carry.
    """
    rows = [evidence.row(metric.name) for metric in metrics]
    readings = tuple(_read(row, alpha) for row in rows)
    deciding = [
        (row, reading) for row, reading in zip(rows, readings, strict=True) if not reading.dry_run
    ]
    harmful = [(row.metric, reading) for row, reading in deciding if reading.harmful]
    if harmful:
        return _harm(harmful, readings)
    if not evidence.requests:
        return inconclusive(Reason.NO_TRAFFIC, "the trial has answered no request yet", readings)
    if evidence.requests < samples_min:
        why = f"{evidence.requests} of {samples_min} required requests"
        return inconclusive(Reason.NOT_ENOUGH_SAMPLES, why, readings)
    empty = [reading.text for row, reading in deciding if not _has_data(row)]
    if empty:
        return inconclusive(Reason.NOT_ENOUGH_SAMPLES, f"no data for {'; '.join(empty)}", readings)
    unproven = [reading.text for _, reading in deciding if not reading.proven]
    if unproven or not deciding:
        why = "; ".join(unproven) or "every metric is a dry run, so none decides"
        return inconclusive(Reason.UNDECIDED, why, readings)
    why = f"no harm, and everything asked for is proven: {'; '.join(r.text for _, r in deciding)}"
    return Verdict(Kind.HEALTHY, Reason.PROVEN, why, readings)


def _harm(harmful: list[tuple[Metric, Reading]], readings: tuple[Reading, ...]) -> Verdict:
    on_fail = "rollback" if any(m.on_fail == "rollback" for m, _ in harmful) else "hold"
    why = "; ".join(reading.text for _, reading in harmful)
    return Verdict(Kind.HARM, Reason.WORSE, why, readings, on_fail)


def _has_data(row: MetricEvidence) -> bool:
    needs_control = TESTS[row.metric.test].needs_control
    return row.totals.n_t > 0 and (row.totals.n_c > 0 or not needs_control)


def _read(row: MetricEvidence, alpha: float) -> Reading:
    harm_log_e = row.harm.log_e()
    proof_log_e = row.proof.log_e() if row.proof else None
    needed = log_threshold(alpha)
    return Reading(
        metric=row.metric.name,
        counts=row.totals,
        harm_log_e=harm_log_e,
        proof_log_e=proof_log_e,
        needed_log_e=needed,
        harmful=row.harm.rejects(alpha),
        proven=row.proof.rejects(alpha) if row.proof else True,
        dry_run=row.metric.dry_run,
        text=_text(row, harm_log_e, proof_log_e, needed),
    )


def _text(row: MetricEvidence, harm: float, proof: float | None, needed: float) -> str:
    """Such as `error-rate: trial 30 of 1000, stable 27 of 9000 requests; harm 12.3, …`."""
    metric, totals = row.metric, row.totals
    counts = f"trial {totals.bad_t} of {totals.n_t}"
    if TESTS[metric.test].needs_control:
        counts += f", stable {totals.bad_c} of {totals.n_c}"
    proof_text = "no proof asked" if proof is None else f"proof {proof:.1f}"
    said = f"harm {harm:.1f}, {proof_text}, needed {needed:.1f}"
    return f"{metric.name}: {counts} {unit(metric)}; {said}"
