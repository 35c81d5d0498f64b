"""Base64 with one text for one value.

The standard decoder takes non-zero padding bits, so several texts would stand for the same
bytes and a signed note could be altered without breaking it. Whatever does not encode back
to itself is refused.
"""

from __future__ import annotations

import base64
import binascii


def to_base64(data: bytes) -> str:
    """Standard alphabet with padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


def strict_base64(text: str) -> bytes | None:
    """The bytes that `to_base64` writes as exactly this text, or None if there are none."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return None
    return data if to_base64(data) == text else None
