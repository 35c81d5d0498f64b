"""Rollout plans as people write them: YAML, TOML or JSON, with what Hanse knows filled in.

A file may leave out `apiVersion`, `kind`, the generation, the release and its predecessor.
What it does say is never changed; a plan for another release is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanse.cli import documents
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Digest
from hanse.core.rollout.spec import API_VERSION

if TYPE_CHECKING:
    from hanse.cli.shapes import RolloutPrepared
    from hanse.core.rollout.plan import RolloutSpec


def read(path: Path) -> dict[str, Any]:
    """The document. Raises `NotFound` or `InvalidSpec`."""
    return documents.read(path, "--plan", "begin with metadata: and spec:")


def complete(
    document: Mapping[str, Any], model: str, prepared: RolloutPrepared, name: str | None
) -> dict[str, Any]:
    """Fill in what only the daemon knows. Raises `InvalidSpec` where the file says otherwise."""
    metadata = dict(document.get("metadata") or {})
    spec = dict(document.get("spec") or {})
    if name is not None:
        metadata["name"] = name
    for holder, key, value in (
        (metadata, "model", model),
        (spec, "release", prepared["release"]),
    ):
        if holder.setdefault(key, value) != value:
            raise InvalidSpec(
                f"the plan is for {key} {holder[key]}, the command for {value}",
                fix=f"leave {key} out of the plan",
            )
    metadata.setdefault("generation", prepared["generation"])
    metadata.setdefault("name", f"r-{metadata['generation']}")
    spec.setdefault("predecessor", prepared["predecessor"])
    if any(isinstance(regions, Mapping) for regions in _regions(document)):
        metadata.setdefault("trustVersion", prepared["trust"])
    return {
        "apiVersion": API_VERSION,
        "kind": "Rollout",
        **document,
        "metadata": metadata,
        "spec": spec,
    }


def named(document: Mapping[str, Any], path: Path) -> dict[str, str]:
    """The model and release that a plan names. Raises `InvalidSpec` if it leaves them out."""
    holders = {key: document.get(key) for key in ("metadata", "spec")}
    found = {
        key: holder.get(key)
        for holder, key in ((holders["metadata"], "model"), (holders["spec"], "release"))
        if isinstance(holder, Mapping)
    }
    if not all(isinstance(found.get(key), str) for key in ("model", "release")):
        raise InvalidSpec(
            f"{path} leaves out metadata.model or spec.release",
            fix=f"name the release: hanse rollout plan MODEL@VERSION --plan {path}",
        )
    return {key: str(value) for key, value in found.items()}


def covered(document: Mapping[str, Any], labels: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The regions that the stages of an unchecked plan name or select."""
    found: dict[str, None] = {}
    for regions in _regions(document):
        if isinstance(regions, list):
            found |= {str(region): None for region in regions}
        elif isinstance(match := regions.get("matchLabels"), Mapping):
            wanted = {str(key): value for key, value in match.items()}
            found |= {r: None for r, have in labels.items() if wanted.items() <= have.items()}
    return list(found)


def _regions(document: Mapping[str, Any]) -> Iterator[list[Any] | Mapping[str, Any]]:
    spec = document.get("spec")
    stages = spec.get("stages") if isinstance(spec, Mapping) else None
    for stage in stages if isinstance(stages, list) else ():
        regions = stage.get("regions") if isinstance(stage, Mapping) else None
        if isinstance(regions, list | Mapping):
            yield regions


def parsed(path: Path, document: Mapping[str, Any]) -> RolloutSpec:
    """The plan of a document that was read from `path`; a complaint names the line."""
    from hanse.cli.plan_lines import located
    from hanse.core.rollout.spec import parse_spec

    try:
        return parse_spec(document)
    except InvalidSpec as error:
        raise located(error, path) from None


def lint(path: Path) -> RolloutSpec:
    """Check a plan without a daemon: what only a daemon knows is made up where it is left out.

    Raises `NotFound` or `InvalidSpec`.
    """
    document = read(path)
    metadata, spec = document.get("metadata"), document.get("spec")
    made_up = _made_up()
    if isinstance(spec, Mapping) and isinstance(spec.get("release"), str):
        made_up = {**made_up, "release": spec["release"]}
    model = metadata.get("model", "model") if isinstance(metadata, Mapping) else "model"
    holders = {"metadata": metadata, "spec": spec}
    if not all(value is None or isinstance(value, Mapping) for value in holders.values()):
        return parsed(path, {"apiVersion": API_VERSION, "kind": "Rollout", **document})
    return parsed(path, complete(document, model, made_up, None))


def template(path: Path, model: str) -> RolloutSpec:
    """A plan for releases that nobody knows yet. Raises `NotFound` or `InvalidSpec`."""
    document = read(path)
    spec = document.get("spec")
    if isinstance(spec, Mapping) and {"release", "predecessor"} & set(spec):
        raise InvalidSpec(f"{path} names a release", fix="leave out release and predecessor")
    if any(isinstance(regions, Mapping) for regions in _regions(document)):
        raise InvalidSpec(
            f"{path} selects regions by labels, which may change while it is kept",
            fix="name the regions one by one",
        )
    return parsed(path, complete(document, model, _made_up(), None))


def _made_up() -> RolloutPrepared:
    return {
        "release": str(Digest.of(b"the release")),
        "version": "0",
        "predecessor": str(Digest.of(b"its predecessor")),
        "generation": 1,
        "regions": [],
        "labels": {},
        "trust": 1,
        "under_way": None,
    }


def default_plan(regions: Sequence[str], *, first_release: bool) -> dict[str, Any]:
    """A tenth, a half, all; in the first region alone, then in the others.

    Errors must be proven to stay under 5 %, and beside a stable release nothing may show that
    they have grown by more than a quarter. Growth alone could never be disproved where there
    are no errors, and most services have almost none.
    """
    proof = {"name": "error-rate", "test": "one-arm", "event": "error"}
    metrics: list[dict[str, Any]] = [{**proof, "slo": 0.05, "provenBelow": 0.05}]
    background = ["safety"]
    growth: dict[str, Any] = {"name": "error-growth", "test": "ratio", "event": "error"}
    analysis = {"analysis": {"templates": ["safety"], "minSamples": 100}}
    steps = [{"setWeight": 10}, analysis, {"setWeight": 50}, analysis, {"setWeight": 100}]
    templates: dict[str, Any] = {"safety": {"alpha": 0.01, "metrics": metrics}}
    if not first_release:
        growth |= {"margin": 1.25, "provenBelow": "none"}
        templates["growth"] = {"alpha": 0.01, "metrics": [growth]}
        background.append("growth")
    stages: list[dict[str, Any]] = [{"name": "first", "regions": list(regions[:1]), "steps": steps}]
    if len(regions) > 1:
        requires = {"stage": "first", "healthy": "all"}
        rest = {"name": "rest", "regions": list(regions[1:]), "steps": steps}
        stages.append({**rest, "requires": requires})
    return {
        "spec": {
            "stages": stages,
            "templates": templates,
            "background": {"templates": background},
        }
    }
