"""Where an auditor reads from: an exported folder, a door over HTTP, or the daemon at hand.

All three give the same files under the same paths, and none of them is believed.
"""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli import client
from hanse.core.encoding import strict_base64
from hanse.core.errors import Broken, InvalidName, NotFound, TooLarge, Unavailable
from hanse.core.limits import EXPORT_FILE_BYTES_MAX

if TYPE_CHECKING:
    from hanse.core.audit.replay import Read

ANSWER_S = 30.0
_DOOR = "name the address that audit_listen has there, or a folder that holds an export"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A door that sends an auditor elsewhere is none: they meant this address (T33)."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def of_url(url: str) -> Read:
    """The files of a door. Raises `NotFound`, `Unavailable`, `TooLarge`."""
    if not is_url(url):
        raise InvalidName(f"{url[:200]!r} is no URL", fix="begin it with http:// or https://")
    prefix = url.rstrip("/")

    def read(path: str) -> bytes:
        where = f"{prefix}/{urllib.parse.quote(path)}"
        try:
            with _OPENER.open(where, timeout=ANSWER_S) as answer:
                raw: bytes = answer.read(EXPORT_FILE_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise NotFound(f"there is no {path} at {prefix}", fix=_DOOR) from None
            raise Unavailable(f"{where} answers {error.code}", fix="try again later") from None
        except (OSError, ValueError) as error:
            raise Unavailable(f"cannot reach {prefix}: {error}", fix=_DOOR) from None
        if len(raw) > EXPORT_FILE_BYTES_MAX:
            raise TooLarge(f"{path} is larger than any file of a door", fix=_DOOR)
        return raw

    return read


def of_daemon(home: Path) -> Read:
    """The files of the daemon at hand, over its control socket."""

    def read(path: str) -> bytes:
        raw = strict_base64(client.call(home, "audit.read", path=path)["data"])
        if raw is None:
            raise Broken("the daemon's answer makes no sense", fix="run the same version as it")
        return raw

    return read


def bootstrap(path: Path) -> bytes:
    """Version 1 of the trust chain: a file, or the first one of a trust folder or home."""
    if path.is_dir():
        from hanse.daemon.trust_folder import chain_beside

        return chain_beside(path)[0]
    with path.open("rb") as file:
        return file.read(EXPORT_FILE_BYTES_MAX)


def trust_root(command: Any) -> Any:
    return click.option(
        "--trust-root",
        type=click.Path(path_type=Path, exists=True),
        required=True,
        help="Version 1 of the trust chain, as you got it yourself: a file, or a trust folder.",
    )(command)
