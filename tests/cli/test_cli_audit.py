"""`hanse audit` as an auditor types it: exit codes, what is printed, and where it fails."""

from __future__ import annotations

import json
import re
from pathlib import Path

import fake_daemon as fake
import pytest
from audited import bootstrap, door_of, stored
from hand_federation import FIRST, Federation

from hanse.cli.main import main
from hanse.core.encoding import to_base64
from hanse.core.events import Note
from hanse.core.ids import Digest


@pytest.fixture(scope="module")
def federation() -> Federation:
    made = Federation()
    made.roll_out("r-1", 1, made.publish("3.0.0"), None, **FIRST)
    made.run(30.0)
    return made


def export(federation: Federation, home: Path) -> Path:
    """A folder made by the command from a daemon that answers as a real one does."""
    read = door_of(stored(federation))

    def answer(args):
        return {"data": to_base64(read(args["path"]))}

    with fake.running(home, {"audit.read": answer}):
        assert main(["audit", "export", str(home / "export"), "--home", str(home)]) == 0
    return home / "export"


@pytest.fixture
def place(federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with `root.json` and `export`."""
    (tmp_path / "root.json").write_bytes(bootstrap(federation))
    export(federation, tmp_path)
    capsys.readouterr()
    return tmp_path


def verify(place: Path, what: str, *more: str) -> int:
    return main(
        ["audit", "verify", str(place / what), "--trust-root", str(place / "root.json"), *more]
    )


def test_verify_prints_what_ran_where_and_who_approved_it(place, capsys, federation):
    assert verify(place, "export") == 0
    shown = capsys.readouterr().out
    assert f"state digest {federation.node('eu-north').catalog.state_digest.hex()}" in shown
    for region in ("eu-north", "us-east", "ap-south"):
        assert re.search(rf"{region}.* 3\.0\.0 .*anna", shown)


def test_verify_answers_in_json_with_every_run_and_log(place, capsys):
    assert verify(place, "export", "-o", "json", "--events") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "Audit"
    assert {run["approved_by"][0] for run in found["runs"]} == {"anna"}
    assert {run["region"] for run in found["runs"]} == {"eu-north", "us-east", "ap-south"}
    assert sum(log["size"] for log in found["logs"]) == len(found["events"])
    roles = {e["type"]: (e["role"], e["signed_by"]) for e in found["events"]}
    assert roles["ReleaseRecord"] == ("publisher", ["anna"])
    assert roles["RolloutIntent"] == ("release-manager", ["anna"])
    assert roles["Promote"][0] == "daemon"


def test_verify_ends_with_5_and_names_the_place(place, capsys):
    tile = next((place / "export").rglob("entries/000.p/*"))
    raw = bytearray(tile.read_bytes())
    raw[40] ^= 1
    tile.write_bytes(raw)
    assert verify(place, "export") == 5
    assert str(tile.relative_to(place / "export")) in capsys.readouterr().err


def test_another_root_ends_with_5(place, capsys):
    (place / "root.json").write_bytes(b"{}")
    assert verify(place, "export") == 5


def test_a_proof_is_written_and_verified_and_a_changed_one_ends_with_5(place, capsys):
    verify(place, "export", "-o", "json", "--events")
    event = json.loads(capsys.readouterr().out)["events"][1]
    file = place / "one.tlog-proof"
    made = [
        "audit",
        "proof",
        event["event"],
        "--folder",
        str(place / "export"),
        "--save",
        str(file),
    ]
    assert main(made) == 0
    capsys.readouterr()
    assert verify(place, file.name, "-o", "json") == 0
    proven = json.loads(capsys.readouterr().out)
    assert (proven["event"], proven["seq"], proven["log"]) == (event["event"], 1, event["log"])
    file.write_bytes(file.read_bytes().replace(b"index 1\n", b"index 2\n"))
    assert verify(place, file.name) == 5


def test_compare_says_whether_places_show_the_same(place, capsys, federation, tmp_path_factory):
    root = ["--trust-root", str(place / "root.json")]
    same = ["audit", "compare", str(place / "export"), str(place / "export"), *root]
    assert main(same) == 0
    assert "same" in capsys.readouterr().out
    other = forked(tmp_path_factory.mktemp("other"))
    capsys.readouterr()
    both = [str(place / "export"), str(other)]
    assert main(["audit", "compare", *both, *root, "-o", "json", "--save", str(place / "lie")]) == 5
    found = json.loads(capsys.readouterr().out)
    assert main(["audit", "compare", *both, *root]) == 5
    assert "next: once more with --save" in capsys.readouterr().err
    assert [row["fork_at"] for row in found["logs"] if row["result"] == "fork"] == [1, 1, 1]
    # Each proof stands for itself; two of one log and index with two events are the evidence.
    proofs = sorted((place / "lie").iterdir())
    assert len(proofs) == 6
    assert {verify(place, f"lie/{proof.name}") for proof in proofs} == {0}
    assert len({proof.read_bytes() for proof in proofs}) == 6


def forked(folder: Path) -> Path:
    """The same federation with another history: the same keys, other words."""
    made = Federation()
    for region in ("eu-north", "us-east", "ap-south"):
        made.propose(region, Note("other"))
    return export(made, folder)


def test_one_place_alone_cannot_be_compared(place):
    assert main(["audit", "compare", "x", "--trust-root", str(place / "root.json")]) == 2


def test_a_door_that_is_shut_is_unreachable(place, capsys):
    url = "http://127.0.0.1:9"
    assert main(["audit", "export", str(place / "none"), "--url", url]) == 6
    assert main(["audit", "export", str(place / "none"), "--url", "file:///etc"]) == 2


# -- what to do next -----------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> None:
    """It ends with an error, and says what to do next."""
    assert main([str(word) for word in words]) in (1, 2, 5, 6), words
    assert "next: " in capsys.readouterr().err, words


def changed(path: Path, at: int) -> Path:
    raw = bytearray(path.read_bytes())
    raw[at % len(raw)] ^= 1
    path.write_bytes(raw)
    return path


def test_whatever_is_changed_or_missing_the_auditor_hears_what_to_do_next(place, capsys):
    root = ["--trust-root", place / "root.json"]
    export = place / "export"
    for file in sorted(path for path in export.rglob("*") if path.is_file()):
        raw = file.read_bytes()
        changed(file, len(raw) // 2)
        refused(capsys, "audit", "verify", export, *root)
        if file.name != "export.json":  # neither by the seal nor without it
            seal = (export / "export.json").read_bytes()
            old, new = (Digest.of(each).hex.encode() for each in (raw, file.read_bytes()))
            (export / "export.json").write_bytes(seal.replace(old, new))
            refused(capsys, "audit", "verify", export, *root)
            (export / "export.json").write_bytes(seal)
        file.unlink()
        refused(capsys, "audit", "verify", export, *root)
        file.write_bytes(raw)
    (export / "more").write_bytes(b"")
    refused(capsys, "audit", "verify", export, *root)


def test_a_proof_that_is_changed_anywhere_says_what_to_do_next(place, capsys):
    verify(place, "export", "-o", "json", "--events")
    event = json.loads(capsys.readouterr().out)["events"][1]["event"]
    proof, export = place / "one.tlog-proof", place / "export"
    assert main(["audit", "proof", event, "--folder", str(export), "--save", str(proof)]) == 0
    raw = proof.read_bytes()
    for at in range(0, len(raw), 7):
        proof.write_bytes(raw)
        changed(proof, at)
        refused(capsys, "audit", "verify", proof, "--trust-root", place / "root.json")


def test_every_other_refusal_of_the_auditors_commands_says_what_to_do_next(place, capsys):
    root, export, junk = ["--trust-root", place / "root.json"], place / "export", place / "junk"
    (place / "empty").mkdir()
    junk.write_bytes(b"\xf2junk")
    opening = ("audit", "check-opening", junk)
    for words in (
        ("audit", "export", export),
        ("audit", "export", junk),
        ("audit", "export", place / "none", "--url", "http://127.0.0.1:9"),
        ("audit", "export", place / "none", "--url", "file:///etc"),
        ("audit", "export", place / "none", "--origin", "x"),
        ("audit", "export", place / "none", "--home", place / "empty"),
        ("audit", "verify", export, "--trust-root", junk),
        ("audit", "verify", export, "--trust-root", place / "empty"),
        ("audit", "verify", junk, *root),
        ("audit", "verify", place / "empty", *root),
        ("audit", "compare", export, place / "empty", *root),
        ("audit", "compare", export, place / "none", *root),
        ("audit", "compare", export, "http://127.0.0.1:9", *root),
        ("audit", "proof", "x", "--folder", export),
        ("audit", "proof", "ev_000000000000", "--folder", export),
        ("audit", "proof", "ev_000000000000", "--folder", place / "empty"),
        ("audit", "ask", "x", "y", "--federation", "hansa", "--key", junk),
        (*opening, export, *root),
        (*opening, place / "empty", *root),
        ("release", "verify", place, "--trust", place / "empty"),
        ("release", "verify", place, "--bundle", junk, "--public-key", junk),
    ):
        refused(capsys, *words)


def test_a_path_that_the_system_refuses_is_an_error_and_no_accident(place, capsys):
    name = place / ("x" * 300)
    assert main(["trust", "key", str(name)]) == 1
    said = capsys.readouterr().err
    assert str(name) in said
    assert "next: " in said
