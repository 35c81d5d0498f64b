"""Analysis templates: which metrics decide, how surely, and what a failure leads to.

Refused here: a test without its parameters, parameters of another test, and a gap between "harm
above" and "proven below" in which a release could stay undecided for ever.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain
from typing import Final

from hanse.core.evidence.metrics import DECLARED, Metric
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
OF_TEST: Final = {
    "ratio": ("event", "prometheus", "margin", "provenBelow"),
    "paired": ("event", "margin", "provenBelow"),
    "one-arm": ("event", "prometheus", "slo", "provenBelow"),
    "difference": ("margin", "provenBelow"),
    "sample-ratio": (),
    "drift": ("series", "delta"),
}
"""The fields that each test takes, beside name, test and onFail."""
_METRIC_FIELDS: Final = ("name", "test", *dict.fromkeys(chain(*OF_TEST.values())), "onFail")
_SERIES_CHARS_MAX: Final = 128
QUERY_CHARS_MAX: Final = 512
OF_ARM: Final = ("release", "version", "role")
PLACEHOLDERS: Final = (*OF_ARM, "model", "region", "rollout")
PLACEHOLDER: Final = re.compile(r"\$([a-z]+)")
EVENTS_OF: Final = {
    "ratio": ("error", "slow", "wrong"),
    "paired": ("wrong-pair",),
    "one-arm": ("error", "slow", "wrong", "disagree"),
}


def parse_template(label: object, value: object, path: str) -> Template:
    fields = Fields.of(value, path, ("alpha", "metrics", "dryRun"))
    metrics = fields.required("metrics", listed(_metric), "a list of metrics")
    names = [metric.name for metric in metrics]
    distinct(names, fields.at("metrics"))
    dry_run = fields.optional("dryRun", listed(name, empty=True), ())
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
    test = fields.required("test", one_of(*OF_TEST), "ratio")
    for key in fields.values:
        if key not in ("name", "test", "onFail", *OF_TEST[test]):
            asked = ", ".join(OF_TEST[test]) or "no parameter"
            raise fail(
                fields.at(str(key)), f"means nothing to a {test} metric", f"it takes {asked}"
            )
    return _PARSERS[test](fields, test)


def _two_arm(fields: Fields, test: str) -> Metric:
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
    return replace(_counted(fields, test, "error-rate"), margin=margin, proven_below=below)


def _one_arm(fields: Fields, test: str) -> Metric:
    slo = fields.required("slo", share, "5%")
    below = fields.required("provenBelow", _or_none(share), "5%, or none to ask for no proof")
    if below is not None and below < slo:
        raise fail(
            fields.at("provenBelow"),
            f"{below:g} is below slo {slo:g}: a rate between them would never be decided",
            "write a share that is not below slo",
        )
    return replace(_counted(fields, test, "error-budget"), slo=slo, proven_below=below)


def _counted(fields: Fields, test: str, example: str) -> Metric:
    """Of events, by nodes or as declared."""
    label = fields.required("name", name, example)
    metric = Metric(label, test, _event(fields, test), on_fail=_on_fail(fields))
    if metric.event != DECLARED:
        return metric
    queries = Fields.of(fields.values["prometheus"], fields.at("prometheus"), ("bad", "total"))
    return replace(
        metric,
        bad=queries.required("bad", _query, 'sum(failed_total{release="$release"})'),
        total=queries.required("total", _query, 'sum(requests_total{release="$release"})'),
    )


def _difference(fields: Fields, test: str) -> Metric:
    """Mean differences of scores, losses or relative errors; positive is worse."""
    margin = fields.optional("margin", number(-0.99, 0.99), 0.0)
    below = fields.required("provenBelow", _or_none(number(-0.99, 0.99)), "0.05, or none")
    if below is not None and below <= margin:
        raise fail(
            fields.at("provenBelow"),
            f"{below:g} cannot be proven beside a margin of {margin:g}",
            "write a difference above margin, such as 0.05",
        )
    label = fields.required("name", name, "score")
    on_fail = _on_fail(fields)
    return Metric(label, test, "worse-pair", margin=margin, proven_below=below, on_fail=on_fail)


def _sample_ratio(fields: Fields, test: str) -> Metric:
    on_fail = _on_fail(fields, "hold")
    return Metric(fields.required("name", name, "shares"), test, "share", on_fail=on_fail)


def _drift(fields: Fields, test: str) -> Metric:
    delta = fields.optional("delta", share, 0.05)
    if delta >= 0.5:
        raise fail(fields.at("delta"), "half of everything is no drift", "write a share below 50%")
    return Metric(
        fields.required("name", name, "output-drift"),
        test,
        fields.required("series", _series, "output:y"),
        on_fail=_on_fail(fields, "hold"),
        delta=delta,
    )


def _series(value: object, path: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _SERIES_CHARS_MAX:
        raise fail(path, "is not the name of a series", "write output:NAME or input:NAME[INDEX]")
    return value


def _event(fields: Fields, test: str) -> str:
    """The event; `wrong` of a paired metric is the only one it has, so it may be left out."""
    if test == "paired":
        fields.optional("event", one_of("wrong"), "wrong")
        return EVENTS_OF[test][0]
    if "prometheus" in fields.values:
        if "event" in fields.values:
            raise fail(fields.at("event"), "stands beside prometheus", "write one of the two")
        return DECLARED
    return fields.required("event", one_of(*EVENTS_OF[test]), "error")


def _query(value: object, path: str) -> str:
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= QUERY_CHARS_MAX
        or not value.isprintable()
    ):
        raise fail(
            path, "is not a query", f"write PromQL in one line, {QUERY_CHARS_MAX} characters"
        )
    found = PLACEHOLDER.findall(value)
    for each in found:
        known(each, PLACEHOLDERS, path, "placeholder")
    if not set(found) & set(OF_ARM):
        raise fail(
            path,
            "asks the same of both arms",
            f"tell the releases apart by a label and ${', $'.join(OF_ARM)}",
        )
    return value


def _on_fail(fields: Fields, default: str = "rollback") -> str:
    return fields.optional("onFail", one_of("rollback", "hold"), default)


def _or_none(parse: Parser[float]) -> Parser[float | None]:
    """`none` is written out, so that doing without a proof is somebody's decision."""

    def parse_or_none(value: object, path: str) -> float | None:
        return None if value == "none" else parse(value, path)

    return parse_or_none


_PARSERS: Final = {
    "ratio": _two_arm,
    "paired": _two_arm,
    "one-arm": _one_arm,
    "difference": _difference,
    "sample-ratio": _sample_ratio,
    "drift": _drift,
}


def _metric_mapping(metric: Metric) -> dict[str, object]:
    below = "none" if metric.proven_below is None else metric.proven_below
    every: dict[str, object] = {
        "event": "wrong" if metric.test == "paired" else metric.event,
        "margin": metric.margin,
        "slo": metric.slo,
        "prometheus": {"bad": metric.bad, "total": metric.total},
        "series": metric.event,
        "delta": metric.delta,
        "provenBelow": below,
    }
    left_out = "event" if metric.event == DECLARED else "prometheus"
    chosen = {key: every[key] for key in OF_TEST[metric.test] if key != left_out}
    return {"name": metric.name, "test": metric.test, **chosen, "onFail": metric.on_fail}
