"""Founding, joining and enrolling through the command line, as a person does it."""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import fake_daemon as fake
import pytest

from hanse.cli.main import main
from hanse.core.errors import Conflict
from hanse.core.signing import SigningKey
from hanse.core.trust import chain
from hanse.daemon import config
from hanse.daemon.private_files import read_seed
from hanse.daemon.trust_folder import read_files
from hanse.edge import status, switch
from hanse.edge.config import load as load_agent
from hanse.rpc import tls


@pytest.fixture
def founder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    home = tmp_path / "eu"
    assert run("init --federation acme --region eu-north --listen 127.0.0.1:7420", home) == 0
    return home


def run(command: str, home: Path, *more: str | Path) -> int:
    return main(["daemon", *command.split(), "--home", str(home), *map(str, more)])


def regions(home: Path) -> list[str]:
    return [m.region for m in chain.replay(read_files(home / "trust")).current.members]


def test_init_says_where_the_keys_are_and_to_move_the_root_key(tmp_path, capsys):
    run("init --federation acme --region eu-north", tmp_path / "eu")
    out = capsys.readouterr().out
    assert str(tmp_path / "eu/keys/root.key") in out
    assert "move it off this machine" in out
    assert str(tmp_path / "eu/keys/operator.key") in out


def test_a_second_init_in_the_same_place_is_refused(founder, capsys):
    assert run("init --federation acme --region eu-north", founder) == 1
    assert "never overwritten" in capsys.readouterr().err


def test_a_daemon_joins_on_the_spot_where_the_root_key_is(founder, tmp_path):
    us = tmp_path / "us"
    assert run("join --region us-east --listen 127.0.0.1:7421", us, "--via", founder) == 0
    assert regions(us) == regions(founder) == ["eu-north", "us-east"]
    assert config.load(us).region == "us-east"


def test_a_running_founder_is_told_at_once(founder, tmp_path):
    with fake.running(founder, {"trust.extend": {"version": 2, "members": 2}}) as daemon:
        run("join --region us-east --listen 127.0.0.1:7421", tmp_path / "us", "--via", founder)
    (told,) = daemon.calls("trust.extend")
    assert told["file"].encode() == read_files(founder / "trust")[1]


def test_without_the_root_key_the_request_travels_as_a_file(founder, tmp_path, capsys):
    us = tmp_path / "us"
    files = founder / "trust/00001.json"
    assert run("join --region us-east --listen 127.0.0.1:7421", us, "--via", files) == 0
    assert "hanse daemon admit" in capsys.readouterr().err
    assert regions(founder) == ["eu-north"]
    assert run("admit", founder, us / "join-request.json") == 0
    assert regions(founder) == ["eu-north", "us-east"]


def test_a_root_key_that_is_kept_elsewhere_can_admit(founder, tmp_path):
    key = tmp_path / "offline.key"
    (founder / "keys/root.key").rename(key)
    us = tmp_path / "us"
    run("join --region us-east --listen 127.0.0.1:7421", us, "--via", founder)
    assert run("admit", founder, us / "join-request.json") == 1
    assert run("admit", founder, us / "join-request.json", "--root-key", key) == 0


def test_a_second_daemon_of_a_region_shares_its_edge_ca(founder, tmp_path):
    two = tmp_path / "two"
    assert run("join --region eu-north --listen 127.0.0.1:7421", two, "--via", founder) == 0
    shared = (founder / "keys/edge-ca.crt").read_bytes()
    assert (two / "keys/edge-ca.crt").read_bytes() == shared
    assert regions(two) == ["eu-north", "eu-north"]


def test_running_nowhere_says_how_to_begin(tmp_path, capsys):
    assert run("rebuild", tmp_path) == 1
    assert "hanse daemon init" in capsys.readouterr().err


def test_a_running_daemon_is_not_rebuilt_under_its_feet(founder, capsys):
    with fake.running(founder, {}):
        assert run("rebuild", founder) == 1
    assert "stop it first" in capsys.readouterr().err


def enroll(founder: Path, home: Path, *more: str) -> int:
    arguments = ["agent", "enroll", "--via", str(founder), "--node", "edge-1"]
    return main([*arguments, "--home", str(home), *more])


def test_an_enrolled_node_has_all_that_it_needs(founder, tmp_path):
    home = tmp_path / "edge"
    assert enroll(founder, home, "--listen", "127.0.0.1:8009", "--label", "site=oslo") == 0
    agent = load_agent(home / "agent.toml")
    assert (agent.node, agent.region, agent.daemon) == ("edge-1", "eu-north", "127.0.0.1:7420")
    assert (agent.listen, agent.labels) == ("127.0.0.1:8009", {"site": "oslo"})
    assert agent.daemon_key == SigningKey(read_seed(founder / "keys/daemon.key")).public
    assert agent.daemon_cert.read_bytes() == (founder / "keys/tls.crt").read_bytes()
    assert agent.tls_key.stat().st_mode & 0o777 == 0o600


def test_an_enrolled_node_is_its_regions_for_seven_days(founder, tmp_path):
    enroll(founder, tmp_path / "edge")
    pem = (tmp_path / "edge/keys/tls.crt").read_bytes()
    authority = (founder / "keys/edge-ca.crt").read_bytes()
    peer = tls.peer_of_certificate(pem)
    assert (peer.kind, peer.name, peer.region) == ("edge", "edge-1", "eu-north")
    now = datetime.datetime.now(datetime.UTC)
    tls.check_issued(pem, authority, now=now + datetime.timedelta(days=6))
    with pytest.raises(tls.NotPermitted):
        tls.check_issued(pem, authority, now=now + datetime.timedelta(days=8))


def test_an_enrolled_folder_is_not_enrolled_over(founder, tmp_path):
    assert enroll(founder, tmp_path / "edge") == 0
    before = (tmp_path / "edge/keys/tls.key").read_bytes()
    assert enroll(founder, tmp_path / "edge") == 1
    assert (tmp_path / "edge/keys/tls.key").read_bytes() == before


def test_a_node_that_has_not_run_says_so(founder, tmp_path, capsys):
    enroll(founder, tmp_path / "edge")
    assert main(["agent", "status", "--home", str(tmp_path / "edge")]) == 1
    assert "hanse agent run" in capsys.readouterr().err


OLD, NEW = "sha256:" + "1" * 64, "sha256:" + "2" * 64
NODE_MODEL = {
    "model": "m", "running": OLD, "version": "1.0.0", "interim": False, "candidate": NEW,
    "weight_bp": 2000, "shadow_bp": 0, "rollout": "r-2", "generation": 2, "warm_fallback": None,
    "ready": [NEW, OLD], "failed": {}, "versions": {OLD: "1.0.0", NEW: "2.0.0"},
}  # fmt: skip
NODE_STATUS = {
    "node": "dock-7", "federation": "acme", "region": "eu-north", "listen": "127.0.0.1:8001",
    "daemon": {"address": "10.0.0.1:7420", "connected": True}, "epoch": 1, "serial": 3,
    "certificate_until": "2099-01-01T00:00:00+00:00", "models": [NODE_MODEL], "fetching": [],
    "sharing": {"address": "10.0.0.7:8002", "bytes_given": 12_300_000, "tickets_refused": 0},
}  # fmt: skip


@pytest.fixture
def node(founder, tmp_path) -> Iterator[tuple[Path, Path]]:
    """An enrolled node whose agent runs: its home and what it says of itself."""
    enroll(founder, tmp_path / "edge")
    state = tmp_path / "edge/state"
    state.mkdir()
    (state / "status.json").write_text(json.dumps(NODE_STATUS))
    lock = status.hold(state)
    yield tmp_path / "edge", state / "status.json"
    os.close(lock)


def test_agent_status_needs_no_daemon_and_names_releases_by_their_versions(node, capsys):
    home, _ = node
    assert main(["agent", "status", "--home", str(home)]) == 0
    said = capsys.readouterr().out
    assert "dock-7 of eu-north answers on 127.0.0.1:8001; daemon 10.0.0.1:7420 connected" in said
    assert re.search(r"m +1\.0\.0 +2\.0\.0 20 % +- +2\.0\.0, 1\.0\.0 +-", said)
    assert "gives to neighbours on 10.0.0.7:8002: 12.3 MB so far" in said
    assert "certificate until 2099-01-01" in said
    assert main(["agent", "status", "--home", str(home), "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["alive"], found["models"]) == (True, [NODE_MODEL])


@pytest.mark.parametrize(
    ("model", "words"),
    [({"interim": True}, "1.0.0 (interim)"), ({"failed": {NEW: "golden"}}, "2.0.0: golden")],
)
def test_agent_status_warns_of_an_interim_release_and_of_one_that_failed(
    node, capsys, model, words
):
    home, path = node
    path.write_text(json.dumps({**NODE_STATUS, "models": [{**NODE_MODEL, **model}]}))
    assert main(["agent", "status", "--home", str(home)]) == 3
    assert words in capsys.readouterr().out


def test_agent_status_says_whether_the_daemon_is_in_reach_and_whether_the_agent_runs(
    founder, tmp_path, capsys
):
    enroll(founder, tmp_path / "edge")
    home, state = tmp_path / "edge", tmp_path / "edge/state"
    state.mkdir()
    away = {"daemon": {"address": "10.0.0.1:7420", "connected": False}, "windows_lost": 7}
    (state / "status.json").write_text(json.dumps(NODE_STATUS | away))
    lock = status.hold(state)
    with pytest.raises(Conflict, match="another agent runs"):
        status.hold(state)
    assert main(["agent", "status", "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    assert "10.0.0.1:7420 OUT OF REACH" in shown
    assert "7 windows of counts were too old" in shown
    os.close(lock)
    assert main(["agent", "status", "--home", str(home)]) == 3
    assert f"DOES NOT RUN, and did this last; start it: hanse agent run --home {home}" in (
        capsys.readouterr().out
    )


def test_a_release_is_turned_off_on_the_node_with_no_daemon(founder, tmp_path, capsys):
    enroll(founder, tmp_path / "edge")
    home, state = str(tmp_path / "edge"), tmp_path / "edge/state"
    off = ["agent", "off", "m", "--reason", "INC-7", "--home", home]
    assert main(off) == 1
    assert "hanse agent status" in capsys.readouterr().err
    state.mkdir()
    release = "sha256:" + "ab" * 32
    models = [{"model": "m", "candidate": release, "running": "sha256:" + "cd" * 32}]
    (state / "status.json").write_text(json.dumps({"models": models}))
    assert main(off) == 0
    assert "sha256:abababab" in capsys.readouterr().out
    ((_, model, which, reason),) = switch.left(state)
    assert (model, str(which), reason) == ("m", release, "INC-7")
