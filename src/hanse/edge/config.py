"""What an edge node is told at start: one TOML file, as one frozen value.

Every setting is described once, in `SETTINGS`; the commented file that enrolment writes is
rendered from there. Unknown keys are refused with the nearest known one. Secrets are paths,
never values, and a key file that others may read stops the start. Paths in the file are
relative to the folder that it lies in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hanse.core.compat import DECLARED, check_declared
from hanse.core.encoding import strict_base64
from hanse.core.errors import InvalidSpec, NotFound, NotPermitted
from hanse.core.ids import Segment, check_address, segment
from hanse.core.limits import LABELS_MAX
from hanse.core.transfer.turns import pace_of
from hanse.edge.listening import check_listen, check_reach
from hanse.storage.settings import Setting, Settings, rendered, toml

FILE_NAME = "agent.toml"

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
    missing = NotFound(f"{path} is missing", fix="enrol this node first")
    with Settings(path, SETTINGS, missing) as reader:
        config = _parse(reader)
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
    lines = [
        "# One Hanse edge node. A setting that is commented out has the value shown.",
        *rendered(SETTINGS, values),
        "",
        "# What this machine has and the agent cannot find out, for what releases require:",
        f"# {', '.join(DECLARED)}.",
        "[facts]",
        "",
        "# Texts by which rollouts select nodes.",
        "[labels]",
        *(f"{toml(key)} = {toml(value)}" for key, value in sorted(labels.items())),
    ]
    return "\n".join(lines) + "\n"


def _parse(reader: Settings) -> Config:
    return Config(
        node=segment(reader.text("node"), "node"),
        federation=segment(reader.text("federation"), "federation"),
        region=segment(reader.text("region"), "region"),
        daemon=check_address(reader.text("daemon"), "daemon"),
        daemon_cert=reader.file("daemon_cert"),
        daemon_key=_public_key(reader.text("daemon_key")),
        tls_key=reader.file("tls_key"),
        tls_cert=reader.file("tls_cert"),
        state=reader.file("state"),
        listen=check_listen(reader.text("listen")),
        serving_cert=reader.optional_file("serving_cert"),
        serving_key=reader.optional_file("serving_key"),
        serving_client_ca=reader.optional_file("serving_client_ca"),
        serving_without_tls=reader.flag("serving_without_tls", False),
        share_listen=reader.optional_address("share_listen"),
        share_address=reader.optional_address("share_address"),
        share_bytes_per_s=pace_of(reader, "share_bytes_per_s"),
        fetch_bytes_per_s=pace_of(reader, "fetch_bytes_per_s"),
        report_interval_s=reader.number("report_interval_s", low=0.1, high=3600.0),
        probe_interval_s=reader.number("probe_interval_s", low=1.0, high=86400.0),
        release_bytes_max=reader.integer("release_bytes_max", low=1),
        threads=reader.integer("threads", low=1, high=64),
        log_level=reader.log_level(),
        facts=check_declared(reader.pairs("facts", count_max=LABELS_MAX), "facts"),
        labels=reader.pairs("labels", count_max=LABELS_MAX),
    )


def _public_key(text: str) -> bytes:
    key = strict_base64(text)
    if key is None or len(key) != 32:
        raise InvalidSpec(
            "daemon_key: expected 32 bytes in base64", fix="copy it from the enrolment"
        )
    return key
