"""The commands against canned answers: what they ask, what they print, how they end."""

from __future__ import annotations

import json
from pathlib import Path

import fake_daemon as fake
import pytest
import yaml

from hanse.cli import waiting
from hanse.cli.main import main
from hanse.core.errors import Conflict, InvalidSignature, NotFound, NotPermitted, Unavailable
from hanse.core.ids import Digest, member_id
from hanse.core.rollout.spec import parse_spec
from hanse.core.signing import SigningKey
from hanse.core.trust.authority import signers
from hanse.core.trust.statements import CONTROL_TYPE, control_statement, rollout_statement
from hanse.daemon.private_files import write_seed

KEY = SigningKey(bytes(31) + b"\7")
DONE = {"event": "ev_0123456789ab", "undo": "hanse do the opposite"}
PREPARED = {
    **fake.NEW,
    "predecessor": fake.OLD["release"],
    "labels": {},
    "trust": 1,
    "under_way": None,
    "generation": 17,
    "regions": ["eu-north", "us-east"],
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HANSE_HOME", str(tmp_path))
    monkeypatch.setattr(waiting, "POLL_S", 0.0)
    write_seed(tmp_path / "keys/operator.key", KEY.seed)
    (tmp_path / "hanse.toml").write_text("")
    return tmp_path


def signed(envelope: str, statement: bytes) -> bool:

    keys = {member_id(KEY.public): KEY.public}
    return bool(signers([envelope.encode()], keys, CONTROL_TYPE, statement))


# -- status ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "code"),
    [("failing", 3), ("conflict", 3), ("held", 3), ("degraded", 3), ("frozen", 0), ("healthy", 0)],
)
def test_status_exits_with_3_if_anything_is_unhealthy(home, state, code):
    answer = fake.status(fake.region("eu-north", state, nodes=fake.counts(7, 8)))
    with fake.running(home, {"status": answer}):
        assert main(["status"]) == code


def test_status_shows_sentence_counts_and_age(home, capsys):
    row = fake.region("eu-north", "failing", nodes=fake.counts(7, 8, ["edge-af-3"]))
    with fake.running(home, {"status": fake.status(row)}):
        main(["status"])
    out = capsys.readouterr().out
    assert out.startswith("ocr-rec 4.0.0 FAILING")
    assert "7/8 (1 offline)" in out
    assert "offline: edge-af-3 (eu-north)" in out
    assert "3.0% of n=1000, 4 s ago" in out
    assert "peers 5/6" in out


def test_a_region_that_nobody_knows_is_not_healthy(home, capsys):
    with fake.running(home, {"status": fake.status(fake.region("eu-north", "healthy"))}):
        assert main(["status", "--region", "eu-north"]) == 0
        assert main(["status", "--region", "eu-nroth"]) == 1
    assert "known: eu-north" in capsys.readouterr().err


def test_of_many_nodes_that_are_offline_some_are_named(home, capsys):
    counts = fake.counts(0, 0, [f"n{i:02}" for i in range(20)])
    rows = [fake.region(name, "healthy", nodes=counts) for name in ("eu-north", "eu-north")]
    with fake.running(home, {"status": fake.status(*rows)}):
        main(["status"])
    (line,) = [s for s in capsys.readouterr().out.splitlines() if s.startswith("offline: ")]
    assert line.endswith("n06 (eu-north), n07 (eu-north) and 12")


@pytest.mark.parametrize(
    ("level", "kept", "words"),
    [
        ("low", True, "DISK LOW: 40 of 1000 MiB free, nothing new is begun here"),
        ("full", False, "no events of others are taken; the reserve is used up"),
    ],
)
def test_status_begins_with_a_disk_that_is_nearly_full(home, capsys, level, kept, words):
    answer = fake.status(fake.region("eu-north", "healthy"))
    room = {"free_bytes": 40 * 2**20, "total_bytes": 1000 * 2**20, "reserve_kept": kept}
    answer["daemon"]["disk"] = {"level": level, **room}
    with fake.running(home, {"status": answer}):
        assert main(["status"]) == 0
    assert words in capsys.readouterr().out.splitlines()[0]


def test_status_says_what_is_damaged_and_for_a_week_what_was(home, capsys):
    answer = fake.status(fake.region("eu-north", "healthy"))
    rot = {"digest": f"sha256:{'0' * 64}", "what": "file", "at_ms": answer["at_ms"] - 7_200_000}
    answer["daemon"]["damage"] = [{**rot, "healed": False}, {**rot, "healed": True}]
    with fake.running(home, {"status": answer}):
        main(["status"])
    out = capsys.readouterr().out
    assert out.startswith("DAMAGED: 1 file is no longer as")
    assert "made good in the last week: 1, the last of it 2 h ago; check the disk" in out
    answer["daemon"]["damage"] = [{**rot, "healed": True, "at_ms": answer["at_ms"] - 10**9}]
    with fake.running(home, {"status": answer}):
        main(["status"])
    assert "check the disk" not in capsys.readouterr().out


def test_json_carries_every_field_and_says_what_it_is(home, capsys):
    answer = fake.status(fake.region("eu-north", "healthy"))
    with fake.running(home, {"status": answer}):
        main(["status", "-o", "json"])
    found = json.loads(capsys.readouterr().out)
    assert found == {"apiVersion": "hanse.dev/v1alpha1", "kind": "Status", **answer}


def test_yaml_says_the_same_as_json_and_name_only_names(home, capsys):
    answer = fake.status(fake.region("eu-north", "healthy"))
    with fake.running(home, {"status": answer}):
        main(["status", "-o", "yaml"])
        assert yaml.safe_load(capsys.readouterr().out)["models"] == answer["models"]
        main(["status", "-o", "name"])
        assert capsys.readouterr().out == "ocr-rec\n"


def test_one_region_can_be_asked_for(home, capsys):
    answer = fake.status(fake.region("eu-north", "failing"), fake.region("us-east", "healthy"))
    with fake.running(home, {"status": answer}):
        assert main(["status", "--region", "us-east"]) == 0
    assert "failing" not in capsys.readouterr().out


def test_text_from_elsewhere_cannot_steer_the_terminal(home, capsys):
    row = fake.region("eu-north", "healthy") | {"reason": "ok\x1b[2J\u202etxt\nfake line"}
    with fake.running(home, {"status": fake.status(row)}):
        main(["status"])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\nfake line" not in out


# -- exit codes ----------------------------------------------------------------


def test_a_missing_daemon_exits_with_6_and_says_how_to_start_it(home, capsys):
    assert main(["status"]) == 6
    assert "hanse daemon run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("no such model"), 1),
        (Conflict("moved on"), 1),
        (NotPermitted("no"), 1),
        (InvalidSignature("forged"), 5),
        (Unavailable("the peer is away"), 6),
    ],
)
def test_each_error_has_its_exit_code_its_fix_and_its_own_code(home, capsys, error, code):
    error.fix = "do this next"
    with fake.running(home, {"status": error}):
        assert main(["status"]) == code
    said = capsys.readouterr()
    assert "do this next" in said.err
    assert "hanse explain E0" in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["status", "--nonsense"],
        ["rollout", "start", "ocr-rec"],
        ["rollback", "ocr-rec", "--timeout", "soon", "--reason", "x"],
        ["freeze", "ocr-rec", "--reason", "x", "--until", "teatime"],
        ["sim", "--faults", "biblical"],
    ],
)
def test_wrong_use_exits_with_2(home, arguments):
    with fake.running(home, {"status": {}}) as daemon:
        assert main(arguments) == 2
    assert daemon.asked == []


# -- changes -------------------------------------------------------------------

ROLLED_BACK = {**DONE, "region": "eu-north", "from": fake.NEW, "to": fake.OLD}
CHANGES = {
    "rollback": ["rollback", "ocr-rec", "--reason", "INC-341", "--yes"],
    "freeze": ["freeze", "ocr-rec", "--reason", "INC-341"],
    "unfreeze": ["unfreeze", "ocr-rec"],
    "rollout.start": ["rollout", "start", "ocr-rec@4.0.0"],
    "pause": ["rollout", "pause", "ocr-rec"],
    "resume": ["rollout", "resume", "ocr-rec", "r-17"],
    "abort": ["rollout", "abort", "ocr-rec", "--reason", "x", "--yes"],
}
HOLD = {
    "hold": "ab" * 32,
    "event": "ev_abababababab",
    "release": None,
    "reason": "INC-341",
    "until_ms": None,
    "at_ms": 1,
}
ANSWERS: dict[str, fake.Answer] = {
    "status": fake.status(fake.region("eu-north", "failing", nodes=fake.counts(8, 8))),
    "rollback": ROLLED_BACK,
    "freeze": {**DONE, "hold": "ab" * 32},
    "holds": {"holds": [HOLD]},
    "unfreeze": DONE,
    "rollout.prepare": PREPARED,
    "rollout.start": {**DONE, "rollout": "r-17"},
    "rollout.status": fake.rollouts("running"),
    "rollout.control": DONE,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_prints_its_event_and_what_undoes_it(home, capsys, name):
    with fake.running(home, ANSWERS):
        assert main(CHANGES[name]) == 0
        out = capsys.readouterr().out
        assert "ev_0123456789ab" in out
        assert "undo: hanse do the opposite" in out
        assert main([*CHANGES[name], "-o", "json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["event"] == DONE["event"]
        assert found["undo"] == DONE["undo"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["rollback", "ocr-rec", "--yes"],
        ["freeze", "ocr-rec"],
        ["rollout", "abort", "ocr-rec", "--yes"],
    ],
)
def test_a_reason_is_mandatory_outside_a_terminal(home, capsys, arguments):
    with fake.running(home, ANSWERS) as daemon:
        assert main(arguments) == 2
    assert "--reason" in capsys.readouterr().err
    assert not daemon.asked


def test_a_rollback_without_confirmation_changes_nothing(home):
    with fake.running(home, ANSWERS) as daemon:
        assert main(["rollback", "ocr-rec", "--reason", "x"]) == 2
    assert not daemon.calls("rollback")


def test_a_rollback_says_what_it_will_move_and_who_asked(home, capsys):
    with fake.running(home, ANSWERS) as daemon:
        main(CHANGES["rollback"])
    assert "will move 8 nodes of eu-north from 4.0.0 to 3.0.0" in capsys.readouterr().err
    (asked,) = daemon.calls("rollback")
    assert asked["reason"] == "INC-341"
    assert asked["by"]


def moving(*stands: fake.shapes.Nodes):
    """A status that moves on with every question and stays at the last."""
    left = list(stands)

    def answer(_):
        nodes = left.pop(0) if len(left) > 1 else left[0]
        active = fake.OLD if len(left) == 1 else fake.NEW
        return fake.status(fake.region("eu-north", "healthy", active, nodes))

    return answer


def test_a_watched_rollback_ends_when_every_online_node_has_moved(home, capsys):
    stands = moving(fake.counts(0, 8), fake.counts(3, 8), fake.counts(7, 7, ["edge-af-3"]))
    with fake.running(home, ANSWERS | {"status": stands}):
        assert main([*CHANGES["rollback"], "--watch"]) == 0
    err = capsys.readouterr().err
    assert "eu-north 3/8 on 3.0.0" in err
    assert "edge-af-3" in err


def test_a_rollback_that_does_not_arrive_in_time_exits_with_4(home, capsys):
    stands = moving(fake.counts(0, 8), fake.counts(7, 8))
    with fake.running(home, ANSWERS | {"status": stands}):
        assert main([*CHANGES["rollback"], "--watch", "--timeout", "50ms"]) == 4
    said = capsys.readouterr()
    assert "7/8" in said.err
    assert "ev_0123456789ab" in said.out  # what was ordered is told even so


def test_pause_without_a_name_means_the_current_rollout(home):
    with fake.running(home, ANSWERS) as daemon:
        main(CHANGES["pause"])
    (asked,) = daemon.calls("rollout.control")
    assert (asked["action"], asked["rollout"]) == ("pause", "r-17")
    assert "envelope" not in asked


def test_resume_is_signed_for_exactly_its_scope(home):
    with fake.running(home, ANSWERS) as daemon:
        main([*CHANGES["resume"], "--region", "eu-north"])
    (asked,) = daemon.calls("rollout.control")
    scope = control_statement("resume", "ocr-rec", rollout="r-17", region="eu-north")
    assert signed(asked["envelope"], scope)


def test_unfreeze_is_signed_for_exactly_its_hold(home):
    with fake.running(home, ANSWERS) as daemon:
        main([*CHANGES["unfreeze"], "--hold", "ev_abab"])
    (asked,) = daemon.calls("unfreeze")
    assert signed(asked["envelope"], control_statement("lift", "ocr-rec", hold="ab" * 32))


def test_unfreeze_asks_which_of_several_holds(home, capsys):
    two = {"holds": [HOLD, HOLD | {"hold": "cd" * 32}]}
    with fake.running(home, ANSWERS | {"holds": two}) as daemon:
        assert main(["unfreeze", "ocr-rec"]) == 1
        assert main(["unfreeze", "ocr-rec", "--hold", "99"]) == 1
    assert "cdcdcdcdcdcd" in capsys.readouterr().err
    assert not daemon.calls("unfreeze")


def test_a_key_that_others_can_read_signs_nothing(home, capsys):
    (home / "keys/operator.key").chmod(0o644)
    with fake.running(home, ANSWERS) as daemon:
        assert main(CHANGES["unfreeze"]) == 1
    assert "chmod 600" in capsys.readouterr().err
    assert not daemon.calls("unfreeze")


@pytest.mark.parametrize("until", ["2h", "09:00", "2030-01-01T09:00"])
def test_a_freeze_may_say_until_when(home, until):
    import time

    with fake.running(home, ANSWERS) as daemon:
        main([*CHANGES["freeze"], "--until", until])
    (asked,) = daemon.calls("freeze")
    assert asked["until_ms"] > time.time() * 1000


# -- rollouts ------------------------------------------------------------------


def test_a_rollout_is_signed_as_the_canonical_bytes_that_are_sent(home):
    with fake.running(home, ANSWERS) as daemon:
        assert main(CHANGES["rollout.start"]) == 0
    (asked,) = daemon.calls("rollout.start")
    spec = parse_spec(json.loads(asked["spec"]))
    assert (spec.model, spec.generation) == ("ocr-rec", 17)
    assert (spec.release, spec.predecessor) == (
        Digest.parse(fake.NEW["release"]),
        Digest.parse(fake.OLD["release"]),
    )
    assert signed(asked["envelope"], rollout_statement("ocr-rec", asked["spec"].encode()))


def test_a_dry_run_prints_a_plan_that_can_be_given_back(home, capsys, tmp_path):
    with fake.running(home, ANSWERS) as daemon:
        assert main([*CHANGES["rollout.start"], "--dry-run"]) == 0
        plan = tmp_path / "plan.yaml"
        plan.write_text(capsys.readouterr().out)
        assert main([*CHANGES["rollout.start"], "--plan", str(plan)]) == 0
    (asked,) = daemon.calls("rollout.start")
    assert parse_spec(json.loads(asked["spec"])) == parse_spec(yaml.safe_load(plan.read_text()))


PLANNED = {
    "model": "ocr-rec",
    "rollout": "r-17",
    "generation": 17,
    "release": fake.NEW,
    "predecessor": fake.OLD,
    "objections": [],
    "stages": [
        {"stage": "all", "regions": ["eu"], "starts": "at once", "steps": ["pause"], "soak": "1h"}
    ],
    "freeze": ["fri 16:00 to 24:00 UTC"],
    "regions": [
        {"region": "eu", "stage": "all", "active": None, "admitted": False, "download_bytes": 7}
    ],
    "keeps": [fake.OLD],
    "canaries": [{"weight": 10, "count": 1, "of": 9}],
    "nodes": [
        {"variant": "cuda", "why": "", "download_bytes": 12_500_000, "travels_bytes": 12_500_000,
         "files": [], "count": 8, "online": 7, "names": ["a", "b"]},
        {"variant": "cpu", "why": "", "download_bytes": 12_500_000, "travels_bytes": 700_000,
         "files": [], "count": 1, "online": 1, "names": ["c"]},
        {"variant": None, "why": "cuda needs ort >=1.17, has 1.10.0", "download_bytes": 0,
         "travels_bytes": 0, "files": [], "count": 1, "online": 1, "names": ["old"]},
    ],
}  # fmt: skip


def test_a_plan_is_shown_before_anything_happens_and_nothing_is_started(home, capsys, tmp_path):
    answers = {"rollout.prepare": PREPARED, "rollout.plan": PLANNED}
    with fake.running(home, answers) as daemon:
        assert main(["rollout", "plan", "ocr-rec@4.0.0", "--regions", "eu-north"]) == 0
        out = capsys.readouterr().out
        file = tmp_path / "plan.json"
        (first,) = daemon.calls("rollout.plan")
        file.write_text(first["spec"])
        assert main(["rollout", "plan", str(file)]) == 0  # a file that names its release
        assert daemon.calls("rollout.plan")[1] == first
        file.write_text(json.dumps({"spec": json.loads(first["spec"])["spec"]}))
        assert main(["rollout", "plan", str(file)]) == 1
        assert "hanse rollout plan MODEL@VERSION --plan" in capsys.readouterr().err
    assert {verb for verb, _ in daemon.asked} == {"rollout.prepare", "rollout.plan"}
    for said in (
        "all (eu) starts at once",
        "pause > soak 1h",
        "nothing begins or rises fri 16:00 to 24:00 UTC",
        "its residency keeps the release out",
        "kept to go back to: 3.0.0",
        "at weight 10 1 of 9 nodes answer with it alone",
        "8 nodes, 7 online: cuda, each fetches up to 12.5 MB (a, b, ...)",
        "1 node, 1 online: cpu, each fetches up to 700.0 kB of 12.5 MB: the rest is equal in what "
        "it runs (c)",
        "1 node, 1 online: cannot run it, cuda needs ort >=1.17, has 1.10.0 (old)",
    ):
        assert said in out, said


def test_a_plan_that_would_be_refused_says_why_and_exits_with_3(home, capsys):
    refused = PLANNED | {"objections": ["r-16 is under way (write supersedes: [r-16])"]}
    with fake.running(home, {"rollout.prepare": PREPARED, "rollout.plan": refused}):
        assert main(["rollout", "plan", "ocr-rec@4.0.0", "--regions", "eu-north"]) == 3
    assert "would be refused: r-16 is under way" in capsys.readouterr().out


def test_supersede_names_the_rollout_under_way_in_what_is_signed(home):
    with fake.running(home, ANSWERS | {"rollout.prepare": PREPARED | {"under_way": "r-16"}}) as d:
        assert main(CHANGES["rollout.start"]) == 0
        assert main([*CHANGES["rollout.start"], "--supersede"]) == 0
    said = [json.loads(asked["spec"])["spec"]["supersedes"] for asked in d.calls("rollout.start")]
    assert said == [[], ["r-16"]]


@pytest.mark.parametrize(
    ("state", "code"), [("running", 0), ("healthy", 0), ("held", 3), ("rolled-back", 3)]
)
def test_rollout_status_exits_with_3_if_one_failed(home, capsys, state, code):
    with fake.running(home, {"rollout.status": fake.rollouts(state)}):
        assert main(["rollout", "status", "ocr-rec"]) == code
    out = capsys.readouterr().out
    assert "inconclusive" in out
    assert "trial 30 of 1000" in out


def test_watching_a_rollout_ends_with_its_outcome(home):
    left = ["running", "running", "rolled-back"]

    def answer(_):
        return fake.rollouts(left.pop(0) if len(left) > 1 else left[0])

    with fake.running(home, {"rollout.status": answer}):
        assert main(["rollout", "status", "--watch"]) == 3


def test_watching_a_rollout_that_is_undecided_exits_with_4(home):
    with fake.running(home, {"rollout.status": fake.rollouts("running")}):
        assert main(["rollout", "status", "--watch", "--timeout", "20ms"]) == 4


def test_a_collection_says_what_goes_what_stays_and_why(home, capsys):
    row = {"model": "ocr-rec", "version": "3.0.0", "release": "sha256:1", "size": 12_300_000}
    found = {
        "dry_run": True, "bytes": 12_300_000, "kept_bytes": 700, "blobs": [],
        "releases": [
            {**row, "goes": 12_300_000, "why": []},
            {**row, "version": "4.0.0", "size": 700, "goes": 0, "why": ["serves here"]},
        ],
    }  # fmt: skip
    with fake.running(home, {"gc": found}) as daemon:
        assert main(["gc", "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert main(["gc", "--dry-run", "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["bytes"] == 12_300_000
    assert daemon.calls("gc")[0] == {"dry_run": True, "grace_s": 86400.0, "unused": False}
    assert "ocr-rec@3.0.0  12.3 MB  would go  nothing reaches it" in said
    assert "ocr-rec@4.0.0  700 B    stays     serves here" in said
    assert "12.3 MB would go, 700 B stay" in said


# -- questions -----------------------------------------------------------------


def test_lineage_shows_parents_and_regions(home, capsys):
    child, parent = fake.NEW["release"], fake.OLD["release"]
    empty = {"counter": 1, "training_data": [], "barred": False, "proven": [], "by": "ann"}
    empty |= {"retired": "", "residency": ["*"]}
    answer = {
        "model": "ocr-rec",
        "nodes": [
            {**fake.OLD, **empty, "parents": [], "regions": {"eu-north": "active"}},
            {
                **fake.NEW,
                **empty,
                "counter": 2,
                "parents": [{"release": parent, "relation": "retrained-from"}],
                "regions": {},
                "training_data": ["docs-2026q3"],
                "residency": ["eu-north", "us-east"],
                "barred": True,
            },
        ],
        "edges": [{"child": child, "parent": parent, "relation": "retrained-from"}],
    }
    with fake.running(home, {"lineage": answer}) as daemon:
        assert main(["lineage", "ocr-rec@4.0.0"]) == 0
        assert daemon.calls("lineage") == [{"model": "ocr-rec", "version": "4.0.0"}]
    out = capsys.readouterr().out
    assert "3.0.0 (retrained-from)" in out
    assert "eu-north: active" in out
    assert "every region" in out
    assert "eu-north, us-east" in out
    assert "barred" in out


def test_why_answers_first_and_shows_what_it_rests_on(home, capsys):
    answer = {
        "model": "ocr-rec",
        "version": "4.0.0",
        "release": fake.NEW["release"],
        "region": "eu-north",
        "sentences": ["4.0.0 was rolled back", "errors rose"],
        "metrics": fake.rollouts("held")["rollouts"][0]["regions"][0]["metrics"],
        "timeline": [{"at_ms": 1, "region": "eu-north", "event": "ev_1", "what": "held"}],
    }
    with fake.running(home, {"why": answer}):
        assert main(["why", "ocr-rec"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4.0.0 was rolled back"
    assert any("trial 30 of 1000" in line for line in lines)


def test_colours_only_on_a_terminal_and_never_with_no_color(monkeypatch):
    from hanse.cli import output

    monkeypatch.setattr(output.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output._colourful()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output._colourful()
