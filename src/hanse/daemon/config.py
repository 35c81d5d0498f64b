"""What a daemon is told at start: `hanse.toml` in its home folder, as one frozen value.

Every setting is described once, in `SETTINGS`; the commented file that `hanse daemon init`
writes is rendered from there. Unknown keys are refused with the nearest known one. Secrets
are paths, never values, and a key file that others may read stops the start.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hanse.core.catalog.private import check_policy
from hanse.core.errors import InvalidSpec, NotFound
from hanse.core.ids import Segment, check_address, segment
from hanse.core.limits import DISK_RESERVE_BYTES_MIN, RECOVERY_S
from hanse.core.transfer.turns import pace_of
from hanse.daemon.private_files import check_private
from hanse.storage.place import Place
from hanse.storage.settings import Setting, Settings, rendered

FILE_NAME = "hanse.toml"
FIRST_START = "first-start"  # beside it until the daemon has written its first event
SOCKET_PATH_BYTES_MAX = 100  # the kernel takes 107
_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,260}(/[A-Za-z0-9._~/-]{0,200})?")


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
    missing = NotFound(
        f"there is no daemon in {home}: {FILE_NAME} is missing",
        fix="make one with hanse daemon init or join, or name its folder with --home",
    )
    with Settings(home / FILE_NAME, SETTINGS, missing) as reader:
        config = _parse(reader, home)
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
    head = "# One Hanse daemon. A setting that is commented out has the value shown."
    return "\n".join([head, *rendered(SETTINGS, values)]) + "\n"


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


def _parse(reader: Settings, home: Path) -> Config:
    listen = check_address(reader.text("listen"), "listen")
    return Config(
        home=home,
        federation=segment(reader.text("federation"), "federation"),
        region=segment(reader.text("region"), "region"),
        listen=listen,
        advertise=check_address(reader.text("advertise") or listen, "advertise"),
        private_fields=check_policy(reader.text("private_fields").split()),
        audit_listen=reader.optional_address("audit_listen"),
        witness_url=_url(reader, "witness_url"),
        prometheus_url=_url(reader, "prometheus_url"),
        prometheus_token=reader.optional_file("prometheus_token"),
        log_level=reader.log_level(),
        tick_interval_s=reader.number("tick_interval_s", low=0.01, high=10.0),
        recovery_timeout_s=reader.number("recovery_timeout_s", low=0, high=3600),
        control_socket=control_path(home, reader.text("control_socket")),
        blobs=reader.text("blobs"),
        blobs_endpoint=_url(reader, "blobs_endpoint"),
        blobs_credentials=reader.optional_file("blobs_credentials"),
        blobs_options=reader.text("blobs_options"),
        blob_cache_bytes=reader.integer("blob_cache_bytes", high=2**50),
        fold_after_s=reader.number("fold_after_s", low=-1, high=1e9),
        scrub_bytes_per_s=reader.integer("scrub_bytes_per_s", high=2**40),
        scrub_interval_s=reader.number("scrub_interval_s", low=1, high=1e9),
        blob_reserve_bytes=reader.integer("blob_reserve_bytes", high=2**50),
        blob_send_bytes_per_s=pace_of(reader, "blob_send_bytes_per_s"),
        blob_fetch_bytes_per_s=pace_of(reader, "blob_fetch_bytes_per_s"),
        disk_reserve_bytes=_reserve(reader),
        daemon_key=reader.file("daemon_key"),
        witness_key=reader.file("witness_key"),
        timestamp_key=reader.file("timestamp_key"),
        tls_key=reader.file("tls_key"),
        tls_cert=reader.file("tls_cert"),
        edge_ca_key=reader.file("edge_ca_key"),
        edge_ca_cert=reader.file("edge_ca_cert"),
    )


def _reserve(reader: Settings) -> int:
    """A smaller one would be used up by SQLite's log before it is emptied into the database."""
    size = reader.integer("disk_reserve_bytes", high=2**40)
    if 0 < size < DISK_RESERVE_BYTES_MIN:
        raise InvalidSpec(
            f"disk_reserve_bytes: {size} is too small to be of use",
            fix=f"write at least {DISK_RESERVE_BYTES_MIN}, or 0 for no reserve",
        )
    return size


def _url(reader: Settings, key: str) -> str:
    text = reader.text(key)
    if text and not _URL.fullmatch(text):
        raise InvalidSpec(f"{key}: {text[:80]!r} is no URL", fix="begin it with https://")
    return text
