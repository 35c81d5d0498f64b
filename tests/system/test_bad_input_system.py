"""What people and strangers get wrong: refused with a word on what to do, and nothing is lost."""

from __future__ import annotations

import datetime
import json
import pickle
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from core.test_names import NAMES
from digit_releases import paths
from system_federation import EXIT_S, MODEL, Daemon, Federation, hanse

from hanse.cli import client
from hanse.core.errors import InvalidName, InvalidProof, InvalidSpec, Rejected
from hanse.core.ids import Digest
from hanse.core.trust.statements import sign_release
from hanse.daemon.queries import QUERIES
from hanse.rpc import certificates, tls
from hanse.rpc.certificates import Identity

pytestmark = pytest.mark.system
PROBE = "/hanse.v1.PeerService/Probe"
WATCH = "/hanse.v1.EdgeService/Watch"
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
SPAN = certificates.from_now(NOW, certificates.LIFE)
USAGE = 2


@pytest.fixture(scope="module")
def world(federation: Federation) -> Federation:
    """Two daemons that run, and a node that does not yet."""
    federation.nodes[1:] = []
    node = federation.nodes.pop()
    federation.start(("eu-north", "us-east"))
    federation.nodes.append(node)
    federation.publish(paths()["v1"], "1.0.0")
    return federation


@pytest.fixture(autouse=True)
def nothing_is_lost(world: Federation) -> Iterator[None]:
    """Around every test: the same state, every file still there, nothing half-done left behind."""
    daemon = world.founder
    before, whole = world.settled(), files(daemon, "sha256")
    yield
    assert world.settled() == before
    assert whole <= files(daemon, "sha256")
    world.until("nothing is left half-done", lambda: not files(daemon, "parts", "incoming"))


def files(daemon: Daemon, *folders: str) -> set[Path]:
    store = daemon.home / "blobs/blobs"
    return {p for name in folders for p in (store / name).rglob("*") if p.is_file()}


def publish(daemon: Daemon, path: Path, *more: str, model: str = MODEL) -> tuple[int, str]:
    ran = hanse("release", "publish", path, "-n", model, "-v", "6.6.6", *more, home=daemon.home)
    assert "Traceback" not in ran.stderr
    return ran.returncode, ran.stderr


# -- artifacts -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["truncated", "acme", "external"])
def test_a_model_that_no_node_could_run_is_refused_before_it_is_published(
    world: Federation, kind: str
) -> None:
    code, said = publish(world.founder, paths()[kind])
    assert code == 1, said
    assert "error E0107" in said
    assert "next: " in said


@pytest.mark.parametrize("data", [b"", b"\x80\x04\x95pickle", b"\xff" * 5000], ids=len)
def test_bytes_that_are_no_model_are_refused(world: Federation, data: bytes, folder: Path) -> None:
    path = folder / "noise.onnx"
    path.write_bytes(data)
    code, said = publish(world.founder, path)
    assert code == 1, said
    assert "next: " in said


def test_weights_outside_the_folder_are_named_and_never_read(world: Federation) -> None:
    _, said = publish(world.founder, paths()["external"])
    assert "../outside" in said


def test_an_upload_that_is_not_what_it_says_is_thrown_away(world: Federation) -> None:
    path, lie = paths()["v2"], str(Digest.of(b"something else"))
    size = path.stat().st_size
    with pytest.raises(InvalidProof) as caught:
        client.put_blob(world.founder.home, path, lie, size, lambda _: None)
    assert caught.value.fix
    with pytest.raises(InvalidSpec):
        client.put_blob(world.founder.home, path, lie, 2**70, lambda _: None)


def test_an_upload_that_breaks_off_does_not_stand_in_the_way_of_the_next(
    world: Federation,
) -> None:
    daemon, path = world.founder, paths()["v2"]
    data = path.read_bytes()
    digest = str(Digest.of(data))
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(client.socket_path(daemon.home)))
        ask = {"verb": "blob.put", "digest": digest, "size": len(data)}
        caller.sendall(json.dumps(ask).encode() + b"\n")
        assert b"send" in caller.recv(1000)
        caller.sendall(data[: len(data) // 2])
    world.until(
        "the next one is taken",
        lambda: client.put_blob(daemon.home, path, digest, len(data), lambda _: None),
    )


@pytest.mark.parametrize(
    "said", [b"\n", b"[]\n", b"{}\n", b"\xff\n", b"[" * 5000 + b"\n", b'{"verb":"no-such"}\n']
)
def test_a_caller_that_speaks_nonsense_is_told_so(world: Federation, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(EXIT_S)
        caller.connect(str(client.socket_path(world.founder.home)))
        caller.sendall(said)
        answer = json.loads(caller.makefile().readline())
    assert answer["error"]["kind"] in ("InvalidSpec", "NotFound")


def test_a_release_without_its_files_is_refused(world: Federation) -> None:
    daemon = world.founder
    shown = daemon.ask("release.show", model=MODEL, version="1.0.0")
    manifest = json.loads(shown["manifest"])
    manifest["version"] = "6.6.6"
    manifest["files"][0]["digest"] = str(Digest.of(b"never uploaded"))
    said = refusal(daemon, manifest)
    assert "upload" in str(said)


@pytest.mark.parametrize("name", ["../model.onnx", "a/b.onnx", "a\\b", "%2e%2e", "..", "x\u0000y"])
def test_a_file_name_that_could_leave_its_folder_is_refused(world: Federation, name: str) -> None:
    daemon = world.founder
    shown = daemon.ask("release.show", model=MODEL, version="1.0.0")
    manifest = json.loads(shown["manifest"])
    manifest["version"] = "6.6.6"
    manifest["files"][0]["name"] = name
    manifest["variants"][0]["file"] = name
    assert isinstance(refusal(daemon, manifest), InvalidSpec | InvalidName)


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        ("acme", {}, "com.acme"),
        ("external", {}, "outside its own folder"),
        (
            "v2",
            {"signature": {"inputs": [], "outputs": []}, "outcome": {"kind": "none", "output": ""}},
            "the inputs of model.onnx",
        ),
        ("v2", {"requires": {}}, "needs onnx.ir"),
        ("pickle", {}, "pickle"),
    ],
    ids=["operators", "weights", "inputs", "needs", "pickle"],
)
def test_what_somebody_signed_past_the_command_line_is_looked_at_again(
    world: Federation, kind: str, changes: dict[str, object], why: str, folder: Path
) -> None:
    """T27 to T32: an uploader has a key, and need not use our tools."""
    daemon = world.founder
    (folder / "pickle").write_bytes(pickle.dumps({"weights": [1.0]}))
    path = folder / "pickle" if kind == "pickle" else paths()[kind]
    digest, size = str(Digest.of(path.read_bytes())), path.stat().st_size
    client.put_blob(daemon.home, path, digest, size, lambda _: None)
    shown = daemon.ask("release.show", model=MODEL, version="1.0.0")
    manifest = {**json.loads(shown["manifest"]), "version": "6.6.6"}
    if kind == "pickle":  # beside a model that is as it was
        manifest["files"].append({"name": "labels.txt", "digest": digest, "size": size})
    else:
        manifest["files"] = [{"name": "model.onnx", "digest": digest, "size": size}]
        manifest["variants"][0]["file"] = "model.onnx"
    if "requires" in changes:
        manifest["variants"][0]["requires"] = changes["requires"]
    else:
        manifest |= changes
    assert why in str(refusal(daemon, manifest))


def refusal(daemon: Daemon, manifest: dict[str, object]) -> Rejected:
    """Past the command line, with a publisher's valid signature."""
    raw = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    name, key = f"{MODEL}@6.6.6", daemon.operator_key()
    envelope = sign_release(name, Digest.of(raw), 2, [key]).decode()
    with pytest.raises(Rejected) as caught:
        daemon.ask("release.publish", manifest=raw.decode(), envelope=envelope, counter=2)
    return caught.value


VERBS = {
    "release.list": ("model",), "release.show": ("model", "version", "release"),
    "release.prepare": ("model",), "release.uses": ("model", "version"), "lineage": ("model",),
    "why": ("model", "version", "region"), "status": ("model",), "heal.status": ("model",),
    "rollout.status": ("model", "rollout"), "rollout.explain": ("rollout", "model", "region"),
    "rollback": ("model", "to"), "freeze": ("model",), "release.pin": ("model", "release"),
    "release.file": ("model", "release", "file"), "release.files": ("model", "release"),
    "release.unpin": ("model", "release"), "release.kill": ("model", "release"),
    "bundle.export": ("region", "held"), "audit.read": ("path",), "blob.put": ("digest",),
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_a_name_that_is_no_name_opens_nothing_over_the_control_socket(
    world: Federation, verb: str
) -> None:
    """T28: by whatever argument; refused with a reason, not an accident of the daemon."""
    daemon = world.founder
    before = {path for path in world.home.rglob("*") if not path.name.startswith("events.db")}
    base = {"model": MODEL, "reason": "x", "by": "x", "size": 4, "version": "1.0.0"}
    for key in VERBS[verb]:
        said = {k: v for k, v in base.items() if k in VERBS[verb] or verb not in QUERIES}
        for name in NAMES:
            with pytest.raises(Rejected):
                daemon.ask(verb, **{**said, key: name or "\0"})
    after = {path for path in world.home.rglob("*") if not path.name.startswith("events.db")}
    assert after == before


# -- names and settings --------------------------------------------------------


@pytest.mark.parametrize("model", ["../digits", "di/gits", "DIGITS", "", "-"])
def test_a_model_name_that_is_no_name_is_a_usage_error(world: Federation, model: str) -> None:
    code, said = publish(world.founder, paths()["v2"], model=model)
    assert code == USAGE, said
    assert "model" in said


def test_a_node_name_with_a_path_in_it_enrols_nobody(world: Federation, folder: Path) -> None:
    ran = hanse(
        *("agent", "enroll", "--via", world.founder.home),
        *("--node", "../n9", "--home", folder / "n9"),
    )
    assert ran.returncode == USAGE, ran.stderr
    assert not (folder / "n9").exists()


@pytest.mark.parametrize(
    ("command", "file", "typo", "meant"),
    [
        ("daemon", "hanse.toml", "tick_intervall_s = 1.0", "tick_interval_s"),
        ("agent", "agent.toml", "report_intervall_s = 1.0", "report_interval_s"),
    ],
)
def test_a_setting_that_nobody_knows_is_refused_with_the_nearest_one(
    world: Federation, command: str, file: str, typo: str, meant: str
) -> None:
    home = world.daemons["ap-south"].home if command == "daemon" else world.nodes[0].home
    path = home / file
    whole = path.read_text()
    path.write_text(f"{typo}\n{whole}")
    ran = hanse(command, "run", "--home", home)
    path.write_text(whole)
    assert ran.returncode == 1, ran.stderr
    assert typo.partition(" ")[0] in ran.stderr
    assert f"did you mean {meant}?" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_key_file_that_others_can_read_stops_the_start(world: Federation) -> None:
    home = world.daemons["ap-south"].home
    key = home / "keys/daemon.key"
    key.chmod(0o644)
    ran = hanse("daemon", "run", "--home", home)
    key.chmod(0o600)
    assert ran.returncode == 1, ran.stderr
    assert "chmod" in ran.stderr


# -- strangers -----------------------------------------------------------------


@asynccontextmanager
async def channel(daemon: Daemon, identity: Identity) -> AsyncIterator[grpc.aio.Channel]:
    opened = tls.open_channel(daemon.address, identity, daemon.authority.cert_pem)
    try:
        yield opened
    finally:
        await opened.close()


async def test_a_strangers_certificate_opens_no_connection(world: Federation) -> None:
    member = world.founder.ask("status")["daemon"]["member"]
    uri = certificates.daemon_uri("harbour", "eu-north", member)  # the right name, another key
    authority = certificates.authority(uri, SPAN, f"daemon-{member}")
    async with channel(world.founder, certificates.issue(uri, authority, SPAN)) as stranger:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stranger.unary_unary(PROBE)(b"", timeout=EXIT_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_compressed_request_is_refused(world: Federation) -> None:
    async with channel(world.founder, world.daemons["us-east"].identity()) as member:
        assert b"eu-north" in await member.unary_unary(PROBE)(b"", timeout=EXIT_S)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await member.unary_unary(PROBE)(
                bytes(1000), timeout=EXIT_S, compression=grpc.Compression.Gzip
            )
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_node_whose_certificate_has_expired_says_so(world: Federation) -> None:
    daemon, node = world.founder, world.nodes[0]
    keys = daemon.home / "keys"
    ca = Identity((keys / "edge-ca.crt").read_bytes(), (keys / "edge-ca.key").read_bytes())
    uri = certificates.edge_uri("harbour", "eu-north", node.name)
    old = certificates.issue(uri, ca, (NOW - 9 * DAY, NOW - DAY))
    for name, data in (("tls.crt", old.cert_pem), ("tls.key", old.key_pem)):
        (node.home / "keys" / name).write_bytes(data)
    node.start()
    world.until("it says so", lambda: "certificate_out_of_date" in node.log.read_text())
    assert not node.status().get("daemon", {}).get("connected")
    assert "enrol" in node.log.read_text()
    assert node.stop() == 0
