"""audit.read and audit.reveal: the auditor's door and private values, over the control socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hanse.core.encoding import to_base64
from hanse.core.ids import Digest
from hanse.core.reading import Reader
from hanse.daemon.control import Handler, plain
from hanse.daemon.private_values import PrivateValues
from hanse.gateways.log_files import LogFiles

ENVELOPE_BYTES_MAX = 16 * 1024


def audit_verbs(files: LogFiles, private: PrivateValues) -> dict[str, Handler]:
    async def read(args: dict[str, Any]) -> Mapping[str, Any]:
        with Reader(args, "audit.read") as reader:
            path = reader.text("path")
        return {"data": to_base64((await files.read(path)).data)}

    async def reveal(args: dict[str, Any]) -> Mapping[str, Any]:
        with Reader(args, "audit.reveal") as reader:
            release = Digest.parse(reader.text("release"))
            field, to = reader.text("field"), reader.text("to")
            envelope = reader.text("envelope", bytes_max=ENVELOPE_BYTES_MAX).encode()
        opening = await private.reveal(release, field, to, envelope)
        return {"opening": opening.encode().decode()}

    return {"audit.read": plain(read), "audit.reveal": plain(reveal)}
