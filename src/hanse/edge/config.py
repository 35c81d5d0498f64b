"""What an edge node is told at start: one TOML file, as one frozen value.

Every setting is described once, in `SETTINGS`; the commented file that enrolment writes is
rendered from there. Unknown keys are refused with the nearest known one. Secrets are paths,
never values, and a key file that others may read stops the start. Paths in the file are
relative to the folder that it lies in.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.core.compat import DECLARED, check_declared
from hanse.core.encoding import strict_base64
from hanse.core.errors import InvalidSpec, NotFound, NotPermitted
from hanse.core.ids import Segment, check_address, segment
from hanse.core.limits import LABELS_MAX
from hanse.core.reading import Reader
from hanse.core.transfer.turns import pace_of
from hanse.edge.listening import check_listen, check_reach

FILE_NAME = "agent.toml"
CONFIG_BYTES_MAX = 64 * 1024
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Setting:
    """What one key of the file means. Without a default it has to be given."""

    doc: str
    default: str | int | float | None = None


SETTINGS = {
    "node": Setting("This node's name in its region; its certificate says the same."),
    "federation": Setting("The federation that this node belongs to."),
    "region": Setting("The region whose daemon this node obeys."),
    "daemon": Setting("host:port of the region's daemon."),
    "daemon_cert": Setting(
        "The daemon's authority; nobody else's certificates are accepted.", "keys/daemon.crt"
    ),
    "daemon_key": Setting(
        "The daemon's public key, 32 bytes in base64. Assignments that it has not signed are\n"
        "refused, whoever delivers them."
    ),
    "tls_key": Setting("Private key of this node's TLS certificate.", "keys/tls.key"),
    "tls_cert": Setting(
        "This node's TLS certificate, issued by the region's edge CA.", "keys/tls.crt"
    ),
    "state": Setting("Folder for models, the last assignment and status.json.", "state"),
    "listen": Setting(
        "host:port, or unix:PATH, of the inference port (Open Inference Protocol over gRPC).\n"
        "Without TLS it is for applications on this machine, so only loopback is accepted.",
        "127.0.0.1:8001",
    ),
    "serving_cert": Setting(
        "Certificate chain, PEM, that the inference port shows to applications; with it, the\n"
        "port speaks TLS only and may listen on any address. Default: none.",
        "",
    ),
    "serving_key": Setting("Private key of that certificate. Default: none.", ""),
    "serving_client_ca": Setting(
        "CA certificates, PEM: applications must show a certificate that one of them issued.\n"
        "Default: whoever reaches the port may ask.",
        "",
    ),
    "serving_without_tls": Setting(
        "true: listen beyond loopback although there is no TLS. Everybody who reaches the port\n"
        "can then ask the models and record labels, which decide over releases. Default false.",
        False,
    ),
    "share_listen": Setting(
        "host:port on which this node gives parts of model files to other nodes of its region, to\n"
        "whom the daemon permits it, and takes from them; they speak mutual TLS. Default: none.",
        "",
    ),
    "share_address": Setting(
        "host:port under which they reach it. Default: share_listen; if that is every address of\n"
        "this machine (0.0.0.0 or [::]), the one from which the daemon sees it come.",
        "",
    ),
    "share_bytes_per_s": Setting(
        "Bytes a second that it gives at most, all neighbours together; 0, the default: no limit.",
        0,
    ),
    "fetch_bytes_per_s": Setting(
        "Bytes of model files a second that it fetches at most; at least 65536, or 0: no limit.\n"
        "Default 0. Assignments and rollbacks are never held up.",
        0,
    ),
    "report_interval_s": Setting(
        "Seconds between reports of counts to the daemon; 0.1 to 3600. Default 5. Changes of\n"
        "state are reported at once. Larger: less traffic, but verdicts come that much later.",
        5.0,
    ),
    "probe_interval_s": Setting(
        "Seconds between measurements of the round trip to each source; 1 to 86400.\n"
        "Default 60. Larger: less traffic, but a nearer source is noticed later.",
        60.0,
    ),
    "release_bytes_max": Setting(
        "A release larger than this is refused, not fetched. Default 16 GiB.", 16 * 1024**3
    ),
    "threads": Setting(
        "Threads that run models; 1 to 64. Default 2. More than there are cores only queues.", 2
    ),
    "log_level": Setting("debug, info, warning or error. Default info.", "info"),
}
"""All settings but two tables: `[facts]` and `[labels]`, texts by which rollouts select nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One edge node, as `SETTINGS` describes it. Paths are absolute."""

    node: Segment
    federation: Segment
    region: Segment
    daemon: str
    daemon_cert: Path
    daemon_key: bytes
    tls_key: Path
    tls_cert: Path
    state: Path
    listen: str
    serving_cert: Path | None
    serving_key: Path | None
    serving_client_ca: Path | None
    serving_without_tls: bool
    share_listen: str
    share_address: str
    share_bytes_per_s: int
    fetch_bytes_per_s: int
    report_interval_s: float
    probe_interval_s: float
    release_bytes_max: int
    threads: int
    log_level: str
    facts: dict[str, str]
    labels: dict[str, str]


def load(path: Path) -> Config:
    """Read the file. Raises `NotFound`, `InvalidSpec`, `InvalidName` or `NotPermitted`."""
    path = path.absolute()
    config = _parse(_read(path), path.parent)
    for key in (config.tls_key, config.serving_key):
        if key is not None and key.exists() and key.stat().st_mode & 0o077:
            raise NotPermitted(f"{key} can be read by others", fix="chmod 600 it")
    check_reach(
        config.listen,
        config.serving_cert,
        config.serving_key,
        without_tls=config.serving_without_tls,
    )
    return config


def render(values: Mapping[str, str | int | float], labels: Mapping[str, str]) -> str:
    """The commented file; what is not in `values` stands commented out at its default."""
    lines = ["# One Hanse edge node. A setting that is commented out has the value shown."]
    for key, setting in SETTINGS.items():
        lines += ["", *(f"# {line}" for line in setting.doc.splitlines())]
        if key in values:
            lines.append(f"{key} = {_toml(values[key])}")
        else:
            lines.append(f"# {key} = {_toml(setting.default)}")
    lines += [
        "",
        "# What this machine has and the agent cannot find out, for what releases require:",
    ]
    lines += [f"# {', '.join(DECLARED)}.", "[facts]"]
    lines += ["", "# Texts by which rollouts select nodes.", "[labels]"]
    lines += [f"{_toml(key)} = {_toml(value)}" for key, value in sorted(labels.items())]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path} is missing", fix="enrol this node first") from None
    if len(raw) > CONFIG_BYTES_MAX:
        raise InvalidSpec(f"{path} is larger than {CONFIG_BYTES_MAX} bytes")
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{path} is not valid TOML: {error}", fix="correct that line") from None


def _parse(document: dict[str, Any], folder: Path) -> Config:
    with Reader(document, FILE_NAME) as reader:
        return Config(
            node=segment(_text(reader, "node"), "node"),
            federation=segment(_text(reader, "federation"), "federation"),
            region=segment(_text(reader, "region"), "region"),
            daemon=check_address(_text(reader, "daemon"), "daemon"),
            daemon_cert=folder / _text(reader, "daemon_cert"),
            daemon_key=_public_key(_text(reader, "daemon_key")),
            tls_key=folder / _text(reader, "tls_key"),
            tls_cert=folder / _text(reader, "tls_cert"),
            state=folder / _text(reader, "state"),
            listen=check_listen(_text(reader, "listen")),
            serving_cert=_path(reader, "serving_cert", folder),
            serving_key=_path(reader, "serving_key", folder),
            serving_client_ca=_path(reader, "serving_client_ca", folder),
            serving_without_tls=reader.flag("serving_without_tls", False),
            share_listen=_address(reader, "share_listen"),
            share_address=_address(reader, "share_address"),
            share_bytes_per_s=pace_of(reader, "share_bytes_per_s"),
            fetch_bytes_per_s=pace_of(reader, "fetch_bytes_per_s"),
            report_interval_s=_number(reader, "report_interval_s", 0.1, 3600.0),
            probe_interval_s=_number(reader, "probe_interval_s", 1.0, 86400.0),
            release_bytes_max=reader.integer(
                "release_bytes_max", SETTINGS["release_bytes_max"].default, low=1
            ),
            threads=reader.integer("threads", SETTINGS["threads"].default, low=1, high=64),
            log_level=reader.one_of("log_level", LOG_LEVELS, SETTINGS["log_level"].default),
            facts=check_declared(reader.pairs("facts", count_max=LABELS_MAX), "facts"),
            labels=reader.pairs("labels", count_max=LABELS_MAX),
        )


def _text(reader: Reader, key: str) -> str:
    default = SETTINGS[key].default
    return reader.text(key) if default is None else reader.text(key, default)


def _address(reader: Reader, key: str) -> str:
    text = _text(reader, key)
    return check_address(text, key) if text else ""


def _number(reader: Reader, key: str, low: float, high: float) -> float:
    return reader.number(key, SETTINGS[key].default, low=low, high=high)


def _path(reader: Reader, key: str, folder: Path) -> Path | None:
    text = _text(reader, key)
    return folder / text if text else None


def _public_key(text: str) -> bytes:
    key = strict_base64(text)
    if key is None or len(key) != 32:
        raise InvalidSpec(
            "daemon_key: expected 32 bytes in base64", fix="copy it from the enrolment"
        )
    return key


def _toml(value: str | int | float | None) -> str:
    # A JSON text or number is also a TOML one, once DEL is escaped.
    return json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f")
