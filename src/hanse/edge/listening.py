"""Where applications reach this node: by default only those on the same machine.

Without TLS everybody who reaches the port can ask the models and record labels, and labels decide
over releases. So an address beyond this machine needs TLS, or a setting that says so in words.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from hanse.core.errors import InvalidSpec
from hanse.core.ids import check_address

_SOCKET = re.compile(r"unix:[^\x00-\x20\x7f]{1,100}")


def check_listen(text: str) -> str:
    """host:port or unix:PATH. Raises `InvalidName`."""
    return text if _SOCKET.fullmatch(text) else check_address(text, "listen")


def is_local(listen: str) -> bool:
    """Whether only this machine can reach it. A name other than localhost may mean anything."""
    host = listen.rpartition(":")[0].strip("[]")
    if listen.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_reach(listen: str, cert: Path | None, key: Path | None, *, without_tls: bool) -> None:
    """Raises `InvalidSpec` unless whoever may reach this address is meant to."""
    if (cert is None) != (key is None):
        raise InvalidSpec("serving_cert and serving_key go together", fix="set both or neither")
    if cert is None and not without_tls and not is_local(listen):
        raise InvalidSpec(
            f"listen = {listen} reaches beyond this machine, without TLS",
            fix="listen on 127.0.0.1 or unix:PATH, set serving_cert and serving_key, or write "
            "serving_without_tls = true",
        )
