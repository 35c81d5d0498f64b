"""OpenSSF model signing: ours by their unmodified tool, theirs by us, nothing altered by either."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_daemon as fake
import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from hanse.cli.main import main
from hanse.core import dsse, model_signing
from hanse.core.catalog.manifest import File, Manifest, Variant
from hanse.core.encoding import strict_base64, to_base64
from hanse.core.errors import InvalidProof, InvalidSignature, InvalidSpec, Rejected
from hanse.core.ids import Digest, Version, segment
from hanse.core.model_signing import open_bundle, sign_bundle

PYTHON = Path(__file__).resolve().parents[2] / ".venv-signing/bin/python"
needs_tool = pytest.mark.skipif(not PYTHON.exists(), reason="model_signing is not set up")
KEY = ec.generate_private_key(ec.SECP256R1())
CURVES = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
CONTENTS = {"model.onnx": b"weights", "golden.npz": b"inputs and outputs"}


def private_pem(key: Any) -> bytes:
    form = pem.PrivateFormat.PKCS8
    return bytes(key.private_bytes(pem.Encoding.PEM, form, pem.NoEncryption()))


def public_pem(key: Any) -> bytes:
    form = pem.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_key().public_bytes(pem.Encoding.PEM, form))


class World:
    """A model's folder, keys beside it, and a daemon that knows only the digests."""

    def __init__(self, folder: Path, key: ec.EllipticCurvePrivateKey = KEY) -> None:
        self.model, self.bundle = folder / "model", folder / "model.sig"
        self.private, self.public = folder / "key.pem", folder / "key.pub"
        self.model.mkdir()
        for name, content in CONTENTS.items():
            (self.model / name).write_bytes(content)
        self.private.write_bytes(private_pem(key))
        self.private.chmod(0o600)
        self.public.write_bytes(public_pem(key))

    def ours(self, home: Path) -> None:
        files = tuple(File(segment(n), Digest.of(c), len(c)) for n, c in CONTENTS.items())
        variants = (Variant(segment("onnx"), "onnx", files[0].name),)
        made = Manifest(segment("ocr"), Version("1.0.0"), files, variants, (), ())
        shown = {"manifest": made.encode().decode()}
        with fake.running(home, {"release.show": shown}):
            words = ("release", "sign-bundle", "ocr@1.0.0", "--home", str(home))
            assert main([*words, "--key", str(self.private), "--save", str(self.bundle)]) == 0

    def theirs(self) -> None:
        ran = self.tool("sign", "key", "--private_key", self.private)
        assert ran.returncode == 0, ran.stderr

    def tool(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(PYTHON), "-m", "model_signing", *map(str, words), "--signature"]
        command += [str(self.bundle), str(self.model)]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    def they_accept(self) -> bool:
        return self.tool("verify", "key", "--public_key", self.public).returncode == 0

    def we_accept(self) -> bool:
        words = ["release", "verify", str(self.model), "--bundle", str(self.bundle)]
        code = main([*words, "--public-key", str(self.public)])
        assert code in (0, 5)
        return code == 0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/hanse.toml").write_text("")
    return tmp_path / "home"


def change_a_byte(world: World) -> None:
    (world.model / "model.onnx").write_bytes(b"Weights")


def add_a_file(world: World) -> None:
    (world.model / "run.py").write_bytes(b"import os")


def take_a_file(world: World) -> None:
    (world.model / "golden.npz").unlink()


def link_a_file(world: World) -> None:
    (world.model / "golden.npz").rename(world.model.parent / "elsewhere")
    (world.model / "golden.npz").symlink_to(world.model.parent / "elsewhere")


def take_another_key(world: World) -> None:
    world.public.write_bytes(public_pem(ec.generate_private_key(ec.SECP256R1())))


def say_another_digest(world: World) -> None:
    altered(world, lambda said: said["predicate"]["resources"][0].update(digest="0" * 64))


def hide_another_key(world: World) -> None:
    """The bundle names the key that is asked for; its signature is by another."""
    files = {name: Digest.of(content) for name, content in CONTENTS.items()}
    raw = json.loads(sign_bundle("ocr", files, ec.generate_private_key(ec.SECP256R1())))
    raw["verificationMaterial"]["publicKey"]["hint"] = model_signing.hint_of(KEY.public_key())
    world.bundle.write_text(json.dumps(raw))


def altered(world: World, change: Callable[[Any], object]) -> None:
    raw = json.loads(world.bundle.read_text())
    said = json.loads(strict_base64(raw["dsseEnvelope"]["payload"]) or b"")
    change(said)
    raw["dsseEnvelope"]["payload"] = to_base64(json.dumps(said).encode())
    world.bundle.write_text(json.dumps(raw))


TAMPERED = (
    change_a_byte,
    add_a_file,
    take_a_file,
    link_a_file,
    take_another_key,
    say_another_digest,
    hide_another_key,
)


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda f: f.__name__)
def test_we_accept_our_own_and_nothing_altered(tamper: Any, tmp_path: Path, home: Path) -> None:
    world = World(tmp_path)
    world.ours(home)
    assert world.we_accept()
    tamper(world)
    assert not world.we_accept()


@needs_tool
@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda f: f.__name__)
def test_their_tool_accepts_ours_and_nothing_altered(
    tamper: Any, tmp_path: Path, home: Path
) -> None:
    world = World(tmp_path)
    world.ours(home)
    assert world.they_accept()
    tamper(world)
    assert not world.they_accept()


@needs_tool
@pytest.mark.parametrize("curve", CURVES, ids=lambda c: c.name)
def test_every_curve_goes_both_ways(curve: ec.EllipticCurve, tmp_path: Path, home: Path) -> None:
    world = World(tmp_path, ec.generate_private_key(curve))
    world.ours(home)
    assert world.they_accept()
    world.bundle.unlink()
    world.theirs()
    assert world.we_accept()
    take_another_key(world)
    assert not world.we_accept()


@needs_tool
@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda f: f.__name__)
def test_we_accept_theirs_and_nothing_altered(tamper: Any, tmp_path: Path) -> None:
    """With folders, and with the bundle in the model's own folder, as their default is."""
    world = World(tmp_path)
    (world.model / "tokens/deep").mkdir(parents=True)
    (world.model / "tokens/deep/a b.txt").write_text("words")
    (world.model / ".gitignore").write_text("left out by them")
    world.bundle = world.model / "model.sig"
    world.theirs()
    assert world.we_accept()
    tamper(world)
    assert not world.we_accept()


def signed_over(said: Any) -> bytes:
    """A bundle whose signature stands, whatever it says."""
    raw = json.loads(sign_bundle("ocr", {}, KEY))
    payload = json.dumps(said).encode()
    message = dsse.pae(model_signing.PAYLOAD_TYPE, payload)
    signature = KEY.sign(message, ec.ECDSA(model_signing._HASHES["secp256r1"]))
    raw["dsseEnvelope"] |= {"payload": to_base64(payload)}
    raw["dsseEnvelope"]["signatures"] = [{"sig": to_base64(signature)}]
    return json.dumps(raw).encode()


def statement(**resource: Any) -> dict[str, Any]:
    raw = json.loads(sign_bundle("ocr", {"a": Digest.of(b"a")}, KEY))
    said: dict[str, Any] = json.loads(strict_base64(raw["dsseEnvelope"]["payload"]) or b"")
    said["predicate"]["resources"][0] |= resource
    return said


@pytest.mark.parametrize(
    "name", ["../a", "/a", "a/../../b", "", "a//b", "a\\b", "a\nb", 7, "x" * 600]
)
def test_a_name_that_leaves_the_folder_is_refused(name: object) -> None:
    open_bundle(signed_over(statement()), KEY.public_key())
    with pytest.raises(InvalidSpec):
        open_bundle(signed_over(statement(name=name)), KEY.public_key())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda s: s.update(_type="x"), InvalidSpec),
        (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), InvalidSpec),
        (lambda s: s.update(subject=[]), InvalidSpec),
        (lambda s: s["subject"][0]["digest"].update(sha256="0" * 64), InvalidProof),
        (lambda s: s["predicate"]["serialization"].update(method="shards"), InvalidSpec),
        (lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0]), InvalidSpec),
        (lambda s: s["predicate"]["resources"][0].update(algorithm="md5"), InvalidSpec),
        (lambda s: s["predicate"].update(resources="a"), InvalidSpec),
    ],
)
def test_what_was_signed_has_to_make_sense(change: Any, error: type[Rejected]) -> None:
    said = statement()
    change(said)
    with pytest.raises(error):
        open_bundle(signed_over(said), KEY.public_key())


def test_every_cut_and_flip_of_a_bundle_is_refused_with_a_reason() -> None:
    raw = sign_bundle("ocr", {"model.onnx": Digest.of(b"w")}, KEY)
    for at in range(0, len(raw), 7):
        for damaged in (raw[:at], raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]):
            try:
                found = open_bundle(damaged, KEY.public_key())
            except Rejected:
                continue
            assert found.files == {"model.onnx": Digest.of(b"w")}  # a field that nobody signs


def test_keys_of_another_kind_are_refused() -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    wrong = (private_pem(other), private_pem(ec.generate_private_key(ec.SECP256K1())), b"x")
    for each in wrong:
        with pytest.raises(InvalidSpec, match="no private key"):
            model_signing.private_key(each)
    for each in (public_pem(other), public_pem(ec.generate_private_key(ec.SECP256K1())), b"x"):
        with pytest.raises(InvalidSpec, match="no public key"):
            model_signing.public_key(each)
    raw = sign_bundle("ocr", {}, KEY)
    with pytest.raises(InvalidSignature, match="another key"):
        open_bundle(raw, ec.generate_private_key(ec.SECP256R1()).public_key())
