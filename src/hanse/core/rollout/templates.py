"""Analysis templates: which metrics decide, how surely, and what a failure leads to.

Refused here: a test without its parameters, parameters of another test, and a gap between "harm
above" and "proven below" in which a release could stay undecided for ever.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from hanse.core.evidence.metrics import TESTS, Metric
from hanse.core.ids import Segment
from hanse.core.rollout.fields import (
    Fields,
    Parser,
    distinct,
    fail,
    known,
    listed,
    name,
    number,
    one_of,
    share,
)
from hanse.core.rollout.plan import Template

_RATIO: Final = number(1, 100)
_METRIC_FIELDS: Final = ("name", "test", "event", "margin", "provenBelow", "slo", "onFail")
_EVENTS_OF: Final = {
    "ratio": ("error", "slow", "wrong"),
    "paired": ("wrong-pair",),
    "one-arm": ("error", "slow", "wrong", "disagree"),
}


def parse_template(label: object, value: object, path: str) -> Template:
    fields = Fields.of(value, path, ("alpha", "metrics", "dryRun"))
    metrics = fields.required("metrics", listed(_metric), "a list of metrics")
    names = [metric.name for metric in metrics]
    distinct(names, fields.at("metrics"))
    none: tuple[Segment, ...] = ()
    dry_run = fields.optional("dryRun", listed(name, empty=True), none)
    distinct(dry_run, fields.at("dryRun"))
    for i, item in enumerate(dry_run):
        known(item, names, f"{fields.at('dryRun')}[{i}]", "metric")
    if len(dry_run) == len(names):
        raise fail(
            fields.at("dryRun"),
            "every metric is a dry run, so nothing would decide",
            "take at least one metric out",
        )
    return Template(
        name(label, path),
        fields.required("alpha", number(1e-9, 0.5), "0.01"),
        tuple(replace(metric, dry_run=metric.name in dry_run) for metric in metrics),
    )


def template_mapping(template: Template) -> dict[str, object]:
    return {
        "alpha": template.alpha,
        "dryRun": [metric.name for metric in template.metrics if metric.dry_run],
        "metrics": [_metric_mapping(metric) for metric in template.metrics],
    }


def _metric(value: object, path: str) -> Metric:
    fields = Fields.of(value, path, _METRIC_FIELDS)
    test = fields.required("test", one_of(*TESTS), "ratio")
    parse = _one_arm if test == "one-arm" else _two_arm
    return parse(fields, test)


def _two_arm(fields: Fields, test: str) -> Metric:
    if "slo" in fields.values:
        raise fail(
            fields.at("slo"), f"a {test} metric has no limit", "use test: one-arm, or margin"
        )
    margin = (
        fields.required("margin", _RATIO, "1.25")
        if test == "ratio"
        else fields.optional("margin", _RATIO, 1.0)
    )
    below = fields.required("provenBelow", _or_none(_RATIO), "2.0, or none to ask for no proof")
    # Equal to 1 cannot be proven by any number of requests when the arms are alike.
    if below is not None and (below < margin or below <= 1):
        raise fail(
            fields.at("provenBelow"),
            f"{below:g} cannot be proven beside a margin of {margin:g}",
            "write a ratio above 1 and not below margin, such as 2.0",
        )
    return Metric(
        fields.required("name", name, "error-rate"),
        test,
        _event(fields, test),
        margin=margin,
        proven_below=below,
        on_fail=_on_fail(fields),
    )


def _one_arm(fields: Fields, test: str) -> Metric:
    if "margin" in fields.values:
        raise fail(fields.at("margin"), "a one-arm metric has no margin", "write slo: 5%")
    slo = fields.required("slo", share, "5%")
    below = fields.required("provenBelow", _or_none(share), "5%, or none to ask for no proof")
    if below is not None and below < slo:
        raise fail(
            fields.at("provenBelow"),
            f"{below:g} is below slo {slo:g}: a rate between them would never be decided",
            "write a share that is not below slo",
        )
    return Metric(
        fields.required("name", name, "error-budget"),
        test,
        _event(fields, test),
        proven_below=below,
        slo=slo,
        on_fail=_on_fail(fields),
    )


def _event(fields: Fields, test: str) -> str:
    """The event; `wrong` of a paired metric is the only one it has, so it may be left out."""
    if test == "paired":
        fields.optional("event", one_of("wrong"), "wrong")
        return _EVENTS_OF[test][0]
    return fields.required("event", one_of(*_EVENTS_OF[test]), "error")


def _on_fail(fields: Fields) -> str:
    return fields.optional("onFail", one_of("rollback", "hold"), "rollback")


def _or_none(parse: Parser[float]) -> Parser[float | None]:
    """`none` is written out, so that doing without a proof is somebody's decision."""

    def parse_or_none(value: object, path: str) -> float | None:
        return None if value == "none" else parse(value, path)

    return parse_or_none


def _metric_mapping(metric: Metric) -> dict[str, object]:
    limits: dict[str, object] = {"margin": metric.margin}
    if metric.test == "one-arm":
        limits = {"slo": metric.slo}
    return {
        "name": metric.name,
        "test": metric.test,
        "event": "wrong" if metric.test == "paired" else metric.event,
        **limits,
        "provenBelow": "none" if metric.proven_below is None else metric.proven_below,
        "onFail": metric.on_fail,
    }
