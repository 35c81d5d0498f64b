"""From windows to verdicts: nothing observed is never healthy, a dry run never decides."""

from __future__ import annotations

import json

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from hanse.core.errors import Conflict, NotFound, Rejected
from hanse.core.evidence.difference import LEVELS, level
from hanse.core.evidence.drift import Reference
from hanse.core.evidence.metrics import Metric, Setting
from hanse.core.evidence.ratio import Arms
from hanse.core.evidence.tally import Evidence
from hanse.core.evidence.verdict import Kind, Reason, judge
from hanse.core.evidence.window import ArmCounts, PairCounts, Trial, Window

ERRORS = Metric("error-rate", "ratio", "error", margin=1.25, proven_below=2.0)
SLOW = Metric("latency", "ratio", "slow", margin=1.5, proven_below=3.0, on_fail="hold")
PAIRS = Metric("accuracy", "paired", "wrong-pair", proven_below=2.0)
BUDGET = Metric("agreement", "one-arm", "disagree", slo=0.05, proven_below=0.05)
UNPROVEN = Metric("rare", "ratio", "error", margin=2.0)
ALPHA = 0.01


def canary(requests: int, errors: int = 0, slow: int = 0, *, labelled: int = 0) -> Window:
    stable = ArmCounts(9 * requests, requests // 11, requests // 11, labelled)
    return Window(Trial.CANARY, ArmCounts(requests, errors, slow, labelled), stable)


def shadow(**pairs: int) -> Window:
    counts = PairCounts(**pairs)
    seen = ArmCounts(max(counts.compared, counts.labelled))
    return Window(Trial.SHADOW, seen, seen, counts)


def verdict_of(metrics: list[Metric], *windows: Window, samples_min: int = 0):  # type: ignore[no-untyped-def]  # short helper
    evidence = Evidence.fresh(metrics)
    for window in windows:
        evidence = evidence.observe(window)
    return judge(evidence, metrics, ALPHA, samples_min)


def test_nothing_observed_is_no_traffic() -> None:
    for metrics in ([ERRORS], [UNPROVEN], [BUDGET], []):
        verdict = verdict_of(metrics)
        assert (verdict.kind, verdict.reason) == (Kind.INCONCLUSIVE, Reason.NO_TRAFFIC)
        assert verdict_of(metrics, Window(Trial.CANARY)).reason is Reason.NO_TRAFFIC


def test_equal_arms_are_proven_healthy() -> None:
    verdict = verdict_of([ERRORS, SLOW], *[canary(1000, 9, 9)] * 10)
    assert (verdict.kind, verdict.reason) == (Kind.HEALTHY, Reason.PROVEN)
    assert verdict.readings[0].counts == Arms(90, 900, 10_000, 90_000)
    assert verdict.readings[0].proof_log_e is not None
    assert verdict.readings[0].proof_log_e >= verdict.readings[0].needed_log_e
    assert "error-rate: trial 90 of 10000, stable 900 of 90000 requests" in verdict.why


def test_harm_names_the_metric_and_the_numbers() -> None:
    verdict = verdict_of([ERRORS, SLOW], *[canary(1000, 60, 9)] * 3)
    assert (verdict.kind, verdict.reason, verdict.on_fail) == (
        Kind.HARM,
        Reason.WORSE,
        "rollback",
    )
    assert verdict.why.startswith("error-rate: trial 180 of 3000, stable 270 of 27000 requests")


def test_harm_that_only_asks_for_a_hold_asks_for_a_hold() -> None:
    assert verdict_of([ERRORS, SLOW], *[canary(1000, 9, 90)] * 3).on_fail == "hold"
    assert verdict_of([ERRORS, SLOW], *[canary(1000, 60, 90)] * 3).on_fail == "rollback"


def test_too_little_is_undecided_not_healthy() -> None:
    verdict = verdict_of([ERRORS], canary(100, 1))
    assert (verdict.kind, verdict.reason) == (Kind.INCONCLUSIVE, Reason.UNDECIDED)


def test_minimum_samples_hold_back_health_but_not_harm() -> None:
    fine = verdict_of([ERRORS], *[canary(1000, 9)] * 10, samples_min=10_001)
    assert (fine.kind, fine.reason) == (Kind.INCONCLUSIVE, Reason.NOT_ENOUGH_SAMPLES)
    assert verdict_of([ERRORS], canary(1000, 200), samples_min=10_001).kind is Kind.HARM


def test_a_metric_without_data_prevents_health() -> None:
    labels = Metric("accuracy", "ratio", "wrong", margin=1.25)
    windows = [canary(1000, 9)] * 10
    verdict = verdict_of([ERRORS, labels], *windows)
    assert verdict.reason is Reason.NOT_ENOUGH_SAMPLES
    assert "accuracy" in verdict.why
    assert verdict_of([ERRORS, labels], *windows, canary(1, labelled=3)).kind is Kind.HEALTHY


def test_a_comparison_without_a_control_prevents_health() -> None:
    alone = Window(Trial.CANARY, ArmCounts(100_000))
    assert verdict_of([UNPROVEN], alone).reason is Reason.NOT_ENOUGH_SAMPLES


def test_labelled_pairs_find_what_agreement_alone_would_not() -> None:
    bad = shadow(only_trial_wrong=30, only_stable_wrong=3, both_right=300, agree=320, disagree=13)
    verdict = verdict_of([PAIRS, BUDGET], bad)
    assert verdict.kind is Kind.HARM
    assert verdict.why.startswith("accuracy: trial 30 of 333, stable 3 of 333 labelled pairs")


def test_agreement_within_budget_is_proven_without_labels() -> None:
    assert verdict_of([BUDGET], shadow(agree=126)).kind is Kind.HEALTHY
    assert verdict_of([BUDGET], shadow(agree=125)).kind is Kind.INCONCLUSIVE
    assert verdict_of([BUDGET], shadow(agree=100, disagree=30)).kind is Kind.HARM


@given(st.data())
def test_a_dry_run_metric_never_changes_the_verdict(data: st.DataObject) -> None:
    windows = [
        canary(1000, data.draw(st.integers(0, 60)), data.draw(st.integers(0, 200)))
        for _ in range(data.draw(st.integers(0, 6)))
    ]
    dry = Metric("dry", "ratio", "slow", margin=1.0, proven_below=1.5, dry_run=True)
    without, beside = verdict_of([ERRORS], *windows), verdict_of([ERRORS, dry], *windows)
    event(f"{without.kind}, dry run harmful: {beside.readings[1].harmful}")
    assert (beside.kind, beside.reason, beside.on_fail, beside.why) == (
        without.kind,
        without.reason,
        without.on_fail,
        without.why,
    )


def test_only_dry_runs_prove_nothing() -> None:
    dry = Metric("dry", "ratio", "error", margin=1.25, dry_run=True)
    verdict = verdict_of([dry], *[canary(1000, 9)] * 10)
    assert (verdict.kind, verdict.reason) == (Kind.INCONCLUSIVE, Reason.UNDECIDED)


def test_stored_evidence_comes_back_bit_for_bit() -> None:
    metrics = [ERRORS, UNPROVEN, PAIRS, BUDGET]
    evidence = Evidence.fresh(metrics).observe(canary(1000, 7)).observe(shadow(agree=5))
    stored = json.dumps(evidence.encode())
    assert "." not in stored
    assert Evidence.decode(json.loads(stored), metrics) == evidence


def test_evidence_of_other_metrics_or_shapes_is_refused() -> None:
    state = json.loads(json.dumps(Evidence.fresh([ERRORS]).encode()))
    with pytest.raises(Conflict):
        Evidence.decode(state, [SLOW])
    with pytest.raises(Rejected):
        Evidence.decode(state | {"windows": -1}, [ERRORS])
    state["metrics"]["error-rate"]["proof"] = None
    with pytest.raises(Rejected):
        Evidence.decode(state, [ERRORS])
    with pytest.raises(Rejected):
        Evidence.decode([], [ERRORS])


def test_impossible_windows_are_refused() -> None:
    for counts in ({"requests": 1, "errors": 2}, {"labelled": 1, "wrong": 2}, {"requests": -1}):
        with pytest.raises(Rejected):
            ArmCounts(**counts)
    with pytest.raises(Rejected):
        PairCounts(agree=True)


def test_a_metric_that_is_not_kept_is_not_judged() -> None:
    with pytest.raises(NotFound):
        judge(Evidence.fresh([ERRORS]), [SLOW], ALPHA)


SCORE = Metric("score", "difference", "worse-pair", margin=0.0, proven_below=0.05)
SHARES = Metric("shares", "sample-ratio", "share", on_fail="hold")
DRIFT = Metric("drift", "drift", "output:y", on_fail="hold", delta=0.1)
SETTING = Setting(0.10, {"output:y": Reference((500, 500, 500, 500))})


def observed(metric: Metric, *windows: Window) -> Evidence:
    evidence = Evidence.fresh([metric], SETTING)
    for window in windows:
        evidence = evidence.observe(window)
    return evidence


def test_worse_scores_are_harm_and_equal_ones_are_proven() -> None:
    seen = ArmCounts(1000)
    worse = Window(Trial.SHADOW, seen, seen, differences={level(0.5): 500, level(0.0): 500})
    verdict = judge(observed(SCORE, worse), [SCORE], ALPHA)
    assert (verdict.kind, verdict.on_fail) == (Kind.HARM, "rollback")
    assert "trial 500 of 1000, stable 0 of 1000 compared answers" in verdict.why
    # The cell of 0 reaches up to 1/32, which is below the 0.05 to be proven.
    equal = Window(Trial.SHADOW, seen, seen, differences={level(0.0): 20_000})
    assert judge(observed(SCORE, equal), [SCORE], ALPHA).kind is Kind.HEALTHY


def test_an_arm_that_loses_requests_holds() -> None:
    fair = Window(Trial.CANARY, ArmCounts(1000), ArmCounts(9000))
    assert judge(observed(SHARES, fair), [SHARES], ALPHA).kind is Kind.HEALTHY
    lost = Window(Trial.CANARY, ArmCounts(600), ArmCounts(9000))
    verdict = judge(observed(SHARES, lost), [SHARES], ALPHA)
    assert (verdict.kind, verdict.on_fail) == (Kind.HARM, "hold")


def test_a_shadow_that_drops_what_it_should_copy_holds() -> None:
    kept = Window(Trial.SHADOW, ArmCounts(1000), ArmCounts(10_000))
    assert judge(observed(SHARES, kept), [SHARES], ALPHA).kind is Kind.HEALTHY
    dropped = Window(Trial.SHADOW, ArmCounts(500), ArmCounts(10_000))
    assert judge(observed(SHARES, dropped), [SHARES], ALPHA).kind is Kind.HARM


def test_all_traffic_in_one_arm_has_no_shares_to_test() -> None:
    evidence = Evidence.fresh([SHARES], Setting(1.0))
    evidence = evidence.observe(Window(Trial.CANARY, ArmCounts(1000)))
    assert judge(evidence, [SHARES], ALPHA).kind is Kind.HEALTHY


def test_answers_that_moved_from_the_profile_hold() -> None:
    seen = ArmCounts(1000)
    same = Window(Trial.CANARY, seen, seen, series={"output:y": (250, 250, 250, 250)})
    assert judge(observed(DRIFT, same), [DRIFT], ALPHA).kind is Kind.HEALTHY
    moved = Window(Trial.CANARY, seen, seen, series={"output:y": (0, 0, 0, 1000)})
    verdict = judge(observed(DRIFT, moved), [DRIFT], ALPHA)
    assert (verdict.kind, verdict.on_fail) == (Kind.HARM, "hold")
    assert "trial 0 of 1000 values" in verdict.why


def test_a_release_without_that_profile_is_never_called_healthy_by_it() -> None:
    evidence = Evidence.fresh([DRIFT]).observe(Window(Trial.CANARY, ArmCounts(10), ArmCounts(90)))
    assert judge(evidence, [DRIFT], ALPHA).reason is Reason.NOT_ENOUGH_SAMPLES


def test_every_kind_of_evidence_is_read_back_bit_for_bit() -> None:
    metrics = [SCORE, SHARES, DRIFT]
    window = Window(
        Trial.CANARY,
        ArmCounts(70),
        ArmCounts(930),
        differences={0: 3, LEVELS - 1: 2},
        series={"output:y": (1, 2, 3, 4)},
    )
    evidence = Evidence.fresh(metrics, SETTING).observe(window)
    stored = json.loads(json.dumps(evidence.encode()))
    assert Evidence.decode(stored, metrics, SETTING) == evidence
    assert Evidence.decode(stored, metrics, SETTING).observe(window) == evidence.observe(window)


def test_bins_of_another_profile_are_refused() -> None:
    with pytest.raises(Rejected):
        observed(DRIFT, Window(Trial.CANARY, series={"output:y": (1, 2)}))
