"""From model files to a signed release, and back to a verdict with no daemon at hand."""

from __future__ import annotations

import base64
import datetime
import json
from dataclasses import replace
from pathlib import Path

import fake_daemon as fake
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hanse.cli.main import main
from hanse.cli.manifest_builder import digest_of, file_name
from hanse.core import dsse
from hanse.core.catalog.manifest import parse_manifest
from hanse.core.ids import Digest
from hanse.core.reading import canonical_json
from hanse.core.signing import SigningKey
from hanse.core.trust import chain
from hanse.core.trust.authority import signers
from hanse.core.trust.members import Person
from hanse.core.trust.statements import RELEASE_TYPE, release_statement
from hanse.daemon import ceremony
from hanse.daemon.trust_folder import add_file, chain_beside, read_files

NOW = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def founder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("founder") / "eu"
    ceremony.init(home, "acme", "eu-north", "127.0.0.1:7420", "", NOW)
    return home


@pytest.fixture
def home(founder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HANSE_HOME", str(founder))
    return founder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return adder(tmp_path / "made", "Adder_V2.onnx")


def adder(folder: Path, name: str, *, width: int = 4, external: str = "") -> Path:
    """y = x + w, the weights inside or beside it."""
    folder.mkdir(exist_ok=True)
    weights = np.arange(width, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = {"save_as_external_data": True, "location": external, "size_threshold": 0}
    onnx.save(made, folder / name, **(options if external else {}))
    return folder / name


def golden(folder: Path, *names: str) -> Path:
    path = folder / "golden.npz"
    np.savez(path, **{name: np.zeros((1, 4), np.float32) for name in names})
    return path


def published(args: dict) -> dict:
    release = str(Digest.of(args["manifest"].encode()))
    return {"event": "ev_0123456789ab", "release": release, "undo": "nothing runs it yet"}


ANSWERS: dict[str, fake.Answer] = {
    "release.prepare": {"counter": 2},
    "release.publish": published,
    "release.show": {"release": fake.OLD["release"]},
}
NAMED = ["-n", "adder", "-v", "2.0.0"]


def publish(home: Path, *arguments: str | Path) -> tuple[int, fake.FakeDaemon]:
    with fake.running(home, ANSWERS) as daemon:
        return main(["release", "publish", *map(str, arguments)]), daemon


def manifest_of(daemon: fake.FakeDaemon):
    (sent,) = daemon.calls("release.publish")
    return parse_manifest(sent["manifest"].encode()), sent


def test_a_release_is_uploaded_then_signed_then_recorded(home, model, capsys):
    code, daemon = publish(home, model, *NAMED)
    assert code == 0
    assert [verb for verb, _ in daemon.asked] == ["release.prepare", "release.publish"]
    manifest, sent = manifest_of(daemon)
    (file,) = manifest.files
    assert (file.name, file.digest) == ("adder_v2.onnx", digest_of(model))
    assert list(daemon.blobs) == [str(file.digest)]
    publishers = ceremony.chain.replay(chain_beside(home)).current.keys("publisher")
    release = Digest.of(sent["manifest"].encode())
    statement = release_statement("adder@2.0.0", release, 2)
    assert signers([sent["envelope"].encode()], publishers, RELEASE_TYPE, statement)
    assert str(release) in capsys.readouterr().out


def test_needs_and_signature_are_read_from_the_file(home, model):
    _, daemon = publish(home, model, *NAMED, "--framework", "onnxruntime=>=1.17")
    manifest, _ = manifest_of(daemon)
    (variant,) = manifest.variants
    assert variant.requires == {
        "onnx.ir": ">=9",
        "onnx.opset.ai.onnx": ">=17",
        "ort": ">=1.17",
    }
    assert manifest.inputs[0].shape == (-1, 4)


def test_what_the_author_says_stands_in_the_manifest(home, model):
    data = "sha256:" + "d" * 64
    arguments = [
        *("--parent", "1.0.0", "--relation", "fine-tuned-from"),
        *("--label", "team=ocr", "--metric", "cer=0.031", "--hyperparameter", "lr=1e-4"),
        *("--training-data", f"docs-2026q3={data}", "--training-data", "scans"),
        *("--outcome", "argmax:y", "--licence", "Apache-2.0", "--residency", "eu-north"),
    ]
    _, daemon = publish(home, model, *NAMED, *arguments)
    manifest, _ = manifest_of(daemon)
    assert manifest.parents[0].relation == "fine-tuned-from"
    assert str(manifest.parents[0].release) == fake.OLD["release"]
    assert (manifest.labels, manifest.metrics) == ({"team": "ocr"}, {"cer": "0.031"})
    assert [(d.name, str(d.digest)) for d in manifest.training_data] == [
        ("docs-2026q3", data),
        ("scans", "None"),
    ]
    assert (manifest.outcome.kind, manifest.outcome.output) == ("argmax", "y")
    assert manifest.residency == ("eu-north",)


def test_what_is_recommended_is_hinted_at(home, model, capsys):
    publish(home, model, *NAMED)
    err = capsys.readouterr().err
    assert "--golden" in err
    assert "--parent" in err


def test_a_folder_goes_as_it_is_with_its_weights(home, tmp_path):
    path = adder(tmp_path / "two", "model.onnx", external="weights.bin")
    _, daemon = publish(home, path.parent, *NAMED)
    manifest, _ = manifest_of(daemon)
    assert [f.name for f in manifest.files] == ["model.onnx", "weights.bin"]
    assert len(daemon.blobs) == 2
    _, daemon = publish(home, path, *NAMED)  # the file alone brings its weights along
    assert manifest_of(daemon)[0] == manifest


def test_variants_of_one_release_have_one_signature(home, tmp_path, capsys):
    adder(tmp_path / "two", "a.onnx")
    adder(tmp_path / "two", "b.onnx")
    _, daemon = publish(home, tmp_path / "two", *NAMED)
    assert [v.id for v in manifest_of(daemon)[0].variants] == ["a", "b"]
    adder(tmp_path / "two", "c.onnx", width=5)
    code, daemon = publish(home, tmp_path / "two", *NAMED)
    assert code == 1
    assert "different inputs or outputs" in capsys.readouterr().err


def test_golden_inputs_travel_with_the_release(home, model, tmp_path):
    path = golden(tmp_path, "in.x", "out.y")
    _, daemon = publish(home, model, *NAMED, "--golden", path, "--rtol", "0.01")
    manifest, _ = manifest_of(daemon)
    assert manifest.golden is not None
    assert (manifest.golden.file, manifest.golden.rtol) == ("golden.npz", 0.01)
    assert len(daemon.blobs) == 2


@pytest.mark.parametrize("names", [("in.x",), ("out.y",), ("in.x", "out.z"), ("x", "y")])
def test_golden_inputs_that_could_not_be_run_are_refused(home, model, tmp_path, names):
    code, daemon = publish(home, model, *NAMED, "--golden", golden(tmp_path, *names))
    assert code == 1
    assert not daemon.asked
    assert not daemon.blobs


@pytest.mark.parametrize(
    "arguments",
    [
        ["--outcome", "argmax:z"],
        ["--outcome", "guess:y"],
        ["--label", "team"],
        ["--parent", "sha256:12"],
        ["--training-data", "docs=md5:1"],
        ["--hyperparameter", "x=" + "9" * 9000],
    ],
)
def test_what_does_not_fit_a_manifest_is_refused_before_anything_is_sent(home, model, arguments):
    code, daemon = publish(home, model, *NAMED, *arguments)
    assert code in (1, 2)
    assert not daemon.blobs
    assert not daemon.calls("release.publish")


def test_a_dry_run_sends_nothing(home, model, capsys):
    code, daemon = publish(home, model, *NAMED, "--dry-run", "-o", "json")
    assert code == 0
    assert not daemon.asked
    assert json.loads(capsys.readouterr().out)["model"] == "adder"


def test_a_symlink_in_the_folder_is_refused(home, model):
    (model.parent / "link.bin").symlink_to("/etc/hostname")
    code, daemon = publish(home, model.parent, *NAMED)
    assert code == 1
    assert not daemon.blobs


def test_two_files_of_one_name_are_refused(home, model):
    (model.parent / "A b.txt").write_text("1")
    (model.parent / "a-b.txt").write_text("2")
    assert publish(home, model.parent, *NAMED)[0] == 1


@pytest.mark.parametrize(
    ("name", "listed"),
    [("ch_PP-OCRv4.onnx", "ch_pp-ocrv4.onnx"), ("Zürich 1.bin", "z-rich-1.bin"), ("_x", "x")],
)
def test_file_names_become_labels(name, listed):
    assert file_name(Path(name)) == listed


# -- verify --------------------------------------------------------------------


@pytest.fixture
def saved(home, model, tmp_path) -> Path:
    """A folder with the model, its manifest and its envelope, as an auditor has it."""
    _, daemon = publish(home, model, *NAMED)
    (sent,) = daemon.calls("release.publish")
    for name in ("manifest", "envelope"):
        (model.parent / f"{name}.json").write_text(sent[name])
    return model.parent


def test_a_release_verifies_from_files_alone(home, saved, capsys):
    assert main(["release", "verify", str(saved)]) == 0
    assert "operator" in capsys.readouterr().out
    assert main(["release", "verify", str(saved / "Adder_V2.onnx"), "--trust", str(home)]) == 0


def test_one_changed_byte_fails_verification(home, saved, capsys):
    file = saved / "Adder_V2.onnx"
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 1
    file.write_bytes(raw)
    assert main(["release", "verify", str(saved), "-o", "json"]) == 5
    said = capsys.readouterr()
    failed = [c["what"] for c in json.loads(said.out)["checks"] if not c["ok"]]
    assert failed == ["adder_v2.onnx"]
    assert "next: do not use what is marked FAILED" in said.err


def test_a_changed_manifest_fails_verification(home, saved):
    path = saved / "manifest.json"
    path.write_text(path.read_text().replace("2.0.0", "2.0.1"))
    assert main(["release", "verify", str(saved)]) == 5


def test_a_signature_by_a_stranger_fails_verification(home, saved, tmp_path):
    ceremony.init(tmp_path / "other", "acme", "eu-north", "127.0.0.1:7", "", NOW)
    assert main(["release", "verify", str(saved), "--trust", str(tmp_path / "other")]) == 5


def test_a_release_that_too_few_have_signed_fails_verification(home, saved, tmp_path, capsys):
    """By a trust version that asks for two publishers, and a second one who signs later."""
    known = chain.replay(read_files(home / "trust"))
    ada = SigningKey(b"A" * 32)
    person = Person("ada", ada.public, ("publisher",), ("*",))
    following = replace(
        known.current,
        version=2,
        people=(*known.current.people, person),
        thresholds={"publisher": 2},
    )
    root = ceremony.root_keys([home / "keys/root.key"])
    raw = chain.sign(following, root, known)
    for version, each in enumerate((*known.files, raw), start=1):
        add_file(tmp_path / "asks-two/trust", version, each)
    verify = ["release", "verify", str(saved), "--trust", str(tmp_path / "asks-two")]
    assert main(verify) == 5
    assert "1 of 2 people" in capsys.readouterr().out
    path = saved / "envelope.json"
    one = path.read_bytes()
    said = dsse.parse_envelope(one, len(one))
    path.write_bytes(dsse.join([one, dsse.sign_envelope(said.payload_type, said.payload, [ada])]))
    assert main(verify) == 0
    assert "ada, operator" in capsys.readouterr().out


def test_a_missing_or_foreign_file_fails_verification(home, saved):
    (saved / "other.onnx").write_bytes(b"x")
    assert main(["release", "verify", str(saved / "other.onnx")]) == 5
    (saved / "Adder_V2.onnx").unlink()
    assert main(["release", "verify", str(saved)]) == 5


def test_a_forged_members_file_exits_with_5(home, saved, tmp_path):
    raw = json.loads((home / "trust/00001.json").read_text())
    root = json.loads(base64.b64decode(raw["files"]["1.root.json"]))
    root["signatures"][0]["sig"] = "00" * 64
    raw["files"]["1.root.json"] = base64.b64encode(canonical_json(root)).decode()
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust/00001.json").write_bytes(canonical_json(raw))
    assert main(["release", "verify", str(saved), "--trust", str(tmp_path)]) == 5
