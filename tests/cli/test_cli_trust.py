"""Ceremonies of trust, by files alone: drafts that people read, sign apart, and submit."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import fake_daemon as fake
import pytest
from lonely import chain as any_chain

from hanse.cli.main import main
from hanse.core.encoding import to_base64
from hanse.core.ids import Digest, Origin, segment
from hanse.core.log.checkpoint import Checkpoint, sign_checkpoint
from hanse.core.signing import SigningKey
from hanse.core.trust import chain
from hanse.core.trust.bundle import Bundle, parse_bundle
from hanse.core.trust.cuts import Cut
from hanse.core.trust.facts import changes, facts_of
from hanse.core.trust.members import FloorCap, Keys, Members
from hanse.daemon import ceremony
from hanse.daemon.private_files import read_seed
from hanse.daemon.trust_folder import read_files

NOW = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)


class Office:
    """A federation in one folder, and key files of people."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.home = folder / "home"

    def ask(self, *arguments: object, code: int = 0) -> str:
        """Run `hanse trust`; what it said."""
        where = [] if arguments[0] == "key" else ["--home", str(self.home)]
        assert main(["trust", *map(str, arguments), *where]) == code
        said = self.capsys.readouterr()
        return said.out + said.err

    def key(self, name: str) -> str:
        """Make a key; its public half."""
        assert main(["trust", "key", str(self.path(name))]) == 0
        return self.capsys.readouterr().out.strip()

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def sign(self, draft: Path, *names: str, code: int = 0) -> str:
        keys = [part for name in names for part in ("--key", self.path(name))]
        return self.ask("sign", draft, "--yes", *keys, code=code)

    def draft(self, *arguments: object) -> Path:
        draft = self.folder / f"draft-{len(list(self.folder.iterdir()))}.json"
        self.ask(*arguments, "--out", draft)
        return draft

    def do(self, *arguments: object, by: tuple[str, ...] = ("root",)) -> Members:
        draft = self.draft(*arguments)
        self.sign(draft, *by)
        self.ask("submit", draft)
        return self.now

    @property
    def now(self) -> Members:
        return chain.replay(read_files(self.home / "trust")).current


@pytest.fixture
def office(tmp_path, capsys) -> Office:
    """One machine, one root key."""
    made = Office(tmp_path, capsys)
    ceremony.init(made.home, "acme", "eu-north", "127.0.0.1:7420", "", NOW)
    made.path("root").symlink_to(made.home / "keys/root.key")
    return made


@pytest.fixture
def board(tmp_path, capsys) -> Office:
    """A federation whose root is two of three keys that never met."""
    made = Office(tmp_path, capsys)
    roots = [part for name in ("r1", "r2", "r3") for part in ("--key", made.key(name))]
    draft = made.draft(
        "init", "--federation", "acme", *roots, "--threshold", 2, "--timestamp-key", made.key("t")
    )
    made.sign(draft, "r1")
    assert "1 of 2 keys" in made.ask("submit", draft, code=5)
    made.sign(draft, "r3")
    made.ask("submit", draft)
    return made


def test_a_federation_is_founded_by_keys_that_never_meet(board):
    assert (board.now.version, board.now.root_threshold, len(board.now.root_keys)) == (1, 2, 3)
    assert board.now.timestamp.keys != board.now.root_keys
    assert "has a federation already" in board.ask(
        "init", "--federation", "x", "--key", board.key("x"), "--timestamp-key", board.key("y"),
        code=1,
    )  # fmt: skip


def test_copies_signed_apart_make_one_version(board):
    first = board.draft("add-person", "ada", board.key("ada"), "--role", "publisher")
    second = board.folder / "copy.json"
    second.write_bytes(first.read_bytes())
    board.sign(first, "r1")
    board.sign(second, "r2")
    for alone in (first, second):
        assert "1 of 2 keys" in board.ask("submit", alone, code=5)
    board.ask("submit", first, second)
    (ada,) = board.now.people
    assert (ada.name, ada.roles, ada.regions) == ("ada", ("publisher",), ("*",))
    other = board.draft("set-threshold", "publisher", 1)
    board.sign(other, "r1")
    another = board.draft("set-threshold", "publisher", 0)
    assert "another draft" in board.ask("submit", other, another, code=1)


def test_a_dry_run_says_in_words_what_would_change_and_writes_nothing(board):
    before = sorted(board.folder.rglob("*.json"))
    public = board.key("ada")
    said = board.ask("add-person", "ada", public, "--role", "publisher", "--dry-run")
    assert "adds person ada with key" in said
    assert "publisher in *" in said
    assert "targets.json: 0 of 2 of targets signed" in said
    assert sorted(board.folder.rglob("*.json")) == before


def test_new_root_keys_need_the_signatures_of_the_old_and_the_new(board):
    new = [part for name in ("n1", "n2") for part in ("--key", board.key(name))]
    draft = board.draft("rotate", "root", *new, "--threshold", 2)
    for few, missing in ((("r1", "r2"), "root 2"), (("n1",), "root 2"), ((), "")):
        if few:
            board.sign(draft, *few)
        assert missing in board.ask("submit", draft, code=5)
    fresh = board.draft("rotate", "root", *new, "--threshold", 2)
    board.sign(fresh, "n1", "n2")
    assert "of root 1 signed" in board.ask("submit", fresh, code=5)
    board.sign(draft, "n2")
    board.ask("submit", draft)
    assert board.now.root_version == 2
    assert board.now.targets == board.now.snapshot == board.now.root, "they follow the root"
    assert board.now.timestamp != board.now.root
    late = board.draft("set-threshold", "approver", 0)
    assert "nothing in this draft is for key" in board.sign(late, "r1", code=1)


def test_nobody_signs_what_was_not_shown(board):
    """A draft whose files are not those that its metadata names is refused before it is shown."""
    draft = board.draft("add-person", "ada", board.key("ada"), "--role", "auditor")
    bundle = parse_bundle(draft.read_bytes())
    shown = json.loads(bundle.files["members.json"])
    shown["people"][0]["roles"] = ["publisher"]
    raw = json.dumps(shown, sort_keys=True, separators=(",", ":")).encode()
    draft.write_bytes(Bundle(bundle.version, {**bundle.files, "members.json": raw}).encode())
    assert "not the file that targets.json signs for" in board.sign(draft, "r1", code=5)
    assert b'"signatures":[]' in parse_bundle(draft.read_bytes()).files["targets.json"]


def head_of(office: Office, key: SigningKey | None = None) -> Path:
    daemon = SigningKey(read_seed(office.home / "keys/daemon.key"))
    (member,) = office.now.members
    origin = Origin(office.now.federation, member.region, member.id, 1)
    note = sign_checkpoint(Checkpoint(str(origin), 7, Digest.of(b"root").raw), key or daemon)
    path = office.folder / f"checkpoint-{len(list(office.folder.iterdir()))}"
    path.write_bytes(note)
    return path


def test_a_member_goes_only_with_the_end_of_its_log(office):
    assert "still has daemons" in office.ask("remove-region", "eu-north", "--dry-run", code=1)
    forged = head_of(office, SigningKey(b"x" * 32))
    assert office.ask("cut", forged, "--dry-run", code=5)
    said = office.ask("cut", head_of(office), "--void-from", 5, "--remove-member", "--dry-run")
    assert "adds cut of log acme/eu-north" in said
    assert "void from event 5" in said
    assert "removes daemon" in said
    after = office.do("cut", head_of(office), "--void-from", 5, "--remove-member")
    assert after.members == ()
    assert [(c.size, c.void_from) for c in after.cuts] == [(7, 5)]
    assert office.do("remove-region", "eu-north").regions == ()


def test_a_cut_is_for_the_root_to_sign(office):
    office.do("rotate", "targets", "--key", office.key("t1"), by=("root", "t1"))
    draft = office.draft("cut", head_of(office))
    assert "nothing in this draft is for key" in office.sign(draft, "t1", code=1)
    assert "keys of root" in office.ask("submit", draft, code=5)


def test_a_floor_rises_by_targets_and_falls_by_the_root_alone(office):
    office.do("rotate", "targets", "--key", office.key("t1"), by=("root", "t1"))
    assert office.do("floor", "ocr", 5, by=("root", "t1")).floors == {"ocr": 5}
    assert "--lower" in office.ask("floor", "ocr", 4, "--dry-run", code=1)
    draft = office.draft("floor", "ocr", 2, "--lower")
    office.sign(draft, "t1")
    assert "keys of root" in office.ask("submit", draft, code=5)
    office.sign(draft, "root")
    office.ask("submit", draft)
    assert office.now.floors == {"ocr": 2}
    assert office.now.floor_caps == {"ocr": FloorCap(2, before=4)}


def test_renewing_dates_every_file_anew_and_changes_nothing_else(office):
    before = chain.replay(read_files(office.home / "trust")).tip
    office.do("renew")
    after = chain.replay(read_files(office.home / "trust")).tip
    assert {n: f.version for n, f in after.signed.items()} == {
        n: f.version + 1 for n, f in before.signed.items()
    }
    same = replace(after.members, version=1, root_version=1)
    assert same == before.members


def test_people_leave_and_thresholds_ask_for_no_more_than_there_are(office):
    refused = office.ask("set-threshold", "publisher", 2, "--dry-run", code=1)
    assert "2 people are asked and 1 are publisher" in refused
    office.do("add-person", "ada", office.key("ada"), "--role", "publisher", "--region", "eu-north")
    assert office.do("set-threshold", "publisher", 2).threshold("publisher") == 2
    assert "are asked" in office.ask("remove-person", "operator", "--dry-run", code=1)
    office.do("set-threshold", "publisher", 1)
    assert [p.name for p in office.do("remove-person", "operator").people] == ["ada"]
    assert office.ask("remove-person", "operator", "--dry-run", code=1)


def test_a_region_of_its_own_officers_admits_its_daemons_without_the_root(office):
    officer = office.key("officer")
    ca = office.home / "keys/edge-ca.crt"
    office.do("rotate", "snapshot", "--key", office.key("s"), by=("root", "s"))
    office.do(
        "add-region", "us-east", "--edge-ca", ca, "--key", officer, by=("root", "officer", "s")
    )
    edge_ca = ceremony.read_edge_ca(office.home)
    files = read_files(office.home / "trust")
    ceremony.join(office.folder / "us", files, "us-east", "127.0.0.1:1", "", NOW, edge_ca)
    request, draft = office.folder / "us/join-request.json", office.folder / "us.json"
    home = ["--home", str(office.home)]
    assert main(["daemon", "admit", str(request), "--draft", str(draft), *home]) == 0
    assert "nothing in this draft is for key" in office.sign(draft, "root", code=1)
    office.sign(draft, "officer", "s")
    office.ask("submit", draft)
    assert [m.region for m in office.now.members] == ["eu-north", "us-east"]


def test_regions_get_labels_by_a_ceremony_and_lose_them_with_the_region(office):
    ca = office.home / "keys/edge-ca.crt"
    now = office.do("add-region", "us-east", "--edge-ca", ca, "--label", "tier=standard")
    assert now.labels == {"us-east": {"tier": "standard"}}
    now = office.do("set-labels", "us-east", "tier=pilot", "zone=a")
    assert now.labels_of_all == {"eu-north": {}, "us-east": {"tier": "pilot", "zone": "a"}}
    assert "tier=pilot, zone=a" in office.ask("show")
    draft = office.draft("set-labels", "us-east")
    said = office.sign(draft, "root")
    assert "removes labels of us-east (was: tier=pilot, zone=a)" in said
    assert "is not a label" in office.ask("set-labels", "us-east", "tier=a b", "--dry-run", code=1)
    assert "there is no region" in office.ask("set-labels", "mars", "a=b", "--dry-run", code=1)
    assert office.do("remove-region", "us-east").labels == {}


def test_a_running_daemon_gets_what_is_submitted(office):
    draft = office.draft("policy")
    office.sign(draft, "root")
    with fake.running(office.home, {"trust.extend": {"version": 2, "members": 1}}) as daemon:
        assert "the running daemon has it" in office.ask("submit", draft)
    (asked,) = daemon.calls("trust.extend")
    assert asked["file"].encode() == read_files(office.home / "trust")[1]
    assert "trust version 2" in office.ask("show")


# -- what signers read -------------------------------------------------------------------------

OTHER = Keys((SigningKey(b"another key of 32 bytes for this").public,))
BASE = any_chain().current
LOG = Origin(BASE.federation, BASE.members[0].region, BASE.members[0].id, 1)
CHANGED = {
    "federation": segment("other"),
    "root_keys": OTHER.keys,
    "root_threshold": 2,
    "ring_seed": "another",
    "regions": (replace(BASE.regions[0], residency=()), *BASE.regions[1:]),
    "members": BASE.members[1:],
    "people": BASE.people[1:],
    "quarantine_quorum": 3,
    "witness_policy": "quorum all\n",
    "cuts": (Cut(LOG, 1, bytes(32), 1),),
    "floors": {segment("ocr"): 1},
    "floor_caps": {segment("ocr"): FloorCap(1, 2)},
    "residency": {BASE.regions[0].name: ()},
    "thresholds": {"publisher": 2},
    "labels": {BASE.regions[0].name: {"tier": "pilot"}},
    "targets": OTHER,
    "snapshot": OTHER,
    "timestamp": OTHER,
}


@pytest.mark.parametrize("field", list(Members.__dataclass_fields__))
def test_no_change_of_trust_is_kept_from_whoever_signs_it(field):
    if field in ("version", "root_version", "digest"):
        return  # numbers of the files, which are shown by themselves
    after = replace(BASE, **{field: CHANGED[field]})
    assert changes(facts_of(BASE), facts_of(after))


def test_every_detail_of_regions_daemons_and_people_is_shown():
    region, member, person = BASE.regions[0], BASE.members[0], BASE.people[0]
    for whole, field, value in (
        (region, "edge_ca_pem", "x"), (region, "officers", OTHER), (region, "residency", ("x",)),
        (region, "revoked", frozenset({"edge-1"})), (member, "address", "x:1"),
        (member, "tls_cert_pem", "x"), (member, "witness_key", OTHER.keys[0]),
        (person, "roles", ("auditor",)), (person, "regions", ("eu-north",)), (person, "name", "x"),
        (person, "key", OTHER.keys[0]),
    ):  # fmt: skip
        name = {region: "regions", member: "members", person: "people"}[whole]
        listed = getattr(BASE, name)
        after = replace(BASE, **{name: (replace(whole, **{field: value}), *listed[1:])})
        assert changes(facts_of(BASE), facts_of(after)), field


def test_what_is_printed_of_a_key_is_its_public_half(board):
    public = board.key("ada")
    assert public == to_base64(SigningKey(read_seed(board.path("ada"))).public)
    assert board.path("ada").stat().st_mode & 0o777 == 0o600
