"""Everything that a manifest says can be given by options, by YAML and by TOML, and is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_daemon as fake
import pytest
from crafted import model, saved
from test_cli_publish import ANSWERS, golden

from hanse.cli import release_file
from hanse.cli.main import main
from hanse.core.catalog.manifest import parse_manifest
from hanse.core.errors import InvalidName, InvalidSpec, NotFound
from hanse.core.ids import Digest

DATA = "sha256:" + "d" * 64
PARENT = "sha256:" + "a" * 64
YAML = f"""
model: ocr-rec
version: 4.0.0
parents: [{{release: {PARENT}, relation: fine-tuned-from}}]
variants:
- file: trt.plan
  requires: {{os: linux, gpu.compute_capability: "8.7", tensorrt: "==10.3", mem.gpu_mib: ">=900"}}
- {{file: model.onnx, id: cuda, requires: {{ort.providers: CUDAExecutionProvider}}}}
- {{file: model.onnx, id: cpu, requires: {{onnx.opset.ai.onnx: ">=18"}}}}
golden: {{file: golden.npz, rtol: 0.01, atol: 0.0}}
outcome: {{kind: number, output: y, rtol: 0.05}}
training:
  data: [{{name: docs-2026q3, digest: "{DATA}"}}, {{name: scans}}]
  hyperparameters: {{lr: 0.0001, epochs: 12, optimiser: adam}}
  metrics: {{cer: 0.031}}
  code: git+https://code.example/ocr@3f2c
frameworks: {{onnxruntime: ">=1.17"}}
labels: {{region: eu-north, hardware: jetson-orin}}
licence: Apache-2.0
residency: [eu-north, us-east]
profile:
- {{tensor: y, side: output, edges: [0.5, 1], counts: [10, 90, 3]}}
"""
TOML = f"""
model = "ocr-rec"
version = "4.0.0"
licence = "Apache-2.0"
residency = ["eu-north", "us-east"]

[[parents]]
release = "{PARENT}"
relation = "fine-tuned-from"

[[variants]]
file = "trt.plan"
requires = {{os = "linux", "gpu.compute_capability" = "8.7", tensorrt = "==10.3", "mem.gpu_mib" = ">=900"}}

[[variants]]
file = "model.onnx"
id = "cuda"
requires = {{"ort.providers" = "CUDAExecutionProvider"}}

[[variants]]
file = "model.onnx"
id = "cpu"
requires = {{"onnx.opset.ai.onnx" = ">=18"}}

[golden]
file = "golden.npz"
rtol = 0.01
atol = 0.0

[outcome]
kind = "number"
output = "y"
rtol = 0.05

[training]
code = "git+https://code.example/ocr@3f2c"
data = [{{name = "docs-2026q3", digest = "{DATA}"}}, {{name = "scans"}}]
hyperparameters = {{lr = 0.0001, epochs = 12, optimiser = "adam"}}
metrics = {{cer = 0.031}}

[frameworks]
onnxruntime = ">=1.17"

[labels]
region = "eu-north"
hardware = "jetson-orin"

[[profile]]
tensor = "y"
side = "output"
edges = [0.5, 1]
counts = [10, 90, 3]
"""  # noqa: E501


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model for two kinds of device, with golden inputs."""
    saved(model(), tmp_path)
    (tmp_path / "trt.plan").write_bytes(b"ftrt" + bytes(64))
    (tmp_path / ".release").mkdir()
    golden(tmp_path / ".release", "in.x", "out.y")
    return tmp_path


def written(folder: Path, text: str, name: str = "release.yaml") -> Path:
    """Beside the golden inputs, and out of the way of the others."""
    path = folder / ".release" / name
    path.write_text(text)
    return path


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, text: str) -> str:
    path = written(folder, text)
    assert main(["release", "publish", str(folder), "--dry-run", "--from", str(path)]) == 1
    return capsys.readouterr().err


def dry_run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    code = main(["release", "publish", *map(str, arguments), "--dry-run", "-o", "json"])
    out = capsys.readouterr()
    assert code == 0, out.err
    return dict(json.loads(out.out))


def options(folder: Path) -> list[str | Path]:
    """The same by options, as far as they go."""
    return [
        *("-n", "ocr-rec", "-v", "4.0.0", "--parent", PARENT, "--relation", "fine-tuned-from"),
        *("--golden", folder / ".release/golden.npz", "--rtol", "0.01", "--atol", "0"),
        *("--outcome", "number:y,rtol=0.05", "--licence", "Apache-2.0"),
        *("--training-data", f"docs-2026q3={DATA}", "--training-data", "scans"),
        *("--hyperparameter", "lr=0.0001", "--hyperparameter", "epochs=12"),
        *("--hyperparameter", "optimiser=adam", "--metric", "cer=0.031"),
        *("--code", "git+https://code.example/ocr@3f2c", "--framework", "onnxruntime=>=1.17"),
        *("--label", "region=eu-north", "--label", "hardware=jetson-orin"),
        *("--residency", "eu-north", "--residency", "us-east"),
        *("--profile", written(folder, YAML[YAML.index("profile:") :], "profile.yaml")),
    ]


def test_yaml_toml_and_options_say_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_yaml = dry_run(capsys, folder, "--from", written(folder, YAML))
    of_toml = dry_run(capsys, folder, "--from", written(folder, TOML, "release.toml"))
    assert of_yaml == of_toml
    only_variants = YAML[YAML.index("variants:") : YAML.index("golden:")]
    of_options = dry_run(
        capsys, folder, *options(folder), "--from", written(folder, only_variants, "v.yaml")
    )
    assert of_options == of_yaml
    assert [v["id"] for v in of_yaml["variants"]] == ["trt", "cuda", "cpu"]
    assert of_yaml["variants"][1]["requires"] == {
        "onnx.ir": ">=9", "onnx.opset.ai.onnx": ">=17", "ort": ">=1.17",
        "ort.providers": "CUDAExecutionProvider",
    }  # fmt: skip
    assert of_yaml["variants"][2]["requires"]["onnx.opset.ai.onnx"] == ">=18"
    assert of_yaml["training"]["hyperparameters"] == {
        "lr": "0.0001", "epochs": "12", "optimiser": "adam"
    }  # fmt: skip
    assert of_yaml["profile"][0]["counts"] == [10, 90, 3]
    assert of_yaml["golden"] == {"file": "golden.npz", "rtol": 0.01, "atol": 0.0}


def test_the_file_may_lie_beside_the_model_and_is_no_part_of_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / ".release/golden.npz").rename(folder / "golden.npz")
    (folder / "release.yaml").write_text(YAML)
    found = dry_run(capsys, folder, "--from", folder / "release.yaml")
    assert [each["name"] for each in found["files"]] == ["golden.npz", "model.onnx", "trt.plan"]


def test_what_an_option_says_comes_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(folder, YAML)
    found = dry_run(
        capsys, folder, "--from", path, "-v", "4.0.1", "--label", "region=us-east",
        "--metric", "wer=0.1", "--residency", "us-east", "--rtol", "0", "--licence", "MIT",
    )  # fmt: skip
    assert found["version"] == "4.0.1"
    assert found["labels"] == {"region": "us-east", "hardware": "jetson-orin"}
    assert found["training"]["metrics"] == {"cer": "0.031", "wer": "0.1"}
    assert (found["residency"], found["golden"]["rtol"]) == (["us-east"], 0.0)
    assert found["licence"] == "MIT"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("modle: x", "did you mean model"),
        ("variants: [{file: model.onnx, needs: {}}]", "needs: unknown field"),
        ("variants: [{file: model.bin}]", "format: missing"),
        ("variants: [{file: model.bin, format: pickle}]", "'pickle' is not allowed"),
        ("variants: [{file: model.onnx, requires: {ort: [1]}}]", "expected a text or a number"),
        ("training: {hyperparameters: {lr: true}}", "expected a text or a number"),
        ("training: {dataa: []}", "dataa: unknown field"),
        ("parents: [{release: 1.0.0, relation: cousin-of}]", "'cousin-of' is not allowed"),
        ("residency: [1]", "expected a text"),
        ("golden: {file: 7}", "expected a text"),
        ("- a", "is not a mapping"),
        ("a: &a [*a]", "cannot be read"),
        ("model: a\nmodel: b", "twice"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_stands(
    text: str, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "release.yaml"
    path.write_text(text)
    with pytest.raises((InvalidSpec, InvalidName), match=why):
        release_file.read(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="--from"):
        release_file.read(tmp_path / "none.yaml")
    assert release_file.read(None) == release_file.Written()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"tensorrt: \"==10.3\", ": ""}, "which tensorrt it runs on"),
        ({"id: cuda": "id: cpu"}, "two variants have one id"),
        ({"file: trt.plan": "file: other.plan"}, "no file other.plan"),
        ({"file: trt.plan": "file: ../trt.plan"}, "no file ../trt.plan"),
        ({'onnx.opset.ai.onnx: ">=18"': 'onnx.opset.ai.onnx: ">=16"'}, "as the file says"),
        ({"mem.gpu_mib": "mem.gpu"}, "nothing that nodes report"),
    ],
)  # fmt: skip
def test_needs_are_held_against_format_and_file(
    changes: dict[str, str], why: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = YAML
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    assert why in refusal(capsys, folder, text)


def test_other_formats_need_somebody_to_say_what_goes_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    named = [
        "release",
        "publish",
        str(tmp_path / "w.safetensors"),
        "-n",
        "m",
        "-v",
        "1",
        "--dry-run",
    ]
    assert main(named) == 1
    assert "write signature" in capsys.readouterr().err
    path = tmp_path / "release.yaml"
    tensor = "{name: x, datatype: FP32, shape: [-1, 4]}"
    path.write_text(f"signature: {{inputs: [{tensor}], outputs: [{tensor}]}}\n")
    assert main([*named, "--from", str(path), "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["variants"][0] == {
        "id": "w", "format": "safetensors", "file": "w.safetensors", "requires": {}
    }  # fmt: skip
    assert found["signature"]["inputs"][0]["shape"] == [-1, 4]


def test_a_signature_that_is_not_the_file_s_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"{YAML}signature: {{inputs: [{{name: z, datatype: FP32, shape: [1]}}]}}\n"
    assert "different inputs or outputs" in refusal(capsys, folder, text)


def test_who_is_not_told_a_name_asks_for_it(folder: Path) -> None:
    assert main(["release", "publish", str(folder), "--dry-run"]) == 2


def test_all_of_it_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = dry_run(capsys, folder, "--from", written(folder, YAML))
    manifest = {k: v for k, v in manifest.items() if k not in ("apiVersion", "kind")}
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    parse_manifest(text.encode())
    shown = {
        "release": str(Digest.of(text.encode())), "model": "ocr-rec", "version": "4.0.0",
        "counter": 1, "state": "recorded", "proven": [], "held": ["eu-north"],
        "active": ["us-east"], "size": 12_345, "parents": [PARENT], "by": "ann",
        "recorded_by": "eu-north", "event": "ev_1",
        "at_ms": 1, "local": False, "manifest": text, "envelope": "{}", "trust_version": 1,
        "parent_versions": {PARENT: "3.9.0"},
    }  # fmt: skip
    home = folder / "home"
    home.mkdir()
    with fake.running(home, {**ANSWERS, "release.show": shown}):
        assert main(["release", "show", "ocr-rec@4.0.0", "--home", str(home)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for said in (
        "name ocr-rec@4.0.0", "held in eu-north", "size 12.3 kB in 3 files",
        f"parent 3.9.0 (fine-tuned-from) {PARENT}", f"trained on docs-2026q3 {DATA}",
        "trained on scans without a digest", "hyperparameter lr 0.0001", "metric cer 0.031",
        "code git+https://code.example/ocr@3f2c", "label region eu-north",
        "label hardware jetson-orin", "licence Apache-2.0", "framework onnxruntime >=1.17",
        "variant 1 trt: tensorrt-plan, trt.plan", "needs trt: tensorrt ==10.3",
        "variant 2 cuda: onnx, model.onnx", "variant 3 cpu: onnx, model.onnx",
        "input x FP32 [-1, 4]", "output y FP32 [-1, 4]",
        "golden golden.npz, within rtol 0.01 and atol 0", "outcome number of y, rtol 0.05, atol 0",
        "reference output:y: 103 in 3 bins", "files may lie in eu-north, us-east",
        "files are here no", "active in us-east",
    ):  # fmt: skip
        assert said in out, said
