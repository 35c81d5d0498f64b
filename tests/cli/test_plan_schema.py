"""The schema for editors against the strict reader: equal fields, and nothing refused in vain."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hanse.cli.main import main
from hanse.cli.plan_schema import schema
from hanse.core.errors import Rejected
from hanse.core.rollout.spec import parse_spec, to_mapping

ROOT = Path(__file__).parents[2]
SCHEMA = schema()
RELEASE, STABLE = "sha256:" + "9f" * 32, "sha256:" + "41" * 32
ERRORS = {"name": "errors", "test": "ratio", "event": "error", "margin": 1.5, "provenBelow": 2.0}
QUERY = {"bad": 'bad{r="$release"}', "total": 'all{r="$release"}'}
FULL: dict[str, Any] = {
    "apiVersion": "hanse.dev/v1alpha1",
    "kind": "Rollout",
    "metadata": {"name": "r-7", "model": "m", "generation": 7, "trustVersion": 3},
    "spec": {
        "release": RELEASE,
        "predecessor": STABLE,
        "supersedes": ["r-6"],
        "rollback": {
            "target": "predecessor",
            "window": {"revisions": 3},
            "fallback": STABLE,
            "prefetch": 2,
        },
        "stages": [
            {
                "name": "pilot",
                "regions": ["eu-north"],
                "steps": [
                    {"shadow": {"sample": "10%", "duration": "30m", "minSamples": 5}},
                    {"analysis": {"templates": ["all"], "minSamples": 5}},
                    {"setWeight": {"weight": 10, "shadow": "100%"}},
                    {"pause": {"duration": "1m", "minSamples": 5}},
                    {"approve": {"role": "approver", "count": 2}},
                    {"setWeight": 100},
                ],
                "soak": "1h",
            },
            {
                "name": "wave",
                "regions": {"matchLabels": {"tier": "standard"}, "maxParallel": 2},
                "requires": {"stage": "pilot", "healthy": "all", "maxAge": "72h"},
                "steps": [
                    {"setWeight": 50},
                    {"analysis": {"templates": ["some"]}},
                    {"setWeight": 100},
                ],
            },
        ],
        "templates": {
            "all": {
                "alpha": 0.01,
                "metrics": [
                    ERRORS,
                    {"name": "pairs", "test": "paired", "provenBelow": "none"},
                    {"name": "d", "test": "difference", "margin": 0.1, "provenBelow": 0.2},
                    {"name": "s", "test": "sample-ratio", "onFail": "hold"},
                    {"name": "drift", "test": "drift", "series": "output:y", "delta": "5%"},
                ],
                "dryRun": ["s"],
            },
            "some": {
                "alpha": 0.01,
                "metrics": [
                    {
                        "name": "b",
                        "test": "one-arm",
                        "event": "slow",
                        "slo": 0.1,
                        "provenBelow": 0.2,
                    },
                    {
                        "name": "p",
                        "test": "one-arm",
                        "prometheus": QUERY,
                        "slo": "5%",
                        "provenBelow": "none",
                    },
                ],
            },
        },
        "background": {"templates": ["some"]},
        "freeze": [{"days": ["fri"], "from": "16:00", "to": "24:00", "zone": "UTC"}],
        "freshness": {
            "heardFrom": "requires",
            "within": "5m",
            "telemetry": "2m",
            "otherwise": "hold",
        },
        "deadline": {"step": "6h", "stage": "48h", "onExceeded": "hold"},
        "nodes": {
            "assign": "request",
            "minOnline": 2,
            "offline": "exclude",
            "failing": "10%",
            "silentAfterUpdate": "15m",
            "onExceeded": "rollback",
        },
        "propagation": {"onLocalRollback": "hold", "quarantineQuorum": 2},
        "audience": {
            "unit": "customer",
            "target": [
                {"attribute": "device", "in": ["dock", 3]},
                {"attribute": "device", "notIn": ["x"]},
                {"attribute": "device", "startsWith": ["d"]},
                {"attribute": "firmware", "atLeast": 3},
                {"attribute": "firmware", "below": 9},
                {"attribute": "beta", "present": False},
            ],
        },
        "watch": {"factor": 1.5},
    },
}


# -- a reader of schemas, of the keywords that ours uses -----------------------


def deref(node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        return node | SCHEMA["$defs"][node["$ref"].removeprefix("#/$defs/")]
    return node


KINDS = {"object": dict, "array": list, "string": str, "null": type(None), "boolean": bool}
KNOWN = frozenset(
    re.findall(
        r"\S+",
        """
        $ref $schema $id $defs title description const enum pattern anyOf allOf if then type
        properties additionalProperties propertyNames required minProperties maxProperties
        items minItems maxItems minimum maximum exclusiveMinimum exclusiveMaximum
        minLength maxLength
        """,
    )
)


def is_of(value: Any, kind: str) -> bool:
    if kind in ("integer", "number"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (kind == "number" or value == int(value))
    return isinstance(value, KINDS[kind])


def errors(value: Any, node: dict[str, Any], path: str = "") -> Iterator[str]:
    node = deref(node)
    assert node.keys() <= KNOWN, node.keys() - KNOWN
    kinds = node.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(is_of(value, kind) for kind in kinds):
        yield f"{path}: not {kinds}"
        return
    if "const" in node and value != node["const"]:
        yield f"{path}: not {node['const']}"
    if "enum" in node and value not in node["enum"]:
        yield f"{path}: not one of {node['enum']}"
    if "anyOf" in node and all(list(errors(value, each, path)) for each in node["anyOf"]):
        yield f"{path}: none of the choices"
    for each in node.get("allOf", ()):
        if not list(errors(value, each["if"], path)):
            yield from errors(value, each["then"], path)
    if isinstance(value, str):
        if "pattern" in node and not re.search(node["pattern"], value):
            yield f"{path}: {value!r} does not match"
        if not node.get("minLength", 0) <= len(value) <= node.get("maxLength", 10**9):
            yield f"{path}: length"
    if is_of(value, "number"):
        if not node.get("minimum", value) <= value <= node.get("maximum", value):
            yield f"{path}: {value} out of range"
        low, high = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
        if (low is not None and value <= low) or (high is not None and value >= high):
            yield f"{path}: {value} out of range"
    if isinstance(value, list):
        if not node.get("minItems", 0) <= len(value) <= node.get("maxItems", 10**9):
            yield f"{path}: {len(value)} items"
        for i, item in enumerate(value):
            yield from errors(item, node.get("items", {}), f"{path}[{i}]")
    if isinstance(value, dict):
        if not node.get("minProperties", 0) <= len(value) <= node.get("maxProperties", 10**9):
            yield f"{path}: {len(value)} fields"
        yield from (f"{path}.{k}: missing" for k in node.get("required", ()) if k not in value)
        for key, item in value.items():
            yield from errors(key, node.get("propertyNames", {}), f"{path}.{key}")
            if key in node.get("properties", {}):
                yield from errors(item, node["properties"][key], f"{path}.{key}")
            elif node.get("additionalProperties") is False:
                yield f"{path}.{key}: unknown field"
            elif isinstance(more := node.get("additionalProperties"), dict):
                yield from errors(item, more, f"{path}.{key}")


def objects(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object with fixed fields that the schema describes."""
    if isinstance(node, dict):
        if "properties" in node and node.get("additionalProperties") is False:
            yield node
        for value in node.values():
            yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)


def places(value: Any, node: dict[str, Any], keys: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Where in a document the schema has an object with fixed fields, and which."""
    node = deref(node)
    for each in node.get("anyOf", ()):
        if not list(errors(value, each)):
            yield from places(value, each, keys)
    if isinstance(value, dict):
        if "properties" in node:
            yield keys, node
        for key, item in value.items():
            inner = node.get("properties", {}).get(key, node.get("additionalProperties"))
            if isinstance(inner, dict):
                yield from places(item, inner, (*keys, key))
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from places(item, node.get("items", {}), (*keys, i))


def changed(keys: tuple[Any, ...], change: Any) -> dict[str, Any]:
    document = copy.deepcopy(FULL)
    target: Any = document
    for key in keys[:-1]:
        target = target[key]
    if keys:
        target[keys[-1]] = change(
            target[keys[-1]] if isinstance(target, list) else target.get(keys[-1])
        )
        return document
    return dict(change(document))


# -- promises ------------------------------------------------------------------


def test_the_file_in_docs_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", "schema"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs/rollout.schema.json").read_text()


def test_a_plan_with_every_field_is_accepted_by_both() -> None:
    assert list(errors(FULL, SCHEMA)) == []
    assert list(errors(to_mapping(parse_spec(FULL)), SCHEMA)) == []


def test_both_know_the_same_fields_at_every_place() -> None:
    seen: list[int] = []
    found = list(places(FULL, SCHEMA))
    for keys, node in found:
        with pytest.raises(Rejected) as caught:
            parse_spec(changed(keys, lambda old: {**old, "zzzz": 1}))
        known = caught.value.fix.removeprefix("known here: ").split(", ")
        assert "unknown field" in caught.value.message, keys
        assert set(known) == set(node["properties"]), keys
        assert list(errors(changed(keys, lambda old: {**old, "zzzz": 1}), SCHEMA)), keys
        seen.append(json.dumps(node, sort_keys=True))  # type: ignore[arg-type]  # only compared
    every = {json.dumps(node, sort_keys=True) for node in objects(SCHEMA)}
    assert every - set(seen) == set()  # no object of the schema that the plan above lacks


def leaves(value: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield keys
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in inner:
        yield from leaves(item, (*keys, key))


POOL: list[Any] = [None, True, 0, 1, 2, 7, 50, 100, 0.05, 0.5, 1.25, 2.0, "", "all", "majority"]
POOL += ["none", "hold", "rollback", "10m", "2h", "0s", "5%", "100%", "sun", "08:30", "+02:00"]
POOL += [[], {}, ["a"], ["mon", "sun"], [RELEASE], STABLE, "disable", "lastHealthy", "node"]
POOL += ["one-arm", "ratio", "error", "wrong", {"factor": 3}, {"weight": 5, "shadow": "5%"}, "x-1"]


def test_whatever_the_reader_accepts_is_valid() -> None:
    """Every value of the pool at every place of a plan that has every field."""
    accepted = 0
    for keys in leaves(FULL):
        for value in POOL if keys else ():
            document = changed(keys, lambda _, value=value: copy.deepcopy(value))
            try:
                plan = parse_spec(document)
            except Rejected:
                continue
            accepted += document != FULL
            assert list(errors(document, SCHEMA)) == [], (keys, value)
            assert list(errors(to_mapping(plan), SCHEMA)) == [], (keys, value)
    assert accepted > 200


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("spec", "stages", 0, "steps", 5), {"setWeigth": 1}),
        (("spec", "stages", 0, "steps", 5), {"setWeight": 1, "pause": {"duration": "1m"}}),
        (("spec", "stages", 0, "steps", 5), {"setWeight": 101}),
        (("spec", "stages", 0, "soak"), "2 hours"),
        (("spec", "stages", 1, "requires", "healthy"), "most"),
        (("spec", "freeze", 0, "from"), 960),
        (("spec", "templates", "some", "metrics", 0, "margin"), 1.5),
        (("spec", "templates", "all", "metrics", 0, "test"), "t-test"),
        (("spec", "watch"), "nobody"),
        (("metadata", "generation"), "7"),
    ],
)
def test_an_editor_marks_what_the_reader_would_refuse(keys: tuple[Any, ...], value: Any) -> None:
    document = changed(keys, lambda _: value)
    assert list(errors(document, SCHEMA))
    with pytest.raises(Rejected):
        parse_spec(document)


def written() -> list[Path]:
    return [
        *(ROOT / "deploy/examples/rollouts").glob("*.yaml"),
        *(ROOT / "scripts").rglob("plans/*.yaml"),
    ]


@pytest.mark.parametrize("path", written(), ids=lambda path: path.name)
def test_the_plans_that_are_shipped_are_valid_as_they_are_written(path: Path) -> None:
    assert list(errors(yaml.safe_load(path.read_text()), SCHEMA)) == []
