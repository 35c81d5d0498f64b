"""Asks a witness outside the federation for its cosignature (C2SP tlog-witness).

The address comes from this daemon's own settings, and what answers there is believed in nothing
but its signature, which others verify.
"""

from __future__ import annotations

from hanse.core.errors import Unavailable
from hanse.core.limits import WITNESS_ANSWER_BYTES_MAX, WITNESS_S
from hanse.gateways.http_call import call


async def add_checkpoint(url: str, body: bytes) -> tuple[int, bytes]:
    """POST to `<url>/add-checkpoint`: status and body. Raises `Unavailable`."""
    try:
        return await call(
            "POST",
            url.rstrip("/") + "/add-checkpoint",
            body,
            {"content-type": "text/plain; charset=utf-8"},
            within_s=WITNESS_S,
            answer_bytes_max=WITNESS_ANSWER_BYTES_MAX,
        )
    except Unavailable as error:
        raise Unavailable(
            f"the witness at {url} cannot be asked: {error.message}", fix="is witness_url right?"
        ) from None
