"""`hanse heal` and the end of a release's life, against canned answers."""

from __future__ import annotations

import json
from pathlib import Path

import fake_daemon as fake
import pytest
import yaml

from hanse.cli.main import main
from hanse.core.ids import Digest, member_id, segment
from hanse.core.signing import SigningKey
from hanse.core.trust.authority import signers
from hanse.core.trust.mandate import Mandate, misfit
from hanse.core.trust.statements import CONTROL_TYPE, control_statement
from hanse.daemon.private_files import write_seed

KEY = SigningKey(bytes(31) + b"\7")
DONE = {"event": "ev_0123456789ab", "undo": "hanse do the opposite"}
PLAN = """
spec:
  stages:
    - name: pilot
      regions: [eu-north]
      steps:
        - shadow: {sample: 100%, duration: 1s}
        - setWeight: 50
        - approve: {role: release-manager}
        - setWeight: 100
        - analysis: {templates: [sound]}
  templates:
    sound:
      alpha: 0.05
      metrics:
        - {name: errors, test: one-arm, event: error, slo: 5%, provenBelow: 5%}
"""
USES = {
    **fake.NEW,
    "model": "ocr-rec",
    "state": "proven",
    "retired": "",
    "regions": [{"region": "eu-north", "since_ms": 1_795_000_000_000, "heard_s": 2.0}],
    "nodes": [{"node": "n1", "runs": True, "online": True, "seen_s": 3.0}],
    "blocks": ["eu-north runs it"],
}
HEALED = {
    "model": "ocr-rec",
    "declared": True,
    "mandate": True,
    "uses_left": 2,
    "healings": [
        {
            "retrain": "ab" * 32,
            "at_ms": 1_795_000_000_000,
            "region": "eu-north",
            "release": fake.OLD,
            "cause": "serving",
            "reason": "worse: accuracy",
            "outcome": "passed",
            "child": fake.NEW,
            "why": "right in 190 of 200",
            "rollout": "heal-3",
            "settled": False,
        }
    ],
    "waits": [],
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HANSE_HOME", str(tmp_path))
    write_seed(tmp_path / "keys/operator.key", KEY.seed)
    (tmp_path / "hanse.toml").write_text("")
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path


def signed(envelope: str, statement: bytes) -> bool:
    keys = {member_id(KEY.public): KEY.public}
    return bool(signers([envelope.encode()], keys, CONTROL_TYPE, statement))


def test_a_mandate_is_signed_over_the_plan_without_what_differs(home, capsys):
    words = ["heal", "mandate", "ocr-rec", "--plan", str(home / "plan.yaml"), "--uses", "3"]
    answer = {"model": "ocr-rec", "uses": 3, "undo": "hanse heal revoke ocr-rec"}
    with fake.running(home, {"heal.mandate": answer}) as daemon:
        assert main(words) == 0
        draft = home / "draft.json"
        assert main([*words, "--draft", str(draft)]) == 0
        assert main(["statement", "sign", str(draft), "-y"]) == 0
        assert main(["statement", "submit", str(draft)]) == 0
    asked, again = daemon.calls("heal.mandate")
    assert asked == again
    mandate = Mandate(segment("ocr-rec"), Digest.of(asked["plan"].encode()), 3).encode()
    assert signed(asked["envelope"], mandate)
    plan = json.loads(asked["plan"])
    plan["metadata"] |= {"name": "heal-9", "generation": 9}
    plan["spec"] |= {"release": fake.NEW["release"], "predecessor": fake.OLD["release"]}
    assert misfit(mandate, segment("ocr-rec"), json.dumps(plan).encode()) == ""
    out = capsys.readouterr().out
    assert "may roll out what answers its retraining of ocr-rec, 3 times" in out
    assert "event" not in out.splitlines()[0]


def test_a_plan_that_names_a_release_is_no_template(home, capsys):
    document = yaml.safe_load(PLAN)
    document["spec"]["release"] = fake.NEW["release"]
    (home / "plan.yaml").write_text(yaml.safe_dump(document))
    with fake.running(home, {}):
        assert main(["heal", "mandate", "ocr-rec", "--plan", str(home / "plan.yaml")]) == 1
    assert "leave out release and predecessor" in capsys.readouterr().err


def test_what_was_healed_is_shown_and_what_waits_for_a_person_is_unhealthy(home, capsys):
    with fake.running(home, {"heal.status": {"models": [HEALED]}}):
        assert main(["heal", "status"]) == 0
    out = capsys.readouterr().out
    assert "under a mandate, 2 uses left" in out
    assert "heal-3" in out
    waits = {"release": fake.OLD, "why": "4.0.1 was to heal it", "person": True}
    with fake.running(home, {"heal.status": {"models": [{**HEALED, "waits": [waits]}]}}):
        assert main(["heal", "status"]) == 3
    assert "4.0.1 was to heal it (waits for a person)" in capsys.readouterr().out


def test_a_release_that_is_needed_is_not_retired(home, capsys):
    with fake.running(home, {"release.uses": USES, "release.retire": DONE}) as daemon:
        assert main(["release", "uses", "ocr-rec@4.0.0"]) == 3
        assert main(["release", "retire", "ocr-rec@4.0.0", "--reason", "old", "-y"]) == 1
        assert main(["release", "deprecate", "ocr-rec@4.0.0", "--reason", "old"]) == 0
    (asked,) = daemon.calls("release.retire")
    assert asked["phase"] == "deprecated"
    said = capsys.readouterr()
    assert "in the way of retiring it: eu-north runs it" in said.out
    assert "cannot be retired: eu-north runs it" in said.err


def test_one_that_nobody_needs_is_retired_with_a_signature(home):
    free = {**USES, "regions": [], "nodes": [], "blocks": []}
    with fake.running(home, {"release.uses": free, "release.retire": DONE}) as daemon:
        assert main(["release", "uses", "ocr-rec@4.0.0"]) == 0
        assert main(["release", "retire", "ocr-rec@4.0.0", "--reason", "old", "-y"]) == 0
    (asked,) = daemon.calls("release.retire")
    scope = {"release": fake.NEW["release"], "phase": "retired"}
    assert signed(asked["envelope"], control_statement("retire", "ocr-rec", **scope))
