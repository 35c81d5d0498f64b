"""T35: a release that one region must not have: not a byte of it comes there, by any way.

The model carries a text of 4 KiB that nobody else has. It is looked for, with its pieces, in
everything that was written below the homes of the excluded region, in the memory of its processes,
and in what a client with its certificates received.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import re
import secrets
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from digit_releases import paths
from system_federation import MODEL, Daemon, Federation, Node, done, hanse
from tour.federation import free_ports

from hanse.core.errors import NotFound, Rejected, Unavailable
from hanse.core.ids import Digest
from hanse.core.limits import TICKET_S
from hanse.core.ticket import Ticket, sign
from hanse.core.transfer.wanted import File, Wanted
from hanse.parts.recipe import Recipe, split
from hanse.rpc import blob_client, tls
from hanse.rpc.certificates import NODE_NAME, SERVER_NAME, Identity

pytestmark = pytest.mark.system
HERE, RELAY, FAR = "eu-north", "us-east", "ap-south"
KEPT, FREE = "1.1.0-eu", "1.0.0"
MARKER = base64.b64encode(secrets.token_bytes(3072))
PIECES = [MARKER[at : at + 48] for at in range(0, len(MARKER), 256)]
PLAN = f"""
apiVersion: hanse.dev/v1alpha1
kind: Rollout
spec:
  stages:
    - name: pilot
      regions: [{RELAY}]
      steps: [{{setWeight: 100}}, {{analysis: {{templates: [sound], minSamples: 40}}}}]
  templates:
    sound:
      alpha: 0.05
      metrics:
        - {{name: error-rate, test: one-arm, event: error, slo: 0.05, provenBelow: 0.05}}
"""


def found_in(data: bytes) -> bool:
    return any(piece in data for piece in PIECES)


def found_below(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return [str(path) for path in files if found_in(path.read_bytes())]


def found_in_memory(pid: int) -> list[str]:
    """Places of a process that hold a piece, among all that it may write to."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match is None:
                continue
            start, end = (int(part, 16) for part in match.groups())
            memory.seek(start)
            try:
                data = memory.read(end - start)
            except OSError:  # a gap of the kernel's own
                continue
            if found_in(data):
                found.append(line)
    return found


class Listener:
    """An address that stands in texts of the release: nobody should ever come (T33)."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/model.onnx"

    def came(self) -> bool:
        try:
            self._socket.accept()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@dataclass
class World:
    federation: Federation
    near: Node  # of the relay's region: it shares with its neighbours
    far: Node
    share: str
    doors: dict[str, str]
    listener: Listener
    path: Path = field(default_factory=Path)

    @property
    def raw(self) -> bytes:
        return self.path.read_bytes()

    @property
    def recipe(self) -> Recipe:
        return split(self.raw)

    def release(self, version: str = KEPT) -> Digest:
        shown = self.daemon(HERE).ask("release.show", model=MODEL, version=version)
        return Digest.parse(shown["release"])

    def file(self) -> File:
        return File(Digest.of(self.raw), self.release())

    def daemon(self, region: str) -> Daemon:
        return self.federation.daemons[region]

    def identity(self, kind: str) -> Identity:
        """Certificates as the excluded region has them."""
        if kind == "daemon":
            return self.daemon(FAR).identity()
        keys = self.far.home / "keys"
        return Identity((keys / "tls.crt").read_bytes(), (keys / "tls.key").read_bytes())


@pytest.fixture(scope="module")
def world(folder: Path) -> Iterator[World]:
    federation = Federation(folder)
    federation.found(nodes=())
    ports = [f"127.0.0.1:{port}" for port in free_ports(5)]
    near = federation.enrol("near", ports[0], RELAY)
    far = federation.enrol("far", ports[1], FAR)
    doors = {HERE: ports[3], RELAY: ports[4]}
    made = World(federation, near, far, ports[2], doors, Listener())
    set_up(near.home / "agent.toml", share_listen=made.share)
    for region, door in made.doors.items():
        set_up(federation.daemons[region].home / "hanse.toml", audit_listen=door)
    # The relay keeps its files in a bucket: another way to the same bytes.
    (folder / "bucket").mkdir()
    set_up(federation.daemons[RELAY].home / "hanse.toml", blobs=f"file://{folder / 'bucket'}")
    federation.nodes += [near, far]
    try:
        federation.start()
        publish(made, folder)
        yield made
    finally:
        federation.close()
        made.listener.close()


def set_up(path: Path, **values: str) -> None:
    settings = path.read_text()
    for name, value in values.items():
        assert f'\n# {name} = ""\n' in settings, name
        settings = settings.replace(f'\n# {name} = ""\n', f'\n{name} = "{value}"\n')
    path.write_text(settings)


def publish(world: World, folder: Path) -> None:
    """A base for everybody, and what was tuned from it for two regions. The relay runs it."""
    federation = world.federation
    federation.publish(paths()["v1"], FREE)
    made = onnx.load(paths()["v2"])
    made.doc_string = MARKER.decode()
    world.path = folder / "model.onnx"
    world.path.write_bytes(made.SerializeToString())
    federation.publish(
        world.path,
        KEPT,
        *("--relation", "regional-variant-of", "--label", f"region={HERE}"),
        *("--residency", HERE, "--residency", RELAY),
        *("--code", world.listener.url, "--label", f"source={world.listener.url}"),
        *("--training-data", f"scans-eu={Digest.of(b'scans')}"),
        parent=FREE,
    )
    federation.agreed()
    done("release", "pin", f"{MODEL}@{FREE}", "--reason", "a base", home=world.daemon(FAR).home)
    plan = folder / "plan.yaml"
    plan.write_text(PLAN)
    federation.roll_out(KEPT, plan)
    laid_out = world.near.home / "state/releases" / world.release().hex / "model.onnx"
    federation.until("a node of the relay's region has it", laid_out.exists)
    local = lambda: world.release(FREE) in releases_here(world.daemon(FAR))  # noqa: E731
    federation.until("the excluded region has what it may have", local)


def releases_here(daemon: Daemon) -> set[Digest]:
    rows = daemon.ask("release.list", model=MODEL)["releases"]
    return {Digest.parse(row["release"]) for row in rows if row["local"]}


# -- the ways ------------------------------------------------------------------------------------


async def asked(
    world: World, address: str, kind: str, ca: bytes, name: str = SERVER_NAME, ticket: bytes = b""
) -> list[str]:
    """Everything that somebody of the excluded region may ask a server of files; its refusals."""
    channel = tls.open_channel(address, world.identity(kind), ca, name)
    file, recipe = world.file(), world.recipe
    base = File(Digest.of(paths()["v1"].read_bytes()), world.release(FREE))
    numbers, sizes = tuple(range(len(recipe.parts))), [part.size for part in recipe.parts]
    wanted = Wanted(file, Digest.of(recipe.encode()), numbers, ticket=ticket)

    async def whole() -> None:
        assert not [p async for p in blob_client.fetch(channel, file.digest, file.release)]

    async def made_of() -> None:
        assert not await blob_client.recipe(channel, file, len(world.raw))

    async def parts(wanted: Wanted) -> None:
        assert not [p async for p in blob_client.parts(channel, wanted, sizes)]

    said = []
    leaning = replace(wanted, base=base, insist=True)
    for asking in (whole(), made_of(), parts(wanted), parts(leaning)):
        with pytest.raises((Rejected, Unavailable)) as caught:
            await asking
        said.append(f"{caught.type.__name__}: {caught.value}")
    await channel.close()
    return said


@pytest.mark.parametrize("kind", ["daemon", "node"])
@pytest.mark.parametrize("region", [HERE, RELAY])
async def test_no_daemon_gives_it_away(world: World, region: str, kind: str) -> None:
    """Direct, and over a region that may have it; there out of a bucket."""
    assert found_below(world.federation.home / "bucket"), "the relay holds it"
    daemon = world.daemon(region)
    said = await asked(world, daemon.address, kind, daemon.authority.cert_pem)
    assert all(each.startswith("NotFound") for each in said), said


def test_who_was_denied_stands_in_the_log_that_auditors_verify(
    world: World, tmp_path: Path
) -> None:
    """Signed by the daemon that judged, and told once however often it was asked."""
    daemon, release = world.daemon(HERE), str(world.release())
    root = daemon.home / "trust/00001.json"

    def denied() -> list[dict[str, Any]]:
        folder = tmp_path / f"audit-{len(list(tmp_path.iterdir()))}"
        done("audit", "export", folder, home=daemon.home)
        said = done("audit", "verify", folder, "--trust-root", root, "--events", "-o", "json")
        found = [each for each in json.loads(said)["events"] if release in each["text"]]
        return found if {"daemon", "edge"} <= {each["text"].split()[1] for each in found} else []

    found = world.federation.until("denials are on record", denied)
    assert {each["type"] for each in found} == {"Note"}
    assert all(f" of {FAR} " in each["text"] and not each["void"] for each in found)
    texts = [(each["log"], each["text"]) for each in found]
    assert len(set(texts)) == len(texts)


async def test_what_may_not_be_had_looks_like_what_is_not_there(world: World) -> None:
    """T36: word for word, but for the digest that was asked for."""
    absent = File(Digest.of(b"absent"), Digest.of(b"no such release"))
    channel = tls.open_channel(
        world.daemon(HERE).address, world.identity("daemon"), world.daemon(HERE).authority.cert_pem
    )
    answers = []
    for file in (world.file(), absent):
        with pytest.raises(NotFound, match="here for you") as caught:
            [p async for p in blob_client.fetch(channel, file.digest, file.release)]
        answers.append(re.sub(r"[0-9a-f]{12,}", "", str(caught.value)))
    await channel.close()
    assert answers[0] == answers[1]


@pytest.mark.parametrize("kind", ["daemon", "node"])
@pytest.mark.parametrize("ticket", ["none", "signed by the excluded region"])
async def test_no_node_gives_it_to_a_stranger(world: World, ticket: str, kind: str) -> None:
    """From node to node: the port knows the edge CA of its own region alone."""
    node = world.identity(kind)
    peer = tls.peer_of_certificate(node.cert_pem)
    now_ms = int(datetime.datetime.now(datetime.UTC).timestamp() * 1000 + TICKET_S * 1000)
    file = world.file()
    made = Ticket(peer.name, peer.spki, file.release, file.digest, now_ms)  # type: ignore[arg-type]
    raw = sign(made, world.daemon(FAR).key) if ticket != "none" else b""
    ca = (world.daemon(RELAY).home / "keys/edge-ca.crt").read_bytes()
    said = await asked(world, world.share, kind, ca, NODE_NAME, raw)
    assert all(each.startswith(("Unavailable", "NotPermitted")) for each in said), said


@pytest.mark.parametrize("region", [HERE, RELAY])
def test_the_auditors_door_shows_what_was_said_and_no_file(world: World, region: str) -> None:
    """Everything behind it, and every path under which a file might lie."""
    door = f"http://{world.doors[region]}"

    def get(path: str) -> bytes:
        with urllib.request.urlopen(f"{door}/{path}", timeout=10) as answer:
            return bytes(answer.read())

    index = json.loads(get("logs"))
    paths_ = ["logs", *(f"trust/{n:05d}.json" for n in range(1, index["trust_versions"] + 1))]
    for origin, size in index["logs"].items():
        paths_ += [f"log/{origin}/checkpoint", f"log/{origin}/tile/0/000.p/{size}"]
        paths_ += [f"log/{origin}/tile/entries/000.p/{size}"]
    seen = b"".join(map(get, paths_))
    assert KEPT.encode() in seen
    assert not found_in(seen)
    digest = world.file().digest.hex
    # A gateway that serves files to other people's clients is one more address to be asked.
    for path in (
        digest, f"sha256:{digest}", f"blobs/sha256/{digest[:2]}/{digest[2:]}",
        f"blobs/blobs/sha256/{digest[:2]}/{digest[2:]}", f"v2/{MODEL}/blobs/sha256:{digest}",
        f"{MODEL}/resolve/{KEPT}/model.onnx", "../blobs", "log/../../blobs",
    ):  # fmt: skip
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(path)
        assert caught.value.code == 404


@pytest.mark.parametrize("region", [HERE, RELAY])
def test_a_bundle_for_there_leaves_it_out(world: World, region: str, tmp_path: Path) -> None:
    bundle, heads = tmp_path / "for-there.bundle", tmp_path / "heads.json"
    heads.write_text(done("bundle", "heads", home=world.daemon(FAR).home))
    args = ("--for-region", FAR, "--heads", heads, "--with-blobs")
    done("bundle", "export", bundle, *args, home=world.daemon(region).home)
    assert not found_in(bundle.read_bytes())
    done("bundle", "import", bundle, home=world.daemon(FAR).home)


def test_it_can_be_listed_everywhere_and_fetched_nowhere_else(world: World) -> None:
    """A regional variant: its record, its lineage and what it was trained on are for everybody."""
    home = world.daemon(FAR).home
    assert f"{MODEL}@{KEPT}" in done("release", "list", "-o", "name", home=home)
    lineage = done("lineage", f"{MODEL}@{KEPT}", home=home)
    assert f"{FREE} (regional-variant-of)" in lineage
    assert f"{HERE}, {RELAY}" in lineage
    assert "every region" in lineage
    assert "scans-eu=sha256:" in lineage
    shown = done("release", "show", f"{MODEL}@{KEPT}", home=home)
    for said in (f"region {HERE}", f"{HERE}, {RELAY}", "regional-variant-of"):
        assert said in shown
    ran = hanse("release", "pin", f"{MODEL}@{KEPT}", "--reason", "mine", home=home)
    assert ran.returncode == 1
    assert f"residency keeps {KEPT} out of {FAR}" in ran.stderr
    found = world.daemon(FAR).ask("release.list", model=MODEL)["releases"]
    rows = {row["version"]: row["local"] for row in found}
    assert rows == {FREE: True, KEPT: False}


# Last, since it looks at what all of the above has left behind. What came to a client with the
# certificates of the excluded region was compared above: nothing.


def test_not_a_byte_of_it_has_come_there(world: World) -> None:
    assert found_in_memory(os.getpid()), "it is found at all"
    for process in (world.daemon(RELAY), world.near):
        assert found_below(process.home), "it is found where it may be"
    for process in (world.daemon(FAR), world.far):
        assert process.handle is not None
        assert found_below(process.home) == []
        assert found_in_memory(process.handle.pid) == []


def test_nobody_has_gone_to_an_address_that_a_release_names(world: World) -> None:
    assert not world.listener.came()


def test_a_bundle_for_others_leaves_nothing_there_either(world: World, tmp_path: Path) -> None:
    """Handed over by mistake or malice: the receiver judges too, and keeps nothing."""
    bundle, heads = tmp_path / "for-others.bundle", tmp_path / "heads.json"
    held = json.loads(done("bundle", "heads", home=world.daemon(FAR).home))
    heads.write_text(json.dumps({**held, "region": RELAY, "blobs": []}))
    args = ("--for-region", RELAY, "--heads", heads, "--with-blobs")
    done("bundle", "export", bundle, *args, home=world.daemon(HERE).home)
    assert found_in(bundle.read_bytes())
    said = hanse("bundle", "import", bundle, home=world.daemon(FAR).home)
    assert "residency keeps" in said.stdout + said.stderr
    assert found_below(world.daemon(FAR).home) == []
