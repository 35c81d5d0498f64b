"""An auditor with a web client, and a daemon that is reached by carrying files, both for real."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from digit_releases import paths
from plan_texts import FIRST
from system_federation import MODEL, Daemon, Federation, done, hanse
from tour.federation import free_ports

from hanse.core.signing import SigningKey
from hanse.core.trust import chain
from hanse.core.trust.members import Person
from hanse.daemon.private_files import read_seed, write_seed
from hanse.daemon.trust_folder import add_file, read_files

pytestmark = pytest.mark.system
SECRET = "patients-of-the-western-ward"


@dataclass
class World:
    federation: Federation
    url: str
    root: Path
    auditor: Path

    @property
    def here(self) -> Daemon:
        return self.federation.founder

    @property
    def there(self) -> Daemon:
        return self.federation.daemons["us-east"]

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=10) as answer:
            return bytes(answer.read())


@pytest.fixture(scope="module")
def world(folder: Path) -> Iterator[World]:
    """eu-north runs with an open door and has published; us-east has never been started."""
    federation = Federation(folder)
    try:
        federation.found(nodes=())
        here = federation.founder
        (port,) = free_ports(1)
        settings = (here.home / "hanse.toml").read_text()
        assert '# audit_listen = ""' in settings
        opened = settings.replace('# audit_listen = ""', f'audit_listen = "127.0.0.1:{port}"')
        kept = opened.replace('# private_fields = ""', 'private_fields = "training.data"')
        (here.home / "hanse.toml").write_text(kept)
        admit_auditor(federation, folder / "auditor.key")
        here.start()
        federation.until("eu-north answers", lambda: here.ask("status"))
        root = folder / "root.json"
        root.write_bytes((here.home / "trust/00001.json").read_bytes())
        yield World(federation, f"http://127.0.0.1:{port}", root, folder / "auditor.key")
    finally:
        federation.close()


def admit_auditor(federation: Federation, key: Path) -> None:
    """A person with the auditor's role, in the next trust version of every daemon."""
    write_seed(key, b"a" * 32)
    homes = [daemon.home for daemon in federation.daemons.values()]
    known = chain.replay(read_files(homes[0] / "trust"))
    carl = Person("carl", SigningKey(b"a" * 32).public, ("auditor",), ("*",))
    following = replace(
        known.current, version=known.current.version + 1, people=(*known.current.people, carl)
    )
    root = SigningKey(read_seed(homes[0] / "keys/root.key"))
    raw = chain.sign(following, (root,), known)
    chain.extend(known, raw)
    for home in homes:
        for version, file in enumerate((*known.files, raw), start=1):
            add_file(home / "trust", version, file)


def publish(world: World, *more: str) -> int:
    model = (paths()["v1"], "-n", MODEL, "-v", "1.0.0", "--outcome", "label:label")
    ran = hanse(
        "release", "publish", *model, "--training-data", SECRET, *more, home=world.here.home
    )
    return ran.returncode


def test_from_a_private_value_to_a_daemon_without_a_network(world: World, folder: Path) -> None:
    # A release that says what the region keeps private is not recorded; with a commitment it is.
    assert publish(world) == 1
    assert publish(world, "--private", "training.data") == 0

    # The door, as any web client sees it.
    index = json.loads(world.get("logs"))
    (origin,) = index["logs"]
    checkpoint = world.get(f"log/{origin}/checkpoint").decode().split("\n")
    assert checkpoint[:2] == [origin, str(index["logs"][origin])]
    size = index["logs"][origin]
    assert len(world.get(f"log/{origin}/tile/0/000.p/{size}")) == 32 * size
    bundle = world.get(f"log/{origin}/tile/entries/000.p/{size}")
    assert b"training.data" in bundle
    assert SECRET.encode() not in bundle
    with pytest.raises(urllib.error.HTTPError) as refused:
        world.get("trust/../keys/daemon.key")
    assert refused.value.code == 404
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{world.url}/logs", data=b"x", timeout=10)
    assert refused.value.code == 405

    # Exported twice, over HTTP and from the daemon at hand: the same, and it verifies offline.
    trust = ("--trust-root", world.root)
    done("audit", "export", folder / "web", "--url", world.url)
    done("audit", "export", folder / "own", home=world.here.home)
    found = json.loads(done("audit", "verify", folder / "web", *trust, "-o", "json"))
    assert found["state_digest"] == world.here.state_digest
    done("audit", "compare", folder / "web", folder / "own", world.url, *trust)

    # One event, proved to somebody who has nothing but the trust chain.
    proof = folder / "release.tlog-proof"
    shown = world.here.ask("release.show", model=MODEL, version="1.0.0")
    done("audit", "proof", shown["event"], "--save", proof, "--url", world.url)
    chain_ = ("--trust", world.here.home / "trust")
    done("audit", "verify", proof, *trust, *chain_)

    # The auditor asks for the private value, is shown it on record, and checks it.
    field, asked = "training.data", folder / "request.json"
    request = done(
        *("audit", "ask", shown["release"], field),
        *("--federation", "harbour", "--key", world.auditor),
    )
    asked.write_text(request)
    opening = folder / "opening.json"
    release = f"{MODEL}@1.0.0"
    who = ("--to", "carl", "--request", asked, "--save", opening)
    done("audit", "reveal", release, field, *who, home=world.here.home)
    said = done("audit", "check-opening", opening, folder / "web", *trust)
    assert SECRET in said
    opening.write_text(opening.read_text().replace(SECRET, SECRET[::-1]))
    assert hanse("audit", "check-opening", opening, folder / "web", *trust).returncode == 5

    # us-east has no network. Files are carried to it, and it can roll the release out.
    carried = folder / "carried.bundle"
    done(
        "bundle", "export", carried, "--for-region", "us-east", "--with-blobs", home=world.here.home
    )
    assert SECRET.encode() not in carried.read_bytes()
    lineage = world.here.ask("lineage", model=MODEL)["nodes"]
    assert world.here.stop() == 0
    world.there.start()
    world.federation.until("us-east answers", lambda: world.there.ask("status"))
    taken = json.loads(done("bundle", "import", carried, "-o", "json", home=world.there.home))
    assert (taken["sender"], taken["files"], taken["refused"]) == ("daemon of eu-north", 1, [])
    # Not the state digest: us-east has just witnessed the log, so it is final there and not here.
    assert world.there.ask("lineage", model=MODEL)["nodes"] == lineage
    assert world.there.ask("release.show", model=MODEL, version="1.0.0")["local"] is True
    plan = folder / "plan.yaml"
    plan.write_text(FIRST.replace("eu-north", "us-east"))
    operator = world.here.home / "keys/operator.key"
    where = ("--plan", plan, "--key", operator, "-o", "json")
    begun = json.loads(done("rollout", "start", release, *where, home=world.there.home))
    world.federation.until(
        "us-east begins with the files that were carried to it",
        lambda: world.there.state_in(begun["rollout"], "us-east") == "weighting",
    )

    # The other way: what us-east has is told in a file, and only the rest comes back.
    heads = folder / "heads.json"
    heads.write_text(done("bundle", "heads", home=world.there.home))
    assert world.there.stop() == 0
    world.here.start()
    world.federation.until("eu-north answers", lambda: world.here.ask("status"))
    rest = folder / "rest.bundle"
    where = ("--for-region", "us-east", "--heads", heads, "--with-blobs")
    done("bundle", "export", rest, *where, home=world.here.home)
    assert rest.stat().st_size < carried.stat().st_size / 4
    assert SECRET not in "".join(log.read_text() for log in world.federation.logs if log.exists())
