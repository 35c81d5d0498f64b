"""The boundary between protobuf and core values; nothing else crosses it.

Events are in `event_codec`, frames in `frame_codec`, the fields of both in `fields`.
"""

from __future__ import annotations

from google.protobuf.internal import api_implementation

from hanse.core.errors import Broken
from hanse.rpc.event_codec import EventCodec
from hanse.rpc.frame_codec import decode_frame, encode_frame

__all__ = ["EventCodec", "decode_frame", "encode_frame", "require_upb"]


def require_upb() -> None:
    """Refuse to run on the pure-Python parser (T25). Raises `Broken`.

    One environment variable selects it silently; it is slow and does not bound nesting.
    """
    implementation = api_implementation.Type()
    if implementation != "upb":
        raise Broken(
            f"protobuf runs on its {implementation!r} parser, not on upb",
            fix="unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION and install a protobuf wheel",
        )
