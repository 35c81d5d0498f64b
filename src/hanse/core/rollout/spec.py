"""A rollout document as a plain mapping, strictly parsed, and as the bytes that are signed.

    {apiVersion: hanse.dev/v1alpha1, kind: Rollout,
     metadata: {name, model, generation, trustVersion},
     spec: {release, predecessor, supersedes, rollback, stages, templates, background,
            freeze, freshness, deadline, nodes, propagation, audience, watch}}

Analysis templates live in the document itself, so the signed bytes say all that will decide.
`predecessor: null` marks a first release: there is no stable arm to compare with or to mirror, so
only one-arm metrics and no shadow steps are accepted, and silence never counts as health.

`canonical` is JSON with sorted keys, no spaces and every default written out; equal plans have
equal bytes. Received bytes are verified as they came and never made again from the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hanse.core.audience import EVERYBODY, parse_audience
from hanse.core.errors import TooLarge
from hanse.core.evidence.metrics import TESTS
from hanse.core.ids import Digest, Segment
from hanse.core.limits import SPEC_BYTES_MAX, SUPERSEDES_MAX
from hanse.core.reading import canonical_json
from hanse.core.rollout.fields import (
    LIST_MAX,
    Fields,
    digest,
    distinct,
    duration_text,
    fail,
    known,
    listed,
    name,
    one_of,
    whole,
)
from hanse.core.rollout.freeze_windows import freeze_mapping, parse_freeze
from hanse.core.rollout.places import check_quorums
from hanse.core.rollout.plan import (
    WATCH_FACTOR,
    Deadline,
    Freshness,
    NodeRules,
    Propagation,
    Rollback,
    RolloutSpec,
    SetWeight,
    Shadow,
    Stage,
    Template,
)
from hanse.core.rollout.policies import (
    deadline_mapping,
    freshness_mapping,
    nodes_mapping,
    parse_deadline,
    parse_freshness,
    parse_nodes,
    parse_propagation,
    parse_rollback,
    parse_watch,
    propagation_mapping,
    rollback_mapping,
    watch_mapping,
)
from hanse.core.rollout.steps import check_analyses, parse_stage, stage_mapping
from hanse.core.rollout.templates import parse_template, template_mapping

API_VERSION: Final = "hanse.dev/v1alpha1"
GENERATION_MAX: Final = 2**53 - 1
MANY_NODES: Final = 50
WHOLE_NODE_MARGIN: Final = 1.25
FEW_NODES_MARGIN: Final = 1.5
"""Nodes whose error rates differ by a third: at 1 %, ratio above 1 is a false alarm in one of 50
rollouts, above 1.25 in none that was seen; with few nodes, or larger differences, take 1.5."""
METRICS_MAX: Final = 16
"""Their evidence travels in one event, at some 450 bytes a metric."""
_METADATA_FIELDS: Final = ("name", "model", "generation", "trustVersion")
_SPEC_FIELDS: Final = (
    "release",
    "predecessor",
    "supersedes",
    "rollback",
    "stages",
    "templates",
    "background",
    "freeze",
    "freshness",
    "deadline",
    "nodes",
    "propagation",
    "audience",
    "watch",
)


def parse_spec(mapping: object) -> RolloutSpec:
    """Parse a rollout document. Raises `InvalidSpec` naming the path, `TooLarge` above 8 KiB."""
    top = Fields.of(mapping, "", ("apiVersion", "kind", "metadata", "spec"))
    top.required("apiVersion", one_of(API_VERSION), API_VERSION)
    top.required("kind", one_of("Rollout"), "Rollout")
    metadata = Fields.of(top.values.get("metadata"), "metadata", _METADATA_FIELDS)
    fields = Fields.of(top.values.get("spec"), "spec", _SPEC_FIELDS)
    spec = RolloutSpec(
        name=metadata.required("name", name, "fraud-7"),
        model=metadata.required("model", name, "fraud-detector"),
        generation=metadata.required("generation", whole(1, GENERATION_MAX), "12"),
        release=fields.required("release", digest, "sha256:..."),
        predecessor=fields.required("predecessor", _digest_or_null, "sha256:..., or null"),
        stages=fields.required("stages", listed(parse_stage), "a list of stages"),
        templates=fields.required("templates", _templates, "a mapping of templates"),
        supersedes=fields.optional("supersedes", listed(name, empty=True), ()),
        rollback=fields.optional("rollback", parse_rollback, Rollback()),
        freshness=fields.optional("freshness", parse_freshness, Freshness()),
        deadline=fields.optional("deadline", parse_deadline, Deadline()),
        nodes=fields.optional("nodes", parse_nodes, NodeRules()),
        propagation=fields.optional("propagation", parse_propagation, Propagation()),
        audience=fields.optional("audience", parse_audience, EVERYBODY),
        background=fields.optional("background", _background, ()),
        watch_factor=fields.optional("watch", parse_watch, WATCH_FACTOR),
        freeze=fields.optional("freeze", parse_freeze, ()),
        trust=metadata.optional("trustVersion", whole(1, 99_999), None),
    )
    _check(spec)
    if len(canonical(spec)) > SPEC_BYTES_MAX:
        raise TooLarge(f"the spec is larger than {SPEC_BYTES_MAX} bytes", fix="use fewer stages")
    return spec


def canonical(spec: RolloutSpec) -> bytes:
    """The bytes to sign and to store."""
    return canonical_json(to_mapping(spec))


def spec_digest(spec: RolloutSpec) -> Digest:
    return Digest.of(canonical(spec))


def salt_of(spec: RolloutSpec) -> str:
    """By which units and nodes fall into buckets: another for every plan."""
    return f"{spec.name}/{spec.generation}/{spec_digest(spec).short}"


def to_mapping(spec: RolloutSpec) -> dict[str, object]:
    """The document that `parse_spec` reads back as an equal plan."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Rollout",
        "metadata": {
            "name": spec.name,
            "model": spec.model,
            "generation": spec.generation,
            **({} if spec.trust is None else {"trustVersion": spec.trust}),
        },
        "spec": {
            "release": str(spec.release),
            "predecessor": str(spec.predecessor) if spec.predecessor else None,
            "supersedes": list(spec.supersedes),
            "rollback": rollback_mapping(spec.rollback),
            "stages": [stage_mapping(stage) for stage in spec.stages],
            "templates": {t.name: template_mapping(t) for t in spec.templates},
            "background": {"templates": list(spec.background)},
            "freeze": freeze_mapping(spec.freeze),
            "freshness": freshness_mapping(spec.freshness),
            "deadline": deadline_mapping(spec.deadline),
            "nodes": nodes_mapping(spec.nodes),
            "propagation": propagation_mapping(spec.propagation),
            "audience": spec.audience.mapping(),
            "watch": watch_mapping(spec.watch_factor),
        },
    }


def _check(spec: RolloutSpec) -> None:
    """What only the whole document can tell."""
    distinct((stage.name for stage in spec.stages), "spec.stages")
    distinct(spec.regions, "spec.stages.regions")
    if any(stage.select for stage in spec.stages) != (spec.trust is not None):
        raise fail(
            "metadata.trustVersion",
            "is there exactly where a stage selects regions by labels",
            "leave it out, and hanse rollout start fills in what it should be",
        )
    # A verdict names a metric without its template, so the name must be enough.
    metrics = [metric for template in spec.templates for metric in template.metrics]
    distinct((metric.name for metric in metrics), "spec.templates.metrics")
    if len(metrics) > METRICS_MAX:
        raise fail("spec.templates", f"{len(metrics)} metrics", f"write at most {METRICS_MAX}")
    distinct(spec.supersedes, "spec.supersedes")
    if len(spec.supersedes) > SUPERSEDES_MAX:
        raise fail("spec.supersedes", "too many", f"write at most {SUPERSEDES_MAX}")
    templates: dict[str, Template] = {template.name: template for template in spec.templates}
    for i, label in enumerate(spec.background):
        known(label, templates, f"spec.background.templates[{i}]", "template")
    for i, stage in enumerate(spec.stages):
        path = f"spec.stages[{i}]"
        _check_gate(spec, i, path)
        check_analyses(stage, path, templates)
        _check_deadline(spec, stage, path)
    check_quorums(spec)
    if spec.nodes.assign == "node":
        _check_whole_nodes(spec)
    if spec.predecessor is None:
        _check_first_release(spec)
    if spec.predecessor == spec.release:
        raise fail("spec.predecessor", "is the release itself", "name the release that it replaces")
    for key, named in (("target", spec.rollback.target), ("fallback", spec.rollback.fallback)):
        if named == spec.release:
            raise fail(
                f"spec.rollback.{key}", "is the release itself", "name what to go back to from it"
            )


def _check_gate(spec: RolloutSpec, i: int, path: str) -> None:
    requires = spec.stages[i].requires
    if i == 0:
        if requires:
            raise fail(f"{path}.requires", "the first stage waits for nobody", "leave it out")
        return
    earlier = {stage.name: stage for stage in spec.stages[:i]}
    if requires is None:
        raise fail(
            f"{path}.requires",
            "missing: this stage would start together with the first",
            f"write requires: {{stage: {spec.stages[i - 1].name}, healthy: all}}",
        )
    known(requires.stage, earlier, f"{path}.requires.stage", "earlier stage")


def _check_deadline(spec: RolloutSpec, stage: Stage, path: str) -> None:
    lengths = [getattr(step, "duration_ms", 0) for step in stage.steps] + [stage.soak_ms]
    for key, limit, needed in (
        ("step", spec.deadline.step_ms, max(lengths)),
        ("stage", spec.deadline.stage_ms, sum(lengths)),
    ):
        if limit is not None and limit <= needed:
            raise fail(
                f"spec.deadline.{key}",
                f"{duration_text(limit)} always passes: {path} alone waits {duration_text(needed)}",
                "write a longer deadline, or shorten the durations",
            )


def _check_whole_nodes(spec: RolloutSpec) -> None:
    """Nodes differ more than requests do: with whole nodes in an arm, a ratio needs room for it."""
    many = spec.nodes.min_online >= MANY_NODES
    margin = WHOLE_NODE_MARGIN if many else FEW_NODES_MARGIN
    for template in spec.templates:
        for metric in template.deciding:
            path = f"spec.templates.{template.name}.metrics"
            if metric.test == "ratio" and metric.margin < margin:
                more = "" if many else f", or {WHOLE_NODE_MARGIN} with minOnline: {MANY_NODES}"
                raise fail(
                    path,
                    f"{metric.name}: a margin of {metric.margin:g} takes nodes that differ for "
                    "harm, where whole nodes are the arms",
                    f"write a margin of at least {margin}{more}, or nodes: {{assign: request}}",
                )
            if metric.test == "sample-ratio":
                raise fail(
                    path,
                    f"{metric.name}: the share of requests is not the share of nodes",
                    "leave it out, or write nodes: {assign: request}",
                )
    if spec.audience.unit:
        raise fail(
            "spec.audience.unit", "has no say where whole nodes are assigned", "leave it out"
        )


def _check_first_release(spec: RolloutSpec) -> None:
    if spec.rollback.target == "predecessor":
        raise fail("spec.rollback.target", "there is no predecessor", "write lastHealthy")
    for template in spec.templates:
        for metric in template.metrics:
            if TESTS[metric.test].needs_control:
                raise fail(
                    f"spec.templates.{template.name}.metrics",
                    f"{metric.name} compares with stable traffic, but predecessor is null",
                    "use test: one-arm with an slo for the first release of a model",
                )
    for i, stage in enumerate(spec.stages):
        for j, step in enumerate(stage.steps):
            if isinstance(step, Shadow) or (isinstance(step, SetWeight) and step.shadow_percent):
                raise fail(
                    f"spec.stages[{i}].steps[{j}].shadow",
                    "there is no stable release whose traffic could be copied",
                    "begin with setWeight for the first release of a model",
                )


def _digest_or_null(value: object, path: str) -> Digest | None:
    return None if value is None else digest(value, path)


def _templates(value: object, path: str) -> tuple[Template, ...]:
    if not isinstance(value, Mapping) or not value or len(value) > LIST_MAX:
        raise fail(path, "is not a mapping of templates", "write safety: {alpha, metrics}")
    return tuple(
        parse_template(label, value[label], f"{path}.{label}") for label in sorted(value, key=str)
    )


def _background(value: object, path: str) -> tuple[Segment, ...]:
    fields = Fields.of(value, path, ("templates",))
    return fields.required("templates", listed(name, empty=True), "[safety]")
