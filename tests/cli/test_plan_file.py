from __future__ import annotations

import json
from pathlib import Path

import pytest

from hanse.cli import plan_file
from hanse.core.errors import InvalidSpec, NotFound
from hanse.core.rollout.spec import parse_spec

DIGEST = "sha256:" + "2" * 64
PREPARED = {
    "release": DIGEST,
    "version": "4.0.0",
    "predecessor": "sha256:" + "1" * 64,
    "generation": 5,
    "regions": ["a", "b", "c"],
    "labels": {"a": {"tier": "pilot"}, "b": {"tier": "standard", "zone": "1"}, "c": {}},
    "trust": 7,
    "under_way": None,
}


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("predecessor", [None, PREPARED["predecessor"]])
@pytest.mark.parametrize("regions", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_the_default_plan_is_a_valid_plan_for_any_regions(predecessor, regions):
    document = plan_file.default_plan(regions, first_release=predecessor is None)
    prepared = PREPARED | {"predecessor": predecessor}
    spec = parse_spec(plan_file.complete(document, "m", prepared, None))
    assert [r for stage in spec.stages for r in stage.regions] == regions
    assert (spec.name, spec.generation) == ("r-5", 5)


def test_the_trust_version_is_filled_in_where_a_stage_selects_by_labels():
    document = plan_file.default_plan(["a", "b"], first_release=False)
    assert plan_file.covered(document, PREPARED["labels"]) == ["a", "b"]
    assert "trustVersion" not in plan_file.complete(document, "m", PREPARED, None)["metadata"]
    document["spec"]["stages"][1]["regions"] = {"matchLabels": {"tier": "standard"}}
    assert plan_file.covered(document, PREPARED["labels"]) == ["a", "b"]
    spec = parse_spec(plan_file.complete(document, "m", PREPARED, None))
    assert (spec.trust, spec.regions) == (7, ("a",))  # the others are found by whoever folds it
    document["spec"]["stages"][1]["regions"]["matchLabels"] = {"tier": "standard", "zone": "2"}
    assert plan_file.covered(document, PREPARED["labels"]) == ["a"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.yaml", "metadata: {name: x}\nspec: {soak: 1}\n"),
        ("p.toml", '[metadata]\nname = "x"\n[spec]\nsoak = 1\n'),
        ("p.json", json.dumps({"metadata": {"name": "x"}, "spec": {"soak": 1}})),
    ],
)
def test_three_spellings_are_one_document(tmp_path, name, text):
    assert plan_file.read(written(tmp_path, name, text)) == {
        "metadata": {"name": "x"},
        "spec": {"soak": 1},
    }


@pytest.mark.parametrize(
    "text",
    [
        "spec: {a: 1, a: 2}",
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
        "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\n"
        "d: [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]",
        "spec: [",
        "- a list",
        "spec: !!python/object/apply:os.system ['true']",
        "",
    ],
)
def test_a_plan_that_can_be_misread_is_refused(tmp_path, text):
    with pytest.raises(InvalidSpec):
        plan_file.read(written(tmp_path, "p.yaml", text))


def test_a_huge_or_missing_plan_is_refused(tmp_path):
    with pytest.raises(InvalidSpec):
        plan_file.read(written(tmp_path, "p.yaml", "#" * 70_000))
    with pytest.raises(NotFound):
        plan_file.read(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "document",
    [{"metadata": {"model": "other"}}, {"spec": {"release": "sha256:" + "3" * 64}}],
)
def test_a_plan_for_something_else_is_refused(document):
    with pytest.raises(InvalidSpec, match="the plan is for"):
        plan_file.complete(document, "m", PREPARED, None)


def test_what_the_file_says_is_kept():
    document = {"metadata": {"name": "mine", "generation": 9}, "spec": {"predecessor": None}}
    found = plan_file.complete(document, "m", PREPARED, None)
    assert found["metadata"] == {"name": "mine", "generation": 9, "model": "m"}
    assert found["spec"]["predecessor"] is None
    assert plan_file.complete(document, "m", PREPARED, "yours")["metadata"]["name"] == "yours"
