"""SIGKILL, SIGTERM, a damaged disk: nothing acknowledged is lost, and nodes go on serving."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest
from digit_releases import paths
from digit_users import Users, answers
from plan_texts import FIRST
from publisher import Publisher, releases
from system_federation import Federation, Process, hanse

pytestmark = pytest.mark.system
KILLS = 6


@pytest.fixture(scope="module")
def world(federation: Federation, folder: Path) -> Federation:
    """1.0.0 of the digits is on both nodes of eu-north, and no rollout writes anything more."""
    (folder / "first.yaml").write_text(FIRST)
    federation.start()
    federation.publish(paths()["v1"], "1.0.0")
    federation.roll_out("1.0.0", folder / "first.yaml")
    federation.until(
        "both nodes serve 1.0.0", lambda: all(answers(node.address) for node in federation.nodes)
    )
    with Users(node.address for node in federation.nodes):
        federation.until("the rollout is over", lambda: _state(federation) == "healthy")
    return federation


def _state(federation: Federation) -> str:
    (model,) = federation.founder.ask("status")["models"]
    return next(str(r["state"]) for r in model["regions"] if r["region"] == "eu-north")


def test_sigkill_while_publishing_loses_nothing_and_nodes_serve_meanwhile(
    world: Federation, folder: Path
) -> None:
    chance = random.Random(20260)
    daemon, witness = world.founder, world.daemons["us-east"]
    publisher = Publisher(daemon, folder / "note.bin")
    publisher.upload()
    with Users(node.address for node in world.nodes) as users:
        for _ in range(KILLS):
            before = len(publisher.acknowledged)
            work = threading.Thread(target=publisher.run)
            work.start()
            world.until("it acknowledges", lambda b=before: len(publisher.acknowledged) > b + 5)
            time.sleep(chance.uniform(0.03, 0.15))  # any moment will do
            daemon.kill()
            work.join(30)
            daemon.start()
            world.until("it writes again", lambda: daemon.writing)
            assert set(publisher.acknowledged) <= releases(daemon)
        sent = users.answered
        world.until("users go on", lambda: users.answered > sent + 20)
    assert users.failures == []
    world.agreed()
    assert releases(witness) == releases(daemon)


def test_a_kill_while_it_boots_leaves_nothing_to_repair(world: Federation) -> None:
    daemon, state = world.founder, world.settled()
    for moment_s in (0.3, 0.6, 0.9):
        daemon.kill()
        daemon.start()
        time.sleep(moment_s)
    daemon.kill()
    daemon.start()
    world.until("it writes again", lambda: daemon.state_digest == state and daemon.writing)


def test_a_daemon_that_was_away_catches_up(world: Federation, folder: Path) -> None:
    daemon, away = world.founder, world.daemons["ap-south"]
    away.kill()
    publisher = Publisher(daemon, folder / "note.bin", number=100_000)
    for _ in range(300):  # more than one chunk
        publisher.publish()
    away.start()
    world.until("it answers", lambda: away.state_digest)
    world.agreed()
    assert set(publisher.acknowledged) <= releases(away)


def test_a_node_serves_from_its_disk_while_the_daemon_is_dead(world: Federation) -> None:
    node = world.nodes[0]
    world.founder.kill()
    assert node.stop() == 0
    assert answers(node.address) == ""
    node.start()
    world.until("the node answers from its disk", lambda: answers(node.address))
    assert not node.status()["daemon"]["connected"]
    world.founder.start()
    world.until("it finds its daemon", lambda: node.status()["daemon"]["connected"])


def test_sigterm_ends_a_busy_daemon_cleanly_and_it_comes_back_as_it_was(
    world: Federation,
) -> None:
    daemon, state = world.founder, world.settled()
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log.read_text()
    daemon.start()
    world.until("it is as it was", lambda: daemon.state_digest == state)


def test_a_second_daemon_on_one_home_is_refused_and_harms_nothing(world: Federation) -> None:
    daemon, state = world.founder, world.settled()
    second = hanse("daemon", "run", "--home", daemon.home)
    assert second.returncode == 1
    assert "another daemon" in second.stderr
    assert "stop" in second.stderr
    assert daemon.state_digest == state


@pytest.mark.parametrize("place", ["first byte", "middle", "last byte"])
def test_a_flipped_byte_in_a_stored_event_stops_the_start(world: Federation, place: str) -> None:
    daemon, state = world.daemons["ap-south"], world.settled()
    assert daemon.stop() == 0
    database = daemon.home / "data/registry.sqlite3"
    whole = database.read_bytes()
    at = place_in(database, place)
    database.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    process = Process(daemon.home, ("daemon", "run"))
    said = len(daemon.log.read_text())
    process.start()
    code, words = process.ended(), daemon.log.read_text()[said:]
    database.write_bytes(whole)
    daemon.start()
    world.until("with the byte back it is as it was", lambda: daemon.state_digest == state)
    assert code == 70, words
    assert "broken" in words
    assert "backup" in words
    assert "Traceback" not in words


def place_in(database: Path, place: str) -> int:
    """Where in the file a byte of some stored event of the founder stands."""
    import sqlite3

    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        (raw,) = connection.execute("SELECT raw FROM event ORDER BY length(raw) LIMIT 1").fetchone()
    start = database.read_bytes().index(raw)
    return start + {"first byte": 0, "middle": len(raw) // 2, "last byte": len(raw) - 1}[place]
