"""Stages and their steps, and the orders of steps that could never be carried out.

Refused here rather than found out in the night: weights that do not rise to 100, a shadow after
users already see the release, and an analysis that can get no data where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from hanse.core.evidence.metrics import EVENTS, TESTS, Metric
from hanse.core.ids import Segment
from hanse.core.rollout.fields import (
    Fields,
    distinct,
    duration_ms,
    duration_text,
    fail,
    known,
    listed,
    name,
    one_of,
    percent,
    whole,
)
from hanse.core.rollout.places import Selector, parse_selector, selector_mapping
from hanse.core.rollout.plan import (
    APPROVERS,
    Analysis,
    Approve,
    Pause,
    Requires,
    SetWeight,
    Shadow,
    Stage,
    Step,
    Template,
)

_SAMPLES: Final = whole(0, 10**9)
AGE_MS_MIN: Final = 300_000
"""Several times the allowance for clocks that differ."""


def parse_stage(value: object, path: str) -> Stage:
    fields = Fields.of(value, path, ("name", "regions", "requires", "steps", "soak"))
    regions, select = fields.required("regions", _regions, "[eu-north]")
    steps = fields.required("steps", listed(_step), "a list of steps")
    _check_weights(steps, fields.at("steps"))
    return Stage(
        fields.required("name", name, "pilot"),
        regions,
        steps,
        fields.optional("soak", duration_ms(0), 0),
        fields.optional("requires", _requires, None),
        select,
    )


def stage_mapping(stage: Stage) -> dict[str, object]:
    mapping: dict[str, object] = {
        "name": stage.name,
        "regions": selector_mapping(stage.select) if stage.select else list(stage.regions),
        "steps": [_step_mapping(step) for step in stage.steps],
        "soak": duration_text(stage.soak_ms),
    }
    if stage.requires:
        age_ms = stage.requires.age_ms
        age = {} if age_ms is None else {"maxAge": duration_text(age_ms)}
        gate = {"stage": stage.requires.stage, "healthy": stage.requires.healthy}
        mapping["requires"] = gate | age
    return mapping


def check_analyses(stage: Stage, path: str, templates: Mapping[str, Template]) -> None:
    """Refuse analyses of unknown templates, and those that could never be decided."""
    step_before: Shadow | SetWeight | None = None
    for i, step in enumerate(stage.steps):
        where = f"{path}.steps[{i}]"
        if isinstance(step, Shadow | SetWeight):
            step_before = step
        if not isinstance(step, Analysis):
            continue
        for j, label in enumerate(step.templates):
            known(label, templates, f"{where}.analysis.templates[{j}]", "template")
        if step_before is None:
            raise fail(where, "nothing runs before this analysis", "begin with shadow or setWeight")
        metrics = [metric for label in step.templates for metric in templates[label].deciding]
        for metric in metrics:
            _check_data(metric, step_before, where)
        if not step.samples_min and all(metric.proven_below is None for metric in metrics):
            raise fail(
                where,
                "no metric asks for a proof, so silence would pass",
                "write minSamples, or a provenBelow in one of the templates",
            )
    if not stage.templates:
        raise fail(
            f"{path}.steps",
            "no analysis, so nothing would prove the release healthy",
            "add analysis: {templates: [...]} before setWeight: 100",
        )


def _check_data(metric: Metric, before: Shadow | SetWeight, where: str) -> None:
    shadowed = isinstance(before, Shadow) or before.shadow_percent > 0
    event = EVENTS.get(metric.event)
    if event and event.shadow_only and not shadowed:
        raise fail(
            where,
            f"metric {metric.name} compares answers of a shadow, and none runs here",
            "put it after a shadow step, or write setWeight: {weight: 20, shadow: 100%}",
        )
    if event and event.users_only and isinstance(before, Shadow):
        raise fail(
            where,
            f"metric {metric.name} counts what users meet, and a shadow's answers meet nobody",
            "put it after setWeight",
        )
    full = isinstance(before, SetWeight) and before.percent == 100
    if full and TESTS[metric.test].needs_control:
        raise fail(
            where,
            f"metric {metric.name} compares with stable traffic, and there is none at weight 100",
            "put this analysis before setWeight: 100, or use a one-arm metric",
        )


def _check_weights(steps: tuple[Step, ...], path: str) -> None:
    weight = 0
    for i, step in enumerate(steps):
        if isinstance(step, Shadow) and weight:
            raise fail(
                f"{path}[{i}].shadow",
                "stands after setWeight",
                "put shadow steps first: they find out before users see the release",
            )
        if isinstance(step, SetWeight):
            if step.percent <= weight:
                raise fail(
                    f"{path}[{i}].setWeight",
                    f"{step.percent} does not rise above {weight}",
                    "write rising weights; going back is what a rollback is for",
                )
            weight = step.percent
            if weight == 100 and step.shadow_percent:
                raise fail(
                    f"{path}[{i}].setWeight.shadow",
                    "no stable answers are left to mirror",
                    "leave it out at weight 100",
                )
    if weight != 100:
        raise fail(path, "no setWeight: 100 at the end", "add setWeight: 100 as the last weight")


def _step(value: object, path: str) -> Step:
    fields = Fields.of(value, path, STEPS)
    if len(fields.values) != 1:
        raise fail(
            path, f"{len(fields.values)} kinds in one step", f"write one of {', '.join(STEPS)}"
        )
    kind = next(iter(fields.values))
    return STEPS[kind](fields.values[kind], fields.at(kind))


def _shadow(value: object, path: str) -> Step:
    fields = Fields.of(value, path, ("sample", "duration", "minSamples"))
    return Shadow(
        fields.required("sample", percent, "10%"),
        fields.required("duration", duration_ms(1), "30m"),
        fields.optional("minSamples", _SAMPLES, 0),
    )


def _set_weight(value: object, path: str) -> Step:
    """`setWeight: 20`, or `setWeight: {weight: 20, shadow: 100%}` to go on comparing answers."""
    if not isinstance(value, Mapping):
        return SetWeight(whole(1, 100)(value, path))
    fields = Fields.of(value, path, ("weight", "shadow"))
    return SetWeight(
        fields.required("weight", whole(1, 100), "20"), fields.required("shadow", percent, "100%")
    )


def _pause(value: object, path: str) -> Step:
    fields = Fields.of(value, path, ("duration", "minSamples"))
    return Pause(
        fields.required("duration", duration_ms(1), "10m"),
        fields.optional("minSamples", _SAMPLES, 0),
    )


def _analysis(value: object, path: str) -> Step:
    fields = Fields.of(value, path, ("templates", "minSamples"))
    templates = fields.required("templates", listed(name), "[safety]")
    distinct(templates, fields.at("templates"))
    return Analysis(templates, fields.optional("minSamples", _SAMPLES, 0))


def _approve(value: object, path: str) -> Step:
    fields = Fields.of(value, path, ("role", "count"))
    return Approve(
        fields.required("role", one_of(*APPROVERS), "release-manager"),
        fields.optional("count", whole(1, 100), 1),
    )


STEPS: Final[Mapping[str, Callable[[object, str], Step]]] = {
    "shadow": _shadow,
    "setWeight": _set_weight,
    "pause": _pause,
    "analysis": _analysis,
    "approve": _approve,
}


def _step_mapping(step: Step) -> dict[str, object]:
    match step:
        case SetWeight(weight, 0):
            return {"setWeight": weight}
        case SetWeight(weight, sample):
            return {"setWeight": {"weight": weight, "shadow": f"{sample}%"}}
        case Shadow(sample, length, samples):
            body = {"sample": f"{sample}%", "duration": duration_text(length)}
            return {"shadow": {**body, "minSamples": samples}}
        case Approve(role, count):
            return {"approve": {"role": role, "count": count}}
        case Pause(length, samples):
            return {"pause": {"duration": duration_text(length), "minSamples": samples}}
        case Analysis(templates, samples):
            return {"analysis": {"templates": list(templates), "minSamples": samples}}


def _requires(value: object, path: str) -> Requires:
    fields = Fields.of(value, path, ("stage", "healthy", "maxAge"))
    return Requires(
        fields.required("stage", name, "pilot"),
        fields.required("healthy", _healthy, "all"),
        fields.optional("maxAge", duration_ms(AGE_MS_MIN), None),
    )


def _regions(value: object, path: str) -> tuple[tuple[Segment, ...], Selector | None]:
    if isinstance(value, Mapping):
        return (), parse_selector(value, path)
    regions = listed(name)(value, path)
    distinct(regions, path)
    return regions, None


def _healthy(value: object, path: str) -> Literal["all", "majority"] | int:
    if value == "all":
        return "all"
    if value == "majority":
        return "majority"
    if type(value) is int and value >= 1:
        return value
    raise fail(path, f"{value!r:.80} is not a quorum", "write all, majority or a whole number")
