"""A complaint about a plan names the line to correct."""

from __future__ import annotations

from pathlib import Path

import pytest

from hanse.cli import plan_file
from hanse.cli.main import main
from hanse.core.errors import InvalidSpec

EXAMPLES = Path(__file__).parents[2] / "deploy/examples/rollouts"
CAREFUL = (EXAMPLES / "careful.yaml").read_text()


def line_of(text: str, part: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), start=1) if part in line)


def complaint(tmp_path: Path, text: str, name: str = "plan.yaml") -> str:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InvalidSpec) as caught:
        plan_file.lint(path)
    return str(caught.value).removeprefix(f"{path}")


def test_the_examples_are_in_order() -> None:
    for path in EXAMPLES.glob("*.yaml"):
        assert plan_file.lint(path).stages


def test_a_wrong_value_is_named_with_its_line(tmp_path: Path) -> None:
    text = CAREFUL.replace("soak:", "soakk:", 1)
    said = complaint(tmp_path, text)
    assert said.startswith(f":{line_of(text, 'soakk:')}: ")
    assert "did you mean soak" in said


def test_a_field_that_is_missing_is_shown_at_its_parent(tmp_path: Path) -> None:
    text = """spec:
  stages:
    - name: first
      steps:
        - setWeight: 100
  templates: {t: {alpha: 0.01, metrics: [{name: e, test: one-arm, event: error, slo: 5%}]}}
"""
    assert complaint(tmp_path, text).startswith(":3: spec.stages[0].regions: missing")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "matchLabels: {tier: standard}",
            "matchLabel: {tier: standard}",
            "did you mean matchLabels?",
        ),
        ("maxParallel: 2", "maxParallel: two", "maxParallel: 'two' is not a whole number"),
        ("maxAge: 7d", "maxAge: week", "maxAge: 'week' is not a duration"),
        ('from: "15:00"', "from: 15:00", "from: 900 is no time of the day"),
        ("days: [mon]", "days: [mom]", "did you mean mon?"),
        ("prefetch: 2", "prefetch: 20", "rollback.prefetch: 20 is not a whole number"),
        ("minOnline: 5", "minOnlin: 5", "did you mean minOnline?"),
    ],
)
def test_every_kind_of_field_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = (EXAMPLES / "waves.yaml").read_text()
    assert text.count(old) == 1
    text = text.replace(old, new)
    found = complaint(tmp_path, text)
    assert found.startswith(f":{line_of(text, new)}: spec.")
    assert said in found


def test_json_has_lines_too_and_toml_has_none(tmp_path: Path) -> None:
    assert complaint(tmp_path, '{"spec":\n {"stages": 3}}', "plan.json").startswith(":2: ")
    assert complaint(tmp_path, "spec = {stages = 3}", "plan.toml").startswith("spec.stages")


def test_a_plan_that_is_no_mapping_is_refused_with_its_line(tmp_path: Path) -> None:
    assert complaint(tmp_path, "metadata: {}\nspec: 3\n").startswith(":2: spec: ")


def test_the_command_tells_of_every_file_and_fails_if_one_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("spec: {stages: []}")
    good = EXAMPLES / "careful.yaml"
    assert main(["rollout", "lint", str(good), str(bad)]) == 1
    assert "bad.yaml:1" in capsys.readouterr().out
    assert main(["rollout", "lint", str(good)]) == 0
