"""Two daemons of a region over one bucket: what one published the other serves, whatever becomes
of the first."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from buckets import S3Server, moto
from digit_releases import paths
from digit_users import answers
from plan_texts import FIRST
from system_federation import MODEL, Daemon, Federation, done
from tour.federation import free_ports

pytestmark = pytest.mark.system
__all__ = ["moto"]
HERE, THERE = "eu-north", "eu-north-2"


def joined(federation: Federation) -> Daemon:
    """A second daemon of the first region, which the node obeys."""
    home, ports = federation.home / THERE, free_ports(2)
    address = f"127.0.0.1:{ports[0]}"
    done(
        *("daemon", "join", "--via", federation.founder.home, "--region", HERE),
        *("--home", home, "--listen", address),
    )
    daemon = Daemon(home, ("daemon", "run"), region=HERE, address=address)
    federation.daemons[THERE] = daemon
    federation.nodes.append(federation.enrol("n1", f"127.0.0.1:{ports[1]}", THERE))
    return daemon


def keep_in_bucket(daemons: list[Daemon], server: S3Server, folder: Path) -> None:
    place = server.place(folder)
    for daemon in daemons:
        secret = daemon.home / "keys/bucket"
        secret.write_bytes((folder / "credentials").read_bytes())
        secret.chmod(0o600)
        path = daemon.home / "hanse.toml"
        settings = path.read_text()
        for name, value in (
            ("blobs", place.url),
            ("blobs_endpoint", place.endpoint),
            ("blobs_credentials", "keys/bucket"),
            ("blobs_options", "region=us-east-1"),
        ):
            assert f'\n# {name} = ""\n' in settings
            settings = settings.replace(f'\n# {name} = ""\n', f'\n{name} = "{value}"\n')
        path.write_text(settings)


def test_what_one_daemon_published_the_other_serves_when_the_first_is_lost(
    folder: Path, tmp_path: Path, moto: S3Server
) -> None:
    federation, plan = Federation(folder), folder / "first.yaml"
    plan.write_text(FIRST)
    federation.found(nodes=(), regions=(HERE,))
    first, second = federation.founder, joined(federation)
    keep_in_bucket([first, second], moto, tmp_path)
    try:
        for daemon in (first, second):
            daemon.start()
        federation.until("they hear each other", lambda: second.ask("status")["peers"]["connected"])
        federation.publish(paths()["v1"], "1.0.0")
        federation.roll_out("1.0.0", plan)
        shown = ("release", "show", f"{MODEL}@1.0.0", "-o", "json")
        federation.until(
            "the second relies on it",
            lambda: json.loads(done(*shown, home=second.home))["local"],
        )
        assert cached(second) == []  # not a byte has moved

        first.kill()
        shutil.rmtree(first.home)
        del federation.daemons[HERE]
        federation.nodes[0].start()
        federation.until("the node answers", lambda: answers(federation.nodes[0].address))
        assert len(cached(second)) >= 1
        said = json.loads(done("gc", "--dry-run", "-o", "json", home=second.home))
        assert said["bytes"] == 0
        assert said["kept_bytes"] >= paths()["v1"].stat().st_size
    finally:
        federation.close()


def cached(daemon: Daemon) -> list[Path]:
    return list((daemon.home / "blobs/blobs/sha256").glob("*/*"))
