from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from hanse.core.errors import Conflict, InvalidName, InvalidSpec, NotFound, NotPermitted
from hanse.daemon import config
from hanse.daemon.private_files import read_private, read_seed, write_new

MINIMAL = 'federation = "acme"\nregion = "eu-north"\nlisten = "127.0.0.1:7420"\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("daemon.key", "witness.key", "tls.key"):
        write_new(tmp_path / "keys" / name, b"secret")
    return tmp_path


def load(home: Path, text: str) -> config.Config:
    (home / "hanse.toml").write_text(text)
    return config.load(home)


def test_three_lines_are_enough(home):
    loaded = load(home, MINIMAL)
    assert loaded.advertise == loaded.listen == "127.0.0.1:7420"
    assert loaded.tick_interval_s == 0.25
    assert loaded.control_socket == home / "control.sock"
    assert loaded.daemon_key == home / "keys/daemon.key"


def test_every_field_is_described_and_every_description_is_a_field():
    named = {f.name for f in dataclasses.fields(config.Config)} - {"home"}
    assert named == set(config.SETTINGS)
    assert all(setting.doc.endswith(".") for setting in config.SETTINGS.values())


def test_the_rendered_file_says_what_the_defaults_are(home):
    given = tomllib.loads(MINIMAL)
    text = config.render(given)
    assert tomllib.loads(text) == given
    shown = [line for line in text.splitlines() if " = " in line]
    plain = "\n".join(line.removeprefix("# ") for line in shown)
    assert load(home, plain) == load(home, MINIMAL)


def test_an_unknown_key_is_refused_with_the_nearest_known(home):
    with pytest.raises(InvalidSpec, match="did you mean tick_interval_s"):
        load(home, MINIMAL + "tick_intervall_s = 1.0\n")


@pytest.mark.parametrize(
    "line",
    [
        "tick_interval_s = 0.0",
        "tick_interval_s = true",
        "blob_reserve_bytes = -1",
        "disk_reserve_bytes = 8388607",
        "blob_send_bytes_per_s = 65535",
        'log_level = "loud"',
        'advertise = "nowhere"',
        "tls_key = 3",
        "region",
    ],
)
def test_a_wrong_value_is_refused(home, line):
    with pytest.raises((InvalidSpec, InvalidName)):
        load(home, MINIMAL + line + "\n")


def test_a_home_without_a_file_says_how_to_make_one(tmp_path):
    with pytest.raises(NotFound, match="hanse daemon init"):
        config.load(tmp_path)


def test_a_key_that_others_can_read_stops_the_start(home):
    (home / "keys/daemon.key").chmod(0o640)
    with pytest.raises(NotPermitted, match="chmod 600"):
        load(home, MINIMAL)


def test_a_missing_key_is_named(home):
    (home / "keys/tls.key").unlink()
    with pytest.raises(NotFound, match=r"tls\.key"):
        load(home, MINIMAL)


def test_a_long_home_gets_a_short_socket_and_always_the_same(tmp_path):
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    path = config.control_path(deep)
    assert len(bytes(path)) <= config.SOCKET_PATH_BYTES_MAX
    assert path == config.control_path(deep)
    assert path != config.control_path(deep / "c")
    with pytest.raises(InvalidSpec, match="shorter"):
        config.control_path(deep, "s.sock")


def test_a_seed_is_64_hex_digits(tmp_path):
    write_new(tmp_path / "good", b"ab" * 32 + b"\n")
    assert read_seed(tmp_path / "good") == b"\xab" * 32
    write_new(tmp_path / "short", b"ab" * 31)
    with pytest.raises(InvalidSpec):
        read_seed(tmp_path / "short")


def test_a_file_that_exists_is_never_replaced(tmp_path):
    write_new(tmp_path / "key", b"first")
    with pytest.raises(Conflict, match="never overwritten"):
        write_new(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_a_key_file_is_bounded(tmp_path):
    write_new(tmp_path / "huge", bytes(70_000))
    with pytest.raises(InvalidSpec, match="too large"):
        read_private(tmp_path / "huge")
