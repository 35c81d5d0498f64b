"""The methods of a service as gRPC wants them, read off its description."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import message_factory

_MAKE = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def handler_of(service: Any, described: Any) -> grpc.GenericRpcHandler[Any, Any]:
    """Each method is answered by that of `service` with its name in small letters.

    What a caller streams is handed over as bytes; answers may be bytes already.
    """
    methods = {}
    for method in described.methods:
        asked = message_factory.GetMessageClass(method.input_type)
        methods[method.name] = _MAKE[method.client_streaming, method.server_streaming](
            getattr(service, method.name.lower()),
            request_deserializer=None if method.client_streaming else asked.FromString,
            response_serializer=_bytes_of,
        )
    return grpc.method_handlers_generic_handler(described.full_name, methods)


def _bytes_of(answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()
