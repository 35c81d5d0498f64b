"""A service and its methods as gRPC wants them, read off its description."""

from __future__ import annotations

from typing import Any, ClassVar

import grpc
from google.protobuf import message_factory

_MAKE = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Described:
    """Each method of the description is answered by the one with its name in small letters.

    What a caller streams is handed over as bytes; answers may be bytes already.
    """

    described: ClassVar[Any]

    @property
    def name(self) -> str:
        return str(self.described.full_name)

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        methods = {}
        for method in self.described.methods:
            asked = message_factory.GetMessageClass(method.input_type)
            methods[method.name] = _MAKE[method.client_streaming, method.server_streaming](
                getattr(self, method.name.lower()),
                request_deserializer=None if method.client_streaming else asked.FromString,
                response_serializer=_bytes_of,
            )
        return grpc.method_handlers_generic_handler(self.name, methods)


def _bytes_of(answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()
