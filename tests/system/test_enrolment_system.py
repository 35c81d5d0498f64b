"""Machines come in by tokens and leave when people say so: real processes, live connections."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from system_federation import ENVIRONMENT, HANSE, Daemon, Federation, Node, done, hanse
from tour.federation import free_ports

from hanse.cli import client
from hanse.core.trust import chain
from hanse.daemon import ceremony
from hanse.daemon.trust_folder import read_files

pytestmark = pytest.mark.system
CUT_OFF_S = 1.0


@pytest.fixture(scope="module")
def world(folder: Path) -> Iterator[Federation]:
    """One daemon that runs; the tests below bring in the others, in order."""
    made = Federation(folder)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    home = folder / "eu-north"
    where = ("--region", "eu-north", "--home", home, "--listen", address)
    done("daemon", "init", "--federation", "harbour", *where)
    made.daemons["eu-north"] = Daemon(home, ("daemon", "run"), region="eu-north", address=address)
    made.founder.start()
    made.until("it answers", lambda: made.founder.ask("status"))
    yield made
    made.close()


def with_token(token: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(HANSE), *map(str, words), "--token", "-"]
    return subprocess.run(  # noqa: PLW1510  # callers look at the code
        command, input=token, capture_output=True, text=True, env=ENVIRONMENT, timeout=60
    )


def connected(node: Node) -> bool:
    return bool(node.status().get("daemon", {}).get("connected"))


def test_a_token_brings_a_node_in_with_a_key_of_its_own(world: Federation, folder: Path) -> None:
    token = done("agent", "token", "--node", "n1", "--home", world.founder.home)
    assert len(token.split()) == 1
    home, listen = folder / "n1", f"127.0.0.1:{free_ports(1)[0]}"
    words = ("agent", "enroll", "--home", home, "--listen", listen)
    assert with_token(token, *words).returncode == 0
    key = (home / "keys/tls.key").read_bytes()
    assert with_token(token, *words).returncode == 0  # as if the answer had been lost
    assert (home / "keys/tls.key").read_bytes() == key
    second = with_token(token, "agent", "enroll", "--home", folder / "thief")
    assert second.returncode == 1
    assert "spent on another key" in second.stderr
    assert not (folder / "thief/agent.toml").exists()
    node = Node(home, ("agent", "run"), name="n1", address=listen)
    world.nodes.append(node)
    node.start()
    world.until("the node is connected", lambda: connected(node))
    assert "it renews itself" in done("agent", "status", "--home", home)


def test_a_daemon_asks_waits_and_is_admitted(world: Federation, folder: Path) -> None:
    token = done("daemon", "token", "--region", "us-east", "--home", world.founder.home)
    home, address = folder / "us-east", f"127.0.0.1:{free_ports(1)[0]}"
    asked = with_token(token, "daemon", "join", "--home", home, "--listen", address)
    assert asked.returncode == 0, asked.stderr
    daemon = Daemon(home, ("daemon", "run"), region="us-east", address=address)
    world.daemons["us-east"] = daemon
    daemon.start()
    world.until("it waits", lambda: "waits_to_be_admitted" in daemon.log.read_text())
    done("daemon", "pending", "--save", folder / "asked", "--home", world.founder.home)
    (request,) = (folder / "asked").iterdir()
    done("daemon", "admit", request, "--home", world.founder.home)
    world.until("it is linked", lambda: daemon.ask("status")["peers"]["connected"] == 1)
    assert (
        json.loads(done("daemon", "pending", "--home", world.founder.home, "-o", "json"))["pending"]
        == []
    )


def test_a_revoked_node_is_cut_off_within_a_second(world: Federation, folder: Path) -> None:
    node = world.nodes[0]
    world.until("the node is connected", lambda: connected(node))
    client.call(world.founder.home, "agent.revoke", node="n1", reason="the truck was stolen")
    begin_s = time.monotonic()
    status = node.home / "state/status.json"
    world.until(
        "it has lost its daemon",
        lambda: not json.loads(status.read_bytes())["daemon"]["connected"],
        within_s=CUT_OFF_S,
    )
    assert time.monotonic() - begin_s < CUT_OFF_S
    world.until("it says why", lambda: "the truck was stolen" in node.log.read_text())
    token = done("agent", "token", "--node", "n1", "--home", world.founder.home)
    words = ("agent", "enroll", "--home", node.home)
    assert "new folder" in with_token(token, *words).stderr  # the thief may have this key
    (node.home / "keys/tls.key").unlink()
    assert with_token(token, *words).returncode == 0
    assert node.stop() == 0
    node.start()
    world.until("the node is back", lambda: connected(node))


def test_a_member_that_is_removed_is_cut_off_within_a_second(world: Federation) -> None:
    founder, other = world.founder, world.daemons["us-east"]
    files = read_files(founder.home / "trust")
    known = chain.replay(files)
    left = tuple(m for m in known.current.members if m.region != "us-east")
    following = dataclasses.replace(
        known.current,
        version=known.current.version + 1,
        members=left,
        regions=tuple(r for r in known.current.regions if r.name != "us-east"),
    )
    root = ceremony.root_keys([founder.home / "keys/root.key"])
    raw = chain.sign(following, root, known)
    founder.ask("trust.extend", file=raw.decode())
    begin_s = time.monotonic()
    world.until(
        "the link has ended",
        lambda: founder.ask("status")["peers"]["connected"] == 0,
        within_s=CUT_OFF_S,
    )
    assert time.monotonic() - begin_s < CUT_OFF_S
    world.until(
        "the other side has lost it too",
        lambda: other.ask("status")["peers"]["connected"] == 0,
        within_s=CUT_OFF_S,
    )
    deadline_s = time.monotonic() + 3  # it dials again and again meanwhile, in vain
    while time.monotonic() < deadline_s:
        assert other.ask("status")["peers"]["connected"] == 0
        time.sleep(0.1)


def test_the_inference_port_stays_on_this_machine(world: Federation, folder: Path) -> None:
    via = ("agent", "enroll", "--via", world.founder.home, "--node", "n2")
    words = (*via, "--home", folder / "n2")
    refused = hanse(*words, "--listen", "0.0.0.0:8001")
    assert refused.returncode == 1
    assert "beyond this machine" in refused.stderr
    done(*words)
    settings = folder / "n2/agent.toml"
    text = settings.read_text().replace('listen = "127.0.0.1:8001"', 'listen = "0.0.0.0:8001"')
    settings.write_text(text)
    assert "beyond this machine" in hanse("agent", "run", "--home", folder / "n2").stderr
