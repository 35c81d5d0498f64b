"""The JSON schema of a rollout plan as people write it, for editors: names, kinds, choices.

Made from the constants of the strict reader where it has them, and held against it by a test: both
know the same fields at every place, and what the reader accepts is valid here. What only the whole
document can tell (weights that rise, metrics that can be decided) the reader alone says:
`hanse rollout lint`.
"""

from __future__ import annotations

from typing import Any, Final

from hanse.core import audience, limits
from hanse.core.rollout import fields, freeze_windows, spec, steps, templates
from hanse.core.rollout.plan import APPROVERS

Schema = dict[str, Any]
URL: Final = "https://hanse.dev/schemas/rollout.schema.json"


def schema() -> Schema:
    """The whole of it, in the form of draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": URL,
        "title": "Hanse rollout plan",
        **_object(
            "A rollout of one release, stage by stage. hanse rollout start fills in what is "
            "left out of metadata, and spec.release and spec.predecessor.",
            ("spec",),
            apiVersion={"const": spec.API_VERSION},
            kind={"const": "Rollout"},
            metadata=_object(
                "Which rollout this is.",
                name=_name("Default: r-GENERATION."),
                model=_name("The model."),
                generation=_whole("Above every earlier one of the model.", 1, spec.GENERATION_MAX),
                trustVersion=_whole("By whose labels stages select regions.", 1, 99_999),
            ),
            spec=_spec(),
        ),
        "$defs": {
            "name": {"type": "string", "pattern": r"^[a-z0-9][a-z0-9._-]{0,63}$"},
            "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
            "duration": {"type": "string", "pattern": "^[0-9]{1,12}(ms|s|m|h|d)$"},
            "percent": {"type": "string", "pattern": r"^([1-9]|[1-9][0-9]|100|0[0-9]{1,2})%$"},
            "share": {
                "anyOf": [
                    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                    {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,6})?%$"},
                ]
            },
            "names": {"type": "array", "items": _ref("name"), "maxItems": fields.LIST_MAX},
        },
    }


def _spec() -> Schema:
    return _object(
        "What is rolled out, where, and on what evidence.",
        ("stages", "templates"),
        release=_ref("digest", "The release: content address of its manifest."),
        predecessor=_either("What serves now; null: a first release.", _ref("digest"), _null()),
        supersedes=_ref("names", "Rollouts that this one cancels."),
        rollback=_rollback(),
        stages=_list(_stage(), "Regions that begin together, in order."),
        templates={
            "description": "Analyses by name.",
            "type": "object",
            "minProperties": 1,
            "maxProperties": fields.LIST_MAX,
            "propertyNames": _ref("name"),
            "additionalProperties": _template(),
        },
        background=_object(
            "Judged for harm in every state with traffic.", ("templates",), templates=_ref("names")
        ),
        freeze=_list(_window(), "Hours of the week in which nothing begins or rises.", least=0),
        freshness=_object(
            "How recent news must be.",
            heardFrom={"const": "requires"},
            within=_ref("duration", "Required regions were heard since, or nothing rises."),
            telemetry=_ref("duration", "Without telemetry or traffic for longer: hold."),
            otherwise={"const": "hold"},
        ),
        deadline=_object(
            "How long it may take.",
            step=_ref("duration"),
            stage=_ref("duration"),
            onExceeded=_choice("What happens then.", "hold", "rollback"),
        ),
        nodes=_nodes(),
        propagation=_object(
            "What one region's rollback means to the others.",
            onLocalRollback={"const": "hold"},
            quarantineQuorum=_whole("As in the trust file.", 1, 1000),
        ),
        audience=_audience(),
        watch=_either(
            "Harm after the promotion; none: nobody watches.",
            {"const": "none"},
            _object("", ("factor",), factor=_number("Times the rate of the rollout.", 1, 100)),
        ),
    )


def _rollback() -> Schema:
    return _object(
        "Where to go back to from this release once it is active.",
        target=_either("Tried first.", {"enum": ["lastHealthy", "predecessor"]}, _ref("digest")),
        window=_object(
            "How far back.", ("revisions",), revisions=_whole("Generations of ancestors.", 1, 100)
        ),
        fallback=_either("If nothing else is fit.", {"const": "disable"}, _ref("digest")),
        prefetch=_whole("So many lie on every disk.", 1, limits.LAST_GOOD_MAX),
    )


def _stage() -> Schema:
    labels = {
        "description": "Labels that a region must carry, all of them.",
        "type": "object",
        "minProperties": 1,
        "maxProperties": limits.LABELS_MAX,
        "propertyNames": _ref("name"),
        "additionalProperties": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    }
    selector = _object(
        "Regions by their labels in the trust file.",
        ("matchLabels",),
        matchLabels=labels,
        maxParallel=_whole("So many at once.", 1, fields.LIST_MAX),
    )
    return _object(
        "Regions that begin together.",
        ("name", "regions", "steps"),
        name=_name(""),
        regions=_either("By name, or by labels.", _list(_ref("name"), ""), selector),
        requires=_object(
            "The gate: what an earlier stage must have attested.",
            ("stage", "healthy"),
            stage=_name("An earlier stage."),
            healthy=_either(
                "How many of its regions.",
                {"enum": ["all", "majority"]},
                {"type": "integer", "minimum": 1},
            ),
            maxAge=_ref("duration", "No attestation may be older, from 5m."),
        ),
        steps=_list(_step(), "One after another; the last weight is 100."),
        soak=_ref("duration", "From the last step to healthy."),
    )


def _step() -> Schema:
    samples = _whole("At least so many requests.", 0, 10**9)
    kinds = {
        "shadow": _object(
            "Copy traffic; nobody sees the answers.",
            ("sample", "duration"),
            sample=_ref("percent"),
            duration=_ref("duration"),
            minSamples=samples,
        ),
        "setWeight": _either(
            "Give this share to the release.",
            {"type": "integer", "minimum": 1, "maximum": 100},
            _object(
                "And go on comparing answers.",
                ("weight", "shadow"),
                weight=_whole("Percent.", 1, 100),
                shadow=_ref("percent"),
            ),
        ),
        "pause": _object(
            "Stay at this weight.",
            ("duration",),
            duration=_ref("duration"),
            minSamples=samples,
        ),
        "analysis": _object(
            "Go on once all that these ask for is proven.",
            ("templates",),
            templates={**_ref("names"), "minItems": 1},
            minSamples=samples,
        ),
        "approve": _object(
            "Wait until people have signed.",
            ("role",),
            role=_choice("", *APPROVERS),
            count=_whole("So many of them.", 1, 100),
        ),
    }
    assert kinds.keys() == steps.STEPS.keys()
    return {**_object("One kind of step.", (), **kinds), "minProperties": 1, "maxProperties": 1}


def _template() -> Schema:
    return _object(
        "Metrics that decide together.",
        ("alpha", "metrics"),
        alpha=_number("Level that they share.", 1e-9, 0.5),
        metrics=_list(_metric(), "What is measured."),
        dryRun=_ref("names", "Shown, and decide nothing."),
    )


def _metric() -> Schema:
    query = {"type": "string", "minLength": 1, "maxLength": templates.QUERY_CHARS_MAX}
    number = {"type": "number"}
    none = {"const": "none"}
    made = _object(
        "One metric.",
        ("name", "test"),
        name=_name("Once in the whole plan."),
        test=_choice("How it is judged.", *templates.OF_TEST),
        event={"enum": sorted({"wrong", *_events()})},
        prometheus=_object(
            "Counts that a Prometheus server has.", ("bad", "total"), bad=query, total=query
        ),
        margin=number | {"description": "Harm: worse than this."},
        provenBelow=_either("Healthy: proven below this.", number, _ref("share"), none),
        slo=_ref("share", "Harm: a rate above this."),
        series={"type": "string", "minLength": 1, "maxLength": 128},
        delta=_ref("share", "Drift: further than this from the profile."),
        onFail=_choice("", "rollback", "hold"),
    )
    made["allOf"] = [
        {
            "if": {"properties": {"test": {"const": test}}, "required": ["test"]},
            "then": {"propertyNames": {"enum": ["name", "test", "onFail", *takes]}},
        }
        for test, takes in templates.OF_TEST.items()
    ]
    return made


def _events() -> set[str]:
    return {each for test, of in templates.EVENTS_OF.items() if test != "paired" for each in of}


def _window() -> Schema:
    day = {"enum": list(freeze_windows.DAYS)}
    time = {"type": "string", "pattern": "^([01][0-9]|2[0-4]):[0-5][0-9]$"}
    made = _object(
        'Within one day; write times with quotes: "16:00".',
        (),
        days=_either("Default: every day.", day, _list(day, "")),
        **{"from": time},
        to=time,
        zone={"type": "string", "pattern": "^(UTC|[+-](0[0-9]|1[0-4]):(00|15|30|45))$"},
    )
    return {**made, "minProperties": 1}


def _nodes() -> Schema:
    return _object(
        "How nodes share in a weight, and when they speak against the release.",
        assign=_choice("A share of requests, or of the nodes.", "request", "node"),
        minOnline=_whole("With fewer online nothing rises.", 0, limits.NODES_MAX),
        offline={"const": "exclude"},
        failing=_ref("share", "More than this may not fail to run it."),
        silentAfterUpdate=_ref("duration", "Silent for so long with it counts as failing."),
        onExceeded=_choice("What happens then.", "hold", "rollback"),
    )


def _audience() -> Schema:
    attribute = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_.-]{0,63}$"}
    number = {"type": "number"}
    texts = _list({"type": ["string", "number", "boolean"]}, "", most=audience.VALUES_MAX)
    kinds = {
        "in": texts,
        "notIn": texts,
        "startsWith": texts,
        "atLeast": number,
        "below": number,
        "present": {"type": "boolean"},
    }
    assert tuple(kinds) == audience.OPERATORS
    rule = _object("One attribute, one operator.", ("attribute",), attribute=attribute, **kinds)
    rule |= {"minProperties": 2, "maxProperties": 2}
    return _object(
        "Whom it is for.",
        unit=attribute,
        target=_list(rule, "All must be met.", least=0, most=audience.RULES_MAX),
    )


# -- kinds ---------------------------------------------------------------------


def _object(description: str, required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    made: Schema = {"description": description} if description else {}
    made |= {"type": "object", "properties": properties, "additionalProperties": False}
    return {**made, "required": list(required)} if required else made


def _ref(name: str, description: str = "") -> Schema:
    made: Schema = {"description": description} if description else {}
    return {**made, "$ref": f"#/$defs/{name}"}


def _name(description: str) -> Schema:
    return _ref("name", description)


def _null() -> Schema:
    return {"type": "null"}


def _either(description: str, *choices: Schema) -> Schema:
    return {"description": description, "anyOf": list(choices)}


def _choice(description: str, *names: str) -> Schema:
    return ({"description": description} if description else {}) | {"enum": list(names)}


def _list(
    items: Schema, description: str, *, least: int = 1, most: int = fields.LIST_MAX
) -> Schema:
    made: Schema = {"description": description} if description else {}
    return {**made, "type": "array", "items": items, "minItems": least, "maxItems": most}


def _whole(description: str, low: int, high: int) -> Schema:
    return {"description": description, "type": "integer", "minimum": low, "maximum": high}


def _number(description: str, low: float, high: float) -> Schema:
    return {"description": description, "type": "number", "minimum": low, "maximum": high}
