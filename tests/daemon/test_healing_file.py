"""What an operator may declare about healing, and what each mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from hanse.core.errors import HanseError, NotPermitted
from hanse.core.ids import Segment
from hanse.daemon.healing_file import Command, HttpCall, Pipeline, load

COMMAND = '[ocr.command]\nargv = ["/bin/true"]\nfolder = "work"\n'


def declared(home: Path, text: str) -> Path:
    (home / "healing.toml").write_text(text)
    return home


def test_without_the_file_nothing_is_healed(tmp_path: Path) -> None:
    assert load(tmp_path) == {}


def test_defaults_are_careful(tmp_path: Path) -> None:
    found = load(declared(tmp_path, COMMAND))[Segment("ocr")]
    assert (found.policy.cooldown_s, found.policy.budget) == (3600, 3)
    assert found.policy.window_s == 7 * 86_400
    assert found.hook == Command(("/bin/true",), tmp_path / "work", 3600.0, {})


def test_every_field_is_read(tmp_path: Path) -> None:
    (tmp_path / "heldout.npz").touch()
    (tmp_path / "token").touch()
    text = """
[ocr]
causes = ["serving"]
cooldown = "10m"
budget = 1
window = "1d"
deadline = "2h"
heldout = "heldout.npz"
heldout_min = "90%"
[ocr.http]
url = "https://trainer.example/x/"
timeout = "5s"
attempts = 2
token = "token"
secret = "token"
[fraud.kubeflow]
url = "http://ml-pipeline:8888"
pipeline_id = "p"
pipeline_version_id = "v"
experiment_id = "e"
service_account = "s"
parameters = {key = "{retrain}"}
"""
    found = load(declared(tmp_path, text))
    ocr, fraud = found[Segment("ocr")], found[Segment("fraud")]
    assert (ocr.policy.causes, ocr.policy.cooldown_s, ocr.deadline_s) == (("serving",), 600, 7200)
    assert (ocr.heldout, ocr.heldout_min) == (tmp_path / "heldout.npz", 0.9)
    token = tmp_path / "token"
    assert ocr.hook == HttpCall("https://trainer.example/x", 5.0, 2, token, token)
    assert fraud.hook == Pipeline(
        "http://ml-pipeline:8888", 30.0, 8, None, "p", "v", "e", "s", {"key": "{retrain}"}
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[ocr]\nbudget = 3\n", "declares none"),
        (COMMAND + '[ocr.http]\nurl = "http://x"\n', "declares command and http"),
        ('[ocr.command]\nargv = ["true"]\nfolder = "w"\n', "no absolute path"),
        ('[ocr.command]\nargv = "rm -rf"\nfolder = "w"\n', "not a list"),
        ("[ocr.command]\nargv = []\nfolder = 'w'\n", "not a list"),
        (COMMAND + "shell = true\n", "unknown field"),
        (COMMAND + 'environment = {"A B" = "x"}\n', "no name"),
        ('[ocr.http]\nurl = "ftp://x"\n', "no URL"),
        ('[ocr.http]\nurl = "http://x"\nsecret = "gone"\n', "there is no file"),
        ('[ocr]\ncooldwon = "1h"\n' + COMMAND, "did you mean cooldown"),
        ("[ocr]\nbudget = 0\n" + COMMAND, "whole number"),
        ('[ocr]\ncauses = ["bored"]\n' + COMMAND, "not known"),
        ("[OCR.command]\n", "OCR"),
        ("[ocr", "not valid TOML"),
        ("x = 1\n" * 20000, "larger than"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(HanseError, match=said):
        load(declared(tmp_path, text))


def test_a_file_that_others_may_write_is_not_obeyed(tmp_path: Path) -> None:
    declared(tmp_path, COMMAND)
    (tmp_path / "healing.toml").chmod(0o666)
    with pytest.raises(NotPermitted, match="others may write it"):
        load(tmp_path)


def test_the_example_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "deploy/examples/healing.toml").read_text()
    found = load(declared(tmp_path, text))[Segment("ocr-rec")]
    assert found.policy.causes == ("undone", "serving")
    every = text.replace("# heldout =", "heldout =").replace("# secret =", "secret =")
    for name in ("heldout.npz", "hook.secret"):
        (tmp_path / name).touch()
    assert load(declared(tmp_path, every))[Segment("ocr-rec")].heldout
