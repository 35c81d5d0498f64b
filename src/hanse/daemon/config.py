"""What a daemon is told at start: `hanse.toml` in its home folder, as one frozen value.

Every setting is described once, in `SETTINGS`; the commented file that `hanse daemon init`
writes is rendered from there. Unknown keys are refused with the nearest known one. Secrets
are paths, never values, and a key file that others may read stops the start.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.core.catalog.private import check_policy
from hanse.core.errors import InvalidSpec, NotFound
from hanse.core.ids import Segment, check_address, segment
from hanse.core.limits import DISK_RESERVE_BYTES_MIN, RECOVERY_S
from hanse.core.reading import Reader
from hanse.core.transfer.turns import pace_of
from hanse.daemon.private_files import check_private
from hanse.storage.place import Place

FILE_NAME = "hanse.toml"
FIRST_START = "first-start"  # beside it until the daemon has written its first event
SOCKET_PATH_BYTES_MAX = 100  # the kernel takes 107
CONFIG_BYTES_MAX = 64 * 1024
LOG_LEVELS = ("debug", "info", "warning", "error")
_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,260}(/[A-Za-z0-9._~/-]{0,200})?")


@dataclass(frozen=True, slots=True)
class Setting:
    """What one key of the file means. Without a default it has to be given."""

    doc: str
    default: str | int | float | None = None


SETTINGS = {
    "federation": Setting("The federation that this daemon belongs to; fixed at init."),
    "region": Setting("The region that this daemon speaks for; fixed at init."),
    "listen": Setting("host:port on which peers and edge nodes are served."),
    "advertise": Setting(
        "host:port under which peers reach this daemon, as the members file lists it.\n"
        "Default: the same as listen.",
        "",
    ),
    "audit_listen": Setting(
        "host:port of the auditor's door: every log and the trust chain over HTTP, for everybody\n"
        "who reaches it, read-only and without TLS. Default: closed.",
        "",
    ),
    "witness_url": Setting(
        "Where a witness outside the federation takes C2SP add-checkpoint requests, such as\n"
        "https://witness.example. Its key stands in the witness policy. Default: none is asked.",
        "",
    ),
    "prometheus_url": Setting(
        "Prometheus server that counts what plans declare (metrics with prometheus: ...), such as\n"
        "http://127.0.0.1:9090. A plan says what is asked there and never whom. Default: none.",
        "",
    ),
    "prometheus_token": Setting(
        "File with the bearer token that is shown to that server. Default: none is shown.", ""
    ),
    "private_fields": Setting(
        "Values of a manifest that this region lets out as commitments only, with spaces between:\n"
        "training.data, training.code, hyperparameters.NAME, metrics.NAME, labels.NAME; NAME may\n"
        "be *. A release that says one of them in clear is not recorded here. Default: none.",
        "",
    ),
    "log_level": Setting(
        "debug, info, warning or error. Default info; debug writes a line for every dial.", "info"
    ),
    "tick_interval_s": Setting(
        "Seconds between looks at rollouts, deadlines and silent peers; 0.01 to 10.\n"
        "Default 0.25. Larger: less idle work, but verdicts and rollbacks come that much later.",
        0.25,
    ),
    "recovery_timeout_s": Setting(
        "Seconds that a restarted daemon waits for peers to say how much of its log they hold,\n"
        "before it writes again, in a new incarnation of its log; 0 to 3600. Default 30.\n"
        "Larger: fewer incarnations while peers are away, but holds and rollbacks wait longer.",
        RECOVERY_S,
    ),
    "control_socket": Setting(
        "Unix socket on which the command line talks to this daemon; mode 0600.\n"
        "Default: control.sock in this folder, or a short path under /tmp if that is too long.",
        "",
    ),
    "blobs": Setting(
        "Bucket for the model files, which all daemons of the region share: s3://BUCKET/PREFIX,\n"
        "gs://..., az://ACCOUNT/CONTAINER/PREFIX or file:///FOLDER. Needs hanse[bucket].\n"
        "Default: they lie in this folder.",
        "",
    ),
    "blobs_endpoint": Setting(
        "URL of an S3 service other than AWS, such as https://s3.example.\n"
        "Default: that of the cloud.",
        "",
    ),
    "blobs_credentials": Setting(
        "File with lines like access_key_id=... and secret_access_key=..., or the JSON key of a\n"
        "Google service account. Default: the environment or the machine's role tells.",
        "",
    ),
    "blobs_options": Setting(
        "What else the client of the bucket should know, as NAME=VALUE with spaces between, such\n"
        "as region=eu-central-1 virtual_hosted_style_request=true. Default: nothing.",
        "",
    ),
    "blob_cache_bytes": Setting(
        "Bytes of disk for model files of the bucket that were used last. Default 10 GiB.\n"
        "Larger: fewer downloads; what is being read may go beyond it.",
        10 * 1024**3,
    ),
    "fold_after_s": Setting(
        "Seconds after a model file has come until only what is new of it beside its parent's is\n"
        "kept, if that saves a tenth and 1 MiB; -1 for never. Not in a bucket. Default 600.\n"
        "Larger: nodes that come late for a new release are served with less work.",
        600.0,
    ),
    "scrub_bytes_per_s": Setting(
        "Bytes a second at which all model files are read again, to find bits that have flipped;\n"
        "0 for never. Default 8 MiB. Larger: the disk and a core have more to do.",
        8 * 1024**2,
    ),
    "scrub_interval_s": Setting(
        "Seconds between the beginnings of two such passes. Default 7 days; a pass takes as long\n"
        "as it takes.",
        7 * 86_400.0,
    ),
    "blob_reserve_bytes": Setting(
        "Bytes of disk that model files never use; 5 % of the disk stay free in any case.\n"
        "Default 1 GiB. Larger: fewer releases fit, but the log can go on for longer.",
        1024**3,
    ),
    "blob_send_bytes_per_s": Setting(
        "Bytes of model files a second that leave this daemon, shared in turns by all who fetch;\n"
        "at least 65536, or 0 for as fast as they go. Default 0. Metadata is never held up.",
        0,
    ),
    "blob_fetch_bytes_per_s": Setting(
        "Bytes of model files a second that this daemon fetches from others; at least 65536, or\n"
        "0 for as fast as they come. Default 0.",
        0,
    ),
    "disk_reserve_bytes": Setting(
        "Size of a file that is set aside in the data folder and given up when the disk is full,\n"
        "so that holds and rollbacks can still be written; at least 8 MiB, or 0 for none.\n"
        "Default 32 MiB.",
        32 * 1024**2,
    ),
    "daemon_key": Setting("Seed of the key that signs this daemon's log.", "keys/daemon.key"),
    "witness_key": Setting(
        "Seed of the key that cosigns the logs of others; the members file lists it too.",
        "keys/witness.key",
    ),
    "timestamp_key": Setting(
        "Seed of the key that signs timestamps of trust, on daemons that hold one.",
        "keys/timestamp.key",
    ),
    "tls_key": Setting(
        "Private key of this daemon's own authority. It issues the certificates that the daemon\n"
        "shows to peers and nodes, a new one every few days.",
        "keys/tls.key",
    ),
    "tls_cert": Setting(
        "Certificate of that authority, as the members file pins it.", "keys/tls.crt"
    ),
    "edge_ca_key": Setting(
        "Private key that issues certificates to edge nodes. It may be kept on another machine:\n"
        "then this daemon makes no tokens and renews nothing, and nodes are enrolled there.",
        "keys/edge-ca.key",
    ),
    "edge_ca_cert": Setting(
        "Certificate of the edge CA, as the members file lists it for the region.",
        "keys/edge-ca.crt",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One daemon, as `SETTINGS` describes it. Paths are absolute."""

    home: Path  # the folder of the file: named on the command line, not in the file
    federation: Segment
    region: Segment
    listen: str
    advertise: str
    audit_listen: str
    witness_url: str
    prometheus_url: str
    prometheus_token: Path | None
    private_fields: tuple[str, ...]
    log_level: str
    tick_interval_s: float
    recovery_timeout_s: float
    control_socket: Path
    blobs: str
    blobs_endpoint: str
    blobs_credentials: Path | None
    blobs_options: str
    blob_cache_bytes: int
    fold_after_s: float
    scrub_bytes_per_s: int
    scrub_interval_s: float
    blob_reserve_bytes: int
    blob_send_bytes_per_s: int
    blob_fetch_bytes_per_s: int
    disk_reserve_bytes: int
    daemon_key: Path
    witness_key: Path
    timestamp_key: Path
    tls_key: Path
    tls_cert: Path
    edge_ca_key: Path
    edge_ca_cert: Path

    @property
    def bucket(self) -> Place | None:
        """Raises `InvalidSpec`."""
        if not self.blobs:
            if self.blobs_endpoint or self.blobs_credentials or self.blobs_options:
                raise InvalidSpec("blobs: empty, while other settings tell of a bucket")
            return None
        options = dict(each.partition("=")[::2] for each in self.blobs_options.split())
        return Place(self.blobs, self.blobs_endpoint, self.blobs_credentials, options)

    @property
    def trust_folder(self) -> Path:
        return self.home / "trust"


def load(home: Path) -> Config:
    """Read `hanse.toml`. Raises `NotFound`, `InvalidSpec`, `InvalidName` or `NotPermitted`."""
    home = home.absolute()
    config = _parse(_read(home / FILE_NAME), home)
    for path in (config.daemon_key, config.witness_key, config.tls_key):
        check_private(path)
    if config.prometheus_token is not None:
        check_private(config.prometheus_token)
    if config.bucket is not None and config.blobs_credentials is not None:
        check_private(config.blobs_credentials)
    if config.edge_ca_key.exists():
        check_private(config.edge_ca_key)
    return config


def render(values: Mapping[str, str | int | float]) -> str:
    """The commented file; what is not in `values` stands commented out at its default."""
    lines = ["# One Hanse daemon. A setting that is commented out has the value shown."]
    for key, setting in SETTINGS.items():
        lines += ["", *(f"# {line}" for line in setting.doc.splitlines())]
        if key in values:
            lines.append(f"{key} = {_toml(values[key])}")
        else:
            lines.append(f"# {key} = {_toml(setting.default)}")
    return "\n".join(lines) + "\n"


def control_path(home: Path, configured: str = "") -> Path:
    """Where the control socket is. Depends on the home folder alone, never on who asks."""
    path = home.absolute() / (configured or "control.sock")
    if len(bytes(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    if configured:
        raise InvalidSpec(
            f"control_socket: {path} is longer than {SOCKET_PATH_BYTES_MAX} bytes",
            fix="choose a shorter path",
        )
    name = hashlib.sha256(bytes(home.absolute())).hexdigest()[:16]
    # The client checks who serves it, so a world-writable parent is harmless.
    return Path("/tmp") / f"hanse-{name}" / "control.sock"  # noqa: S108


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(
            f"there is no daemon in {path.parent}: {FILE_NAME} is missing",
            fix="make one with hanse daemon init or join, or name its folder with --home",
        ) from None
    if len(raw) > CONFIG_BYTES_MAX:
        raise InvalidSpec(f"{path} is larger than {CONFIG_BYTES_MAX} bytes")
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{path} is not valid TOML: {error}", fix="correct that line") from None


def _parse(document: dict[str, Any], home: Path) -> Config:
    with Reader(document, FILE_NAME) as reader:
        listen = check_address(_text(reader, "listen"), "listen")
        return Config(
            home=home,
            federation=segment(_text(reader, "federation"), "federation"),
            region=segment(_text(reader, "region"), "region"),
            listen=listen,
            advertise=check_address(_text(reader, "advertise") or listen, "advertise"),
            private_fields=check_policy(_text(reader, "private_fields").split()),
            audit_listen=_optional_address(reader, "audit_listen"),
            witness_url=_url(reader, "witness_url"),
            prometheus_url=_url(reader, "prometheus_url"),
            prometheus_token=_optional_path(reader, home, "prometheus_token"),
            log_level=reader.one_of("log_level", LOG_LEVELS, SETTINGS["log_level"].default),
            tick_interval_s=reader.number(
                "tick_interval_s", SETTINGS["tick_interval_s"].default, low=0.01, high=10.0
            ),
            recovery_timeout_s=reader.number(
                "recovery_timeout_s", SETTINGS["recovery_timeout_s"].default, low=0, high=3600
            ),
            control_socket=control_path(home, _text(reader, "control_socket")),
            blobs=_text(reader, "blobs"),
            blobs_endpoint=_url(reader, "blobs_endpoint"),
            blobs_credentials=home / found
            if (found := _text(reader, "blobs_credentials"))
            else None,
            blobs_options=_text(reader, "blobs_options"),
            blob_cache_bytes=reader.integer(
                "blob_cache_bytes", SETTINGS["blob_cache_bytes"].default, high=2**50
            ),
            fold_after_s=reader.number(
                "fold_after_s", SETTINGS["fold_after_s"].default, low=-1, high=1e9
            ),
            scrub_bytes_per_s=reader.integer(
                "scrub_bytes_per_s", SETTINGS["scrub_bytes_per_s"].default, high=2**40
            ),
            scrub_interval_s=reader.number(
                "scrub_interval_s", SETTINGS["scrub_interval_s"].default, low=1, high=1e9
            ),
            blob_reserve_bytes=reader.integer(
                "blob_reserve_bytes", SETTINGS["blob_reserve_bytes"].default, high=2**50
            ),
            blob_send_bytes_per_s=pace_of(reader, "blob_send_bytes_per_s"),
            blob_fetch_bytes_per_s=pace_of(reader, "blob_fetch_bytes_per_s"),
            disk_reserve_bytes=_reserve(reader),
            daemon_key=home / _text(reader, "daemon_key"),
            witness_key=home / _text(reader, "witness_key"),
            timestamp_key=home / _text(reader, "timestamp_key"),
            tls_key=home / _text(reader, "tls_key"),
            tls_cert=home / _text(reader, "tls_cert"),
            edge_ca_key=home / _text(reader, "edge_ca_key"),
            edge_ca_cert=home / _text(reader, "edge_ca_cert"),
        )


def _reserve(reader: Reader) -> int:
    """A smaller one would be used up by SQLite's log before it is emptied into the database."""
    size = reader.integer("disk_reserve_bytes", SETTINGS["disk_reserve_bytes"].default, high=2**40)
    if 0 < size < DISK_RESERVE_BYTES_MIN:
        raise InvalidSpec(
            f"disk_reserve_bytes: {size} is too small to be of use",
            fix=f"write at least {DISK_RESERVE_BYTES_MIN}, or 0 for no reserve",
        )
    return size


def _text(reader: Reader, key: str) -> str:
    default = SETTINGS[key].default
    return reader.text(key) if default is None else reader.text(key, default)


def _url(reader: Reader, key: str) -> str:
    text = _text(reader, key)
    if text and not _URL.fullmatch(text):
        raise InvalidSpec(f"{key}: {text[:80]!r} is no URL", fix="begin it with https://")
    return text


def _optional_path(reader: Reader, home: Path, key: str) -> Path | None:
    text = _text(reader, key)
    return home / text if text else None


def _optional_address(reader: Reader, key: str) -> str:
    text = _text(reader, key)
    return check_address(text, key) if text else ""


def _toml(value: str | int | float | None) -> str:
    # A JSON text or number is also a TOML one, once DEL is escaped.
    return json.dumps(value).replace("\x7f", "\\u007f")
