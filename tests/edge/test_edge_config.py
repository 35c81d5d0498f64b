"""What the node is told is exactly what is written, or it does not start."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from hanse.core.errors import HanseError, NotFound
from hanse.edge.config import FILE_NAME, SETTINGS, load, render

REQUIRED = {
    "node": "edge-1",
    "federation": "acme",
    "region": "eu-north",
    "daemon": "10.0.0.1:7420",
    "daemon_key": base64.b64encode(bytes(range(32))).decode(),
}


def write(folder: Path, text: str) -> Path:
    path = folder / FILE_NAME
    path.write_text(text)
    return path


def test_the_rendered_file_is_read_as_meant(tmp_path: Path) -> None:
    config = load(write(tmp_path, render(REQUIRED, {"tier": "gold", "a.b": 'x"y'})))
    assert config.node == "edge-1"
    assert config.daemon_key == bytes(range(32))
    assert config.listen == "127.0.0.1:8001"
    assert config.state == tmp_path / "state"
    assert config.labels == {"tier": "gold", "a.b": 'x"y'}


def test_every_setting_is_described_and_has_its_default_in_the_file() -> None:
    text = render(REQUIRED, {})
    for key, setting in SETTINGS.items():
        assert setting.doc.endswith(".")
        assert f"\n{key} = " in text or f"\n# {key} = " in text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("listn = 'x'", "did you mean listen"),
        ("listen = 'everywhere'", "not host:port"),
        ("listen = '127.0.0.1:99999'", "not host:port"),
        ("threads = 0", "from 1 to 64"),
        ("report_interval_s = 0", "from 0.1"),
        ("log_level = 'loud'", "not allowed"),
        ("node = 'x'", "not valid TOML"),
        ("this is not TOML", "not valid TOML"),
    ],
)
def test_mistakes_are_named(line: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(HanseError, match=reason):
        load(write(tmp_path, render(REQUIRED, {}).replace("[facts]", f"{line}\n[facts]")))


@pytest.mark.parametrize("key", ["", "AAAA", "!" * 44, "ä" * 44])
def test_a_daemon_key_that_is_no_key_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(HanseError, match="daemon_key"):
        load(write(tmp_path, render({**REQUIRED, "daemon_key": key}, {})))


def test_a_key_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/tls.key").touch(mode=0o644)
    with pytest.raises(HanseError, match="chmod 600"):
        load(write(tmp_path, render(REQUIRED, {})))


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="enrol"):
        load(tmp_path / FILE_NAME)


def test_an_owner_declares_what_the_machine_has_and_nothing_else(tmp_path: Path) -> None:
    facts = 'tensorrt = "10.3.0"\n"gpu.compute_capability" = "8.7"\n"mem.gpu_mib" = "7620"'
    text = render(REQUIRED, {}).replace("[facts]", f"[facts]\n{facts}")
    assert load(write(tmp_path, text)).facts == {
        "tensorrt": "10.3.0", "gpu.compute_capability": "8.7", "mem.gpu_mib": "7620"
    }  # fmt: skip
    whole = render(REQUIRED, {})
    for line in ('ort = "1.30"', 'formats = "tensorrt-plan"', 'tensorrt = "new"', 'cuda = ""'):
        with pytest.raises(HanseError, match="facts"):
            load(write(tmp_path, whole.replace("[facts]", f"[facts]\n{line}")))
