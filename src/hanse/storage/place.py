"""Where a bucket is and how to get in: what a configuration says, checked before it is used.

Secrets stand in a file of their own, never beside the rest; without one the environment tells, as
each cloud's own tools have it: AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS,
AZURE_STORAGE_ACCOUNT_KEY, or the role of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hanse.core.errors import InvalidSpec, Unavailable

_OPTIONS = {
    "s3": {
        "region", "virtual_hosted_style_request", "imdsv1_fallback", "metadata_endpoint",
        "checksum_algorithm", "server_side_encryption", "sse_kms_key_id", "sse_bucket_key_enabled",
        "request_payer", "disable_tagging", "skip_signature", "unsigned_payload", "role_arn",
        "role_session_name", "sts_endpoint", "web_identity_token_file",
    },
    "gs": {"skip_signature"},
    "az": {
        "account_name", "tenant_id", "authority_host", "use_emulator", "use_azure_cli",
        "msi_endpoint", "federated_token_file", "skip_signature",
    },
    "file": set(),
}  # fmt: skip
"""What a configuration may say of each kind; nothing here is secret."""
_SECRETS = {
    "s3": {"access_key_id", "secret_access_key", "session_token"},
    "gs": {"service_account_key"},
    "az": {"account_name", "account_key", "sas_key", "client_id", "client_secret"},
}
SCHEMES = tuple(_OPTIONS)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bucket is. `credentials`: a file; without one the environment has to tell."""

    url: str
    endpoint: str = ""
    credentials: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise InvalidSpec(
                f"blobs: {self.url[:80]!r} names no bucket",
                fix="begin it with s3://, gs://, az:// or file://",
            )
        allowed = _OPTIONS[self.scheme]
        if unknown := sorted(self.options.keys() - allowed):
            raise InvalidSpec(
                f"blobs_options: {unknown[0]} is not known of {self.scheme}://",
                fix=f"known: {', '.join(sorted(allowed)) or 'none'}; secrets go into a file of "
                "their own, which blobs_credentials names",
            )

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    def secrets(self) -> dict[str, str]:
        """Lines of NAME = VALUE; for Google's the JSON key of a service account as it is."""
        if self.credentials is None:
            return {}
        text = _read(self.credentials)
        if self.scheme == "gs":
            return {"service_account_key": text}
        known, found = _SECRETS.get(self.scheme, set()), dict[str, str]()
        for line in text.splitlines():
            name, equals, value = (each.strip() for each in line.partition("="))
            if not name or name.startswith(("#", "[")):
                continue
            key = name.lower().removeprefix("aws_").removeprefix("azure_").removeprefix("storage_")
            if not equals or key not in known:
                raise InvalidSpec(
                    f"{self.credentials}: a line that is not one of {', '.join(sorted(known))}",
                    fix="write for example access_key_id = ...",
                )
            found[key] = value
        return found


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(
            f"cannot read {path}: {error}", fix="see blobs_credentials in hanse.toml"
        ) from error
