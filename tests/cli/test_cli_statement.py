"""Several people sign one statement by file: nobody meets, and nobody signs what was not shown."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import fake_daemon as fake
import pytest
from hand_federation import MODEL, ROLES, Federation
from lonely import ROOT, chain

from hanse.cli.main import main
from hanse.core.catalog.manifest import File, Manifest, Variant
from hanse.core.events import ReleaseRecord
from hanse.core.ids import Digest, Origin, Version, member_id, segment
from hanse.core.node import Clock, Node
from hanse.core.signing import SigningKey
from hanse.core.trust import statements
from hanse.core.trust.chain import replay, sign
from hanse.core.trust.members import Person
from hanse.daemon import commands
from hanse.daemon.private_files import write_seed
from hanse.rpc.codec import EventCodec

ADA, BOB = SigningKey(b"A" * 32), SigningKey(b"B" * 32)
PEOPLE = tuple(Person(n, k.public, ROLES, ("*",)) for n, k in (("ada", ADA), ("bob", BOB)))
FILE = File(segment("model.onnx"), Digest.of(b"w"), 1)
MADE = Manifest(
    MODEL, Version("1.0"), (FILE,), (Variant(segment("onnx"), "onnx", FILE.name),), (), ()
)
RELEASE = Digest.of(MADE.encode())


class Daemon:
    """A real node behind the socket, in a federation where a kill takes two."""

    def __init__(self) -> None:
        hand = Federation(edges=0)
        said = replace(chain().current, people=PEOPLE, thresholds={"release-manager": 2})
        trust = replay((sign(said, (ROOT,)),))
        key = hand.keys[0]
        me = Origin(trust.current.federation, segment("eu-north"), member_id(key.public), 1)
        self.node = Node(me, key, b"spki", EventCodec(), trust, Random(1))
        self.node.open("first")
        signed = statements.sign_release(f"{MODEL}@1.0", RELEASE, 1, [ADA])
        body = ReleaseRecord(MODEL, MADE.version, 1, MADE.encode())
        self.node.propose(body, attestations=[signed])
        self.node.take(Clock(0.0, 1000))
        self.shown = {
            "model": MODEL, "version": "1.0", "release": str(RELEASE), "counter": 1, "active": []
        }  # fmt: skip

    def do(self, command):
        def answer(args):
            done = command(self.node, args)
            self.node.take(Clock(1.0, 2000))
            return done()

        return answer

    def answers(self):
        kill, floor = self.do(commands.kill), self.do(commands.raise_floor)
        return {"release.show": self.shown, "release.kill": kill, "release.floor": floor}

    @property
    def view(self):
        return self.node.catalog.views[MODEL]


@pytest.fixture
def keys(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HANSE_HOME", str(tmp_path / "home"))
    for name, key in (("ada", ADA), ("bob", BOB)):
        write_seed(tmp_path / f"{name}.key", key.seed)
    return tmp_path


KILL = ["release", "kill", f"{MODEL}@1.0", "--reason", "wrong answers", "--yes"]


def test_two_people_kill_what_one_alone_could_not(keys, capsys):
    daemon, draft = Daemon(), str(keys / "kill.json")
    ada, bob = str(keys / "ada.key"), str(keys / "bob.key")
    with fake.running(keys / "home", daemon.answers()):
        assert main([*KILL, "--key", ada]) == 1
        assert "1 of 2 people" in capsys.readouterr().err
        assert main([*KILL, "--draft", draft]) == 0
        assert main(["statement", "sign", draft, "--yes", "--key", ada]) == 0
        assert main(["statement", "submit", draft]) == 1
        assert not daemon.view.release(RELEASE).killed
        capsys.readouterr()
        assert main(["statement", "sign", draft, "--yes", "--key", bob]) == 0
        assert f"kill {RELEASE} of {MODEL}, for ever" in capsys.readouterr().out
        assert main(["statement", "submit", draft]) == 0
    assert daemon.view.release(RELEASE).killed
    assert "for ever" in capsys.readouterr().out


def test_copies_that_were_signed_apart_are_put_together(keys, capsys):
    daemon = Daemon()
    floor = ["release", "floor", f"{MODEL}@1.0", "--reason", "older ones are unsafe", "--yes"]
    paths = [keys / f"{name}.json" for name in ("ada", "bob")]
    with fake.running(keys / "home", daemon.answers()):
        assert main([*floor, "--draft", str(paths[0])]) == 0
        paths[1].write_bytes(paths[0].read_bytes())
        for path in paths:
            key = str(path.with_suffix(".key"))
            assert main(["statement", "sign", str(path), "--yes", "--key", key]) == 0
        assert main(["statement", "submit", *map(str, paths)]) == 0
    assert daemon.view.floor == 1
    other = json.loads(paths[1].read_text())
    other["args"]["counter"] = 2
    paths[1].write_text(json.dumps(other))
    assert main(["statement", "submit", *map(str, paths)]) == 1
    assert "something else" in capsys.readouterr().err


def test_what_was_changed_after_somebody_signed_is_not_signed_again(keys, capsys):
    path = keys / "kill.json"
    with fake.running(keys / "home", Daemon().answers()):
        main([*KILL, "--draft", str(path)])
    sign = ["statement", "sign", str(path), "--yes", "--key", str(keys / "ada.key")]
    assert main(sign) == 0
    changed = json.loads(path.read_text())
    changed["args"]["release"] = str(Digest.of(b"the good one"))
    path.write_text(json.dumps(changed))
    assert main(sign) == 1
    assert main(["statement", "submit", str(path)]) == 1
    assert "on something else" in capsys.readouterr().err


def test_a_release_and_a_plan_are_shown_in_full_before_they_are_signed(keys, capsys):
    args = {"manifest": replace(MADE).encode().decode(), "counter": 7}
    document = {"schema": 1, "verb": "release.publish", "args": args, "envelope": ""}
    path = keys / "draft.json"
    path.write_text(json.dumps(document))
    assert main(["statement", "show", str(path)]) == 0
    out = capsys.readouterr().out
    for said in (str(FILE.digest), str(RELEASE), "release 7"):
        assert said in out
    for broken in ({"verb": "freeze"}, {"args": {}}, {"args": {"manifest": "{}"}}):
        path.write_text(json.dumps(document | broken))
        assert main(["statement", "show", str(path)]) == 1
