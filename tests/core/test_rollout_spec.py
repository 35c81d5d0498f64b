"""A rollout document means one thing or is refused with the path and what to write."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.errors import InvalidSpec, TooLarge
from hanse.core.ids import segment
from hanse.core.rollout.fields import duration_ms, duration_text
from hanse.core.rollout.plan import Analysis, Pause, Requires, SetWeight, Shadow
from hanse.core.rollout.spec import canonical, parse_spec, spec_digest, to_mapping

RELEASE = "sha256:" + "9f" * 32
STABLE = "sha256:" + "41" * 32
DOCUMENT: dict[str, Any] = {
    "apiVersion": "hanse.dev/v1alpha1",
    "kind": "Rollout",
    "metadata": {"name": "fraud-7", "model": "fraud-detector", "generation": 12},
    "spec": {
        "release": RELEASE,
        "predecessor": STABLE,
        "supersedes": ["fraud-6"],
        "rollback": {"target": "lastHealthy", "window": {"revisions": 3}, "fallback": "disable"},
        "stages": [
            {
                "name": "pilot",
                "regions": ["eu-north"],
                "steps": [
                    {"shadow": {"sample": "10%", "duration": "30m"}},
                    {"analysis": {"templates": ["agreement"]}},
                    {"setWeight": 1},
                    {"pause": {"duration": "10m", "minSamples": 2000}},
                    {"setWeight": 10},
                    {"analysis": {"templates": ["safety"]}},
                    {"setWeight": 100},
                ],
                "soak": "2h",
            },
            {
                "name": "wave-1",
                "regions": ["eu-west", "us-east"],
                "requires": {"stage": "pilot", "healthy": "all"},
                "steps": [
                    {"setWeight": 50},
                    {"analysis": {"templates": ["safety"], "minSamples": 100}},
                    {"setWeight": 100},
                ],
            },
        ],
        "templates": {
            "safety": {
                "alpha": 0.01,
                "metrics": [
                    {
                        "name": "error-rate",
                        "test": "ratio",
                        "event": "error",
                        "margin": 1.25,
                        "provenBelow": 2.0,
                    },
                    {
                        "name": "latency",
                        "test": "ratio",
                        "event": "slow",
                        "margin": 1.5,
                        "provenBelow": "none",
                        "onFail": "hold",
                    },
                ],
                "dryRun": ["latency"],
            },
            "agreement": {
                "alpha": 0.01,
                "metrics": [
                    {
                        "name": "disagreement",
                        "test": "one-arm",
                        "event": "disagree",
                        "slo": "5%",
                        "provenBelow": "5%",
                    },
                    {"name": "accuracy", "test": "paired", "provenBelow": "none"},
                ],
            },
        },
        "freeze": [{"days": ["fri"], "from": "16:00", "zone": "+01:00"}, {"days": "sat"}],
        "freshness": {"within": "5m", "otherwise": "hold"},
        "deadline": {"step": "6h", "stage": "48h", "onExceeded": "hold"},
        "nodes": {"assign": "request", "minOnline": 3, "offline": "exclude", "failing": "10%"},
        "propagation": {"onLocalRollback": "hold", "quarantineQuorum": 2},
    },
}


def changed(path: str, value: object = None, *, drop: bool = False) -> dict[str, Any]:
    """The document with one thing changed; numbers in the dotted path index lists."""
    document: Any = copy.deepcopy(DOCUMENT)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    target = document
    for part in parents:
        target = target[part]
    if drop:
        del target[last]
    else:
        target[last] = value
    return document  # type: ignore[no-any-return]  # the top is a mapping


def refusal(document: object) -> str:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(document)
    return str(caught.value)


def test_a_document_becomes_the_plan_it_describes() -> None:
    spec = parse_spec(DOCUMENT)
    assert (spec.name, spec.model, spec.generation) == ("fraud-7", "fraud-detector", 12)
    pilot, wave = spec.stages
    assert pilot.steps[0] == Shadow(10, 1_800_000)
    assert pilot.steps[2:4] == (SetWeight(1), Pause(600_000, 2000))
    assert pilot.steps[5] == Analysis((segment("safety"),))
    assert (pilot.soak_ms, wave.soak_ms) == (7_200_000, 0)
    assert wave.requires == Requires(segment("pilot"), "all")
    assert spec.template("safety").deciding == spec.template("safety").metrics[:1]
    assert spec.template("agreement").metrics[1].event == "wrong-pair"


def test_parsing_what_was_written_gives_the_same_plan() -> None:
    spec = parse_spec(DOCUMENT)
    assert parse_spec(to_mapping(spec)) == spec
    assert parse_spec(json.loads(canonical(spec))) == spec


def test_equal_plans_have_equal_bytes_and_other_plans_have_others() -> None:
    spec = parse_spec(DOCUMENT)
    respelt = changed("spec.stages.0.soak", "120m")
    respelt["spec"] = dict(reversed(respelt["spec"].items()))
    assert canonical(parse_spec(respelt)) == canonical(spec)
    assert spec_digest(parse_spec(respelt)) == spec_digest(spec)
    for path, value in (
        ("metadata.generation", 13),
        ("spec.templates.safety.alpha", 0.02),
        ("spec.templates.safety.dryRun", []),
        ("spec.stages.0.soak", "119m"),
        ("spec.deadline.onExceeded", "rollback"),
    ):
        assert spec_digest(parse_spec(changed(path, value))) != spec_digest(spec), path


def test_a_weight_may_go_on_comparing_answers() -> None:
    document = changed("spec.stages.0.steps.4", {"setWeight": {"weight": 10, "shadow": "50%"}})
    document["spec"]["stages"][0]["steps"][5]["analysis"]["templates"] = ["agreement"]
    spec = parse_spec(document)
    assert spec.stages[0].steps[4] == SetWeight(10, 50)
    assert parse_spec(to_mapping(spec)) == spec
    steps: list[dict[str, Any]] = [
        {"setWeight": {"weight": 10, "shadow": "50%"}},
        {"setWeight": 100},
    ]
    analysis = {"analysis": {"templates": ["safety"]}}
    assert "there is no stable release whose traffic" in refusal(first_release([*steps, analysis]))


def test_alpha_is_split_over_deciding_metrics_and_changes_of_arms() -> None:
    spec = parse_spec(DOCUMENT)
    assert spec.stages[0].epochs == 4
    assert spec.template("safety").share(4) == 0.01 / 4
    assert spec.template("agreement").share(4) == 0.01 / 8


@given(st.integers(0, 400 * 86_400_000))
def test_durations_are_written_as_they_are_read(length_ms: int) -> None:
    assert duration_ms(0)(duration_text(length_ms), "here") == length_ms


UNKNOWN = [
    ("spec.stages.0.steps.2", {"setWeigth": 1},
     "spec.stages[0].steps[2].setWeigth: unknown field; did you mean setWeight?"),
    ("spec.stages.0.steps.3.pause.until", 1, "spec.stages[0].steps[3].pause.until: unknown field"),
    ("metadata.labels", {}, "metadata.labels: unknown field"),
    ("status", {}, "status: unknown field"),
    ("spec.stages.1.requires.maxage", "1h",
     "spec.stages[1].requires.maxage: unknown field; did you mean maxAge?"),
    ("spec.stages.1.regions", {"matchLabel": {}},
     "spec.stages[1].regions.matchLabel: unknown field; did you mean matchLabels?"),
    ("spec.templates.safety.metrics.0.provenbelow", 2,
     "spec.templates.safety.metrics[0].provenbelow: unknown field; did you mean provenBelow?"),
]  # fmt: skip
VALUES = [
    ("apiVersion", "v1", "apiVersion: 'v1' is not known (write hanse.dev/v1alpha1)"),
    ("kind", "Rolout", "kind: 'Rolout' is not known; did you mean Rollout?"),
    ("metadata", None, "metadata: None is not a mapping (write {name, model, generation, trust"),
    ("metadata.trustVersion", 7, "metadata.trustVersion: is there exactly where a stage selects"),
    ("spec.stages.1.regions", {"matchLabels": {"tier": "standard"}}, "metadata.trustVersion: is"),
    ("spec.stages.1.regions", {"matchLabels": {}}, "is not a mapping of labels"),
    ("spec.stages.1.regions", {"matchLabels": {"tier": 1}}, "matchLabels.tier: 1 is not a label"),
    ("spec.stages.1.regions", {"matchLabels": {"tier": "a"}, "maxParallel": 0}, "0 is not a whole"),
    ("spec.stages.1.requires.maxAge", "4m", "requires.maxAge: 4m is out of range"),
    ("metadata.name", "../x", "metadata.name: this '../x' is not a valid name"),
    ("metadata.generation", 0, "metadata.generation: 0 is not a whole number (write 1 to "),
    ("metadata.generation", True, "metadata.generation: True is not a whole number"),
    ("metadata.generation", "12", "no quotes"),
    ("spec.release", "v7", "spec.release: digest 'v7' does not begin with sha256:"),
    ("spec.predecessor", RELEASE, "spec.predecessor: is the release itself"),
    ("spec.supersedes", ["a", "a"], "spec.supersedes: a is named twice"),
    ("spec.rollback.target", "last", "write lastHealthy, predecessor or sha256:..."),
    ("spec.rollback.fallback", "sha256:1", "spec.rollback.fallback: digest '1' is not 64"),
    ("spec.rollback.window", {}, "spec.rollback.window.revisions: missing (write revisions: 3)"),
    ("spec.stages", [], "spec.stages: [] is not a list (write 1 to 256 entries)"),
    ("spec.stages.0.regions", ["a", "a"], "spec.stages[0].regions: a is named twice"),
    ("spec.stages.0.steps.0.shadow.sample", 10, "10 is not a percentage (write 1% to 100%"),
    ("spec.stages.0.steps.0.shadow.sample", "0%", "'0%' is not a percentage"),
    ("spec.stages.0.steps.0.shadow.duration", "10 m", "'10 m' is not a duration"),
    ("spec.stages.0.steps.0.shadow.duration", "0s", "0s is out of range"),
    ("spec.stages.0.steps.3.pause.minSamples", -1, "-1 is not a whole number"),
    ("spec.stages.0.steps.2", {"setWeight": 1, "pause": {}}, "2 kinds in one step"),
    ("spec.stages.0.steps.2", {}, "0 kinds in one step"),
    ("spec.stages.0.steps.2.setWeight", 101, "write 1 to 100"),
    ("spec.stages.0.soak", 7200, "7200 is not a duration (write a whole number and ms, s, m"),
    ("spec.nodes.assign", "nodes", "'nodes' is not known; did you mean node?"),
    ("spec.nodes.assign", "node", "error-rate: a margin of 1.25 takes nodes that differ for harm"),
    ("spec.nodes.offline", "count", "'count' is not known (write exclude)"),
    ("spec.nodes.minOnline", -1, "-1 is not a whole number"),
    ("spec.freeze.0.days", ["fry"], "'fry' is not known; did you mean fri?"),
    ("spec.freeze.0.from", 960, "spec.freeze[0].from: 960 is no time of the day (write \"16:00\""),
    ("spec.freeze.0.from", "24:01", "is no time of the day"),
    ("spec.freeze.0.to", "08:00", "08:00 is not after 16:00 (write two windows"),
    ("spec.freeze.0.zone", "Europe/Berlin", "'Europe/Berlin' is no zone (write UTC, or a distance"),
    ("spec.freeze.0", {}, "spec.freeze[0]: says nothing"),
    ("spec.freeze", [{"zone": "UTC"}], "spec.freeze: the whole week is frozen"),
    ("spec.freeze", [{"days": "mon"}] * 17, "17 windows"),
    ("spec.freshness.otherwise", "go", "spec.freshness.otherwise: 'go' is not known (write hold)"),
    ("spec.deadline.onExceeded", "abort", "write hold or rollback"),
    ("spec.propagation.onLocalRollback", "ignore", "(write hold)"),
    ("spec.propagation.quarantineQuorum", 0, "0 is not a whole number"),
    ("spec.templates", {}, "spec.templates: is not a mapping of templates"),
    ("spec.templates.safety.alpha", 1, "spec.templates.safety.alpha: 1 is not usable"),
    ("spec.templates.safety.alpha", float("nan"), "nan is not usable"),
    ("spec.templates.safety.metrics.0.test", "t-test", "write ratio or paired or one-arm"),
    ("spec.templates.safety.metrics.0.event", "eror", "did you mean error?"),
    ("spec.templates.safety.metrics.0.event", "disagree", "'disagree' is not known"),
    ("spec.templates.safety.metrics.0.margin", 0.5, "write a number from 1 to 100"),
    ("spec.templates.safety.metrics.0.provenBelow", 1.2, "1.2 cannot be proven beside a margin"),
    ("spec.templates.safety.metrics.0.onFail", "page", "write rollback or hold"),
    ("spec.templates.safety.metrics.0.slo", "5%", "means nothing to a ratio metric"),
    ("spec.templates.safety.metrics.1.name", "error-rate", "error-rate is named twice"),
    ("spec.templates.agreement.metrics.1.name", "latency",
     "spec.templates.metrics: latency is named twice"),
    ("spec.templates.safety.dryRun", ["latncy"],
     "spec.templates.safety.dryRun[0]: there is no metric latncy; did you mean latency?"),
    ("spec.templates.safety.dryRun", ["latency", "error-rate"], "every metric is a dry run"),
    ("spec.templates.agreement.metrics.0.margin", 2, "means nothing to a one-arm metric"),
    ("spec.templates.agreement.metrics.0.slo", "105%", "'105%' is not a share (write 5% or 0.05)"),
    ("spec.templates.agreement.metrics.0.provenBelow", 0.01, "would never be decided"),
    ("spec.templates.agreement.metrics.1.event", "error", "write wrong"),
]  # fmt: skip
WHOLE = [
    ("spec.stages.1.name", "pilot", "spec.stages: pilot is named twice"),
    ("spec.stages.1.regions", ["eu-north"], "spec.stages.regions: eu-north is named twice"),
    ("spec.stages.0.steps.5.analysis.templates", ["safty"],
     "spec.stages[0].steps[5].analysis.templates[0]: there is no template safty; did you mean "
     "safety?"),
    ("spec.background", {"templates": ["drift"]},
     "spec.background.templates[0]: there is no template drift (known here: agreement, safety)"),
    ("spec.stages.1.requires.stage", "pilots",
     "spec.stages[1].requires.stage: there is no earlier stage pilots; did you mean pilot?"),
    ("spec.stages.1.requires.stage", "wave-1", "there is no earlier stage wave-1"),
    ("spec.stages.1.requires.healthy", "most", "'most' is not a quorum"),
    ("spec.stages.1.requires.healthy", 2, "2 of 1 regions can never be healthy"),
    ("spec.stages.0.requires", {"stage": "wave-1", "healthy": "all"},
     "spec.stages[0].requires: the first stage waits for nobody"),
    ("spec.stages.0.steps.4.setWeight", 1,
     "spec.stages[0].steps[4].setWeight: 1 does not rise above 1"),
    ("spec.stages.0.steps.6.setWeight", 90, "spec.stages[0].steps: no setWeight: 100 at the end"),
    ("spec.stages.0.steps.3", {"shadow": {"sample": "1%", "duration": "1m"}},
     "spec.stages[0].steps[3].shadow: stands after setWeight"),
    ("spec.stages.0.steps.5.analysis.templates", ["agreement"],
     "metric disagreement compares answers of a shadow, and none runs here"),
    ("spec.stages.1.steps", [{"analysis": {"templates": ["safety"]}}, {"setWeight": 100}],
     "spec.stages[1].steps[0]: nothing runs before this analysis"),
    ("spec.stages.1.steps", [{"setWeight": 100}, {"analysis": {"templates": ["safety"]}}],
     "metric error-rate compares with stable traffic, and there is none at weight 100"),
    ("spec.stages.1.steps", [{"setWeight": 100}], "spec.stages[1].steps: no analysis, so nothing"),
    ("spec.templates.safety.metrics.0.provenBelow", "none", "no metric asks for a proof, so sil"),
    ("spec.deadline.step", "2h", "spec.deadline.step: 2h always passes: spec.stages[0] alone"),
    ("spec.deadline.stage", "2h", "spec.deadline.stage: 2h always passes"),
    ("spec.predecessor", None, "compares with stable traffic, but predecessor is null"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message"), UNKNOWN + VALUES + WHOLE)
def test_what_cannot_be_meant_is_refused_by_path(path: str, value: object, message: str) -> None:
    assert message in refusal(changed(path, value))


@pytest.mark.parametrize(
    "path",
    [
        "apiVersion",
        "kind",
        "metadata.name",
        "metadata.model",
        "metadata.generation",
        "spec.release",
        "spec.predecessor",
        "spec.stages",
        "spec.templates",
        "spec.stages.0.name",
        "spec.stages.0.regions",
        "spec.stages.0.steps",
        "spec.stages.1.requires.stage",
        "spec.stages.1.requires.healthy",
        "spec.stages.0.steps.0.shadow.sample",
        "spec.stages.0.steps.0.shadow.duration",
        "spec.stages.0.steps.3.pause.duration",
        "spec.stages.0.steps.5.analysis.templates",
        "spec.templates.safety.alpha",
        "spec.templates.safety.metrics",
        "spec.templates.safety.metrics.0.name",
        "spec.templates.safety.metrics.0.test",
        "spec.templates.safety.metrics.0.event",
        "spec.templates.safety.metrics.0.margin",
        "spec.templates.safety.metrics.0.provenBelow",
        "spec.templates.agreement.metrics.0.slo",
    ],
)
def test_a_missing_field_is_named_with_an_example(path: str) -> None:
    last = path.rsplit(".", maxsplit=1)[-1]
    assert f"{last}: missing (write {last}: " in refusal(changed(path, drop=True))


def test_a_later_stage_never_starts_by_omission() -> None:
    message = refusal(changed("spec.stages.1.requires", drop=True))
    assert "spec.stages[1].requires: missing: this stage would start together" in message
    assert "write requires: {stage: pilot, healthy: all}" in message


def first_release(steps: list[dict[str, Any]]) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    spec = document["spec"]
    budget = {"name": "errors", "test": "one-arm", "event": "error", "slo": 0.02}
    spec["predecessor"] = None
    spec["stages"] = [{"name": "pilot", "regions": ["eu-north"], "steps": steps}]
    spec["templates"] = {"safety": {"alpha": 0.01, "metrics": [budget | {"provenBelow": 0.02}]}}
    return document


def test_a_first_release_is_proven_by_one_arm_alone() -> None:
    steps: list[dict[str, Any]] = [{"setWeight": 100}, {"analysis": {"templates": ["safety"]}}]
    assert parse_spec(first_release(steps)).predecessor is None
    shadow = {"shadow": {"sample": "1%", "duration": "1m"}}
    assert "there is no stable release whose traffic" in refusal(first_release([shadow, *steps]))
    document = first_release(steps)
    document["spec"]["rollback"] = {"target": "predecessor"}
    assert "spec.rollback.target: there is no predecessor" in refusal(document)


def test_a_plan_larger_than_an_event_may_carry_is_refused() -> None:
    regions = [f"region-{i:04}-of-the-large-federation" for i in range(256)]
    with pytest.raises(TooLarge):
        parse_spec(changed("spec.stages.0.regions", regions))


def test_more_metrics_than_an_event_may_carry_are_refused() -> None:
    metric = DOCUMENT["spec"]["templates"]["safety"]["metrics"][0]
    many = [metric | {"name": f"m{i}"} for i in range(17)]
    document = changed("spec.templates.safety", {"alpha": 0.01, "metrics": many})
    assert "spec.templates: 19 metrics (write at most 16)" in refusal(document)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def paths(value: object, path: str = "") -> list[str]:
    pairs: Any = value.items() if isinstance(value, dict) else []
    pairs = enumerate(value) if isinstance(value, list) else pairs
    below = [p for key, inner in pairs for p in paths(inner, f"{path}.{key}".lstrip("."))]
    return [path, *below] if path else below


@given(st.sampled_from(paths(DOCUMENT)), junk)
def test_junk_anywhere_is_a_plan_or_a_typed_error(path: str, value: object) -> None:
    document = changed(path, value)
    try:
        spec = parse_spec(document)
    except (InvalidSpec, TooLarge):
        return
    assert parse_spec(to_mapping(spec)) == spec


@pytest.mark.parametrize("make", [list, str, int, lambda: None, lambda: {1: 2}])
def test_a_document_that_is_no_mapping_of_names_is_refused(make: Callable[[], object]) -> None:
    refusal(make())
