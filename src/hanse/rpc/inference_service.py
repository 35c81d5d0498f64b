"""The Open Inference Protocol, version 2, over gRPC, for other people's unmodified clients.

What the protocol leaves to "internal policy", which version answers, is decided by signed
rollouts; therefore loading and unloading by a client is refused. Each answer says where it came
from: parameters `release`, `rollout` and `role`, and the trailing metadata `x-hanse-release`.

Messages live in a descriptor pool of their own: a client library in the same process registers
the same names in the default pool. Tensors are taken typed or raw and always returned raw,
because common clients read nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Protocol

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hanse.core import limits
from hanse.core.audience import Context, as_text
from hanse.core.catalog.manifest import Tensor
from hanse.core.errors import Rejected, Unavailable
from hanse.core.serving import Answer, Choice, ModelFacts, RawTensor, join_bytes
from hanse.rpc.status import refuse

SERVICE = "inference.GRPCInferenceService"
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
EXTENSIONS = ("model_repository(index)", "statistics")
PLATFORM = "onnx_onnxv1"
CONTEXT_PREFIX = "context."
# datatype -> field of InferTensorContents and the struct code of one element
_TYPED = {
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
    "BYTES": ("bytes_contents", ""),
}


class Serving(Protocol):
    """What the service needs to know; all methods raise `NotFound` for what is not here."""

    def models(self) -> Sequence[str]: ...
    def facts(self, model: str, version: str) -> ModelFacts: ...
    async def infer(
        self,
        model: str,
        version: str,
        request_id: str,
        routing_key: str,
        inputs: Sequence[RawTensor],
        outputs: Sequence[str],
        context: Context,
    ) -> Answer: ...
    def choose(self, model: str, unit: str, context: Context) -> Choice: ...


class _Messages:
    """Message classes by name, from the shipped descriptor set."""

    def __init__(self) -> None:
        raw = files("hanse.rpc").joinpath("inference.binpb").read_bytes()
        self.pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(raw).file:
            self.pool.Add(file)
        self.methods = self.pool.FindServiceByName(SERVICE).methods_by_name

    def __getattr__(self, name: str) -> Any:
        found = message_factory.GetMessageClass(
            self.pool.FindMessageTypeByName(f"inference.{name}")
        )
        setattr(self, name, found)
        return found


_messages = _Messages()
_Context = grpc.aio.ServicerContext[Message, Message]


class InferenceService:
    """One method for each call of the protocol that is answered; the others are UNIMPLEMENTED."""

    def __init__(self, serving: Serving, version: str) -> None:
        self._serving = serving
        self._version = version

    async def ServerLive(self, _: Any, context: _Context) -> Any:  # noqa: N802  # the protocol's
        return _messages.ServerLiveResponse(live=True)

    async def ServerReady(self, _: Any, context: _Context) -> Any:  # noqa: N802
        facts = [self._serving.facts(model, "") for model in self._serving.models()]
        return _messages.ServerReadyResponse(ready=all(each.ready for each in facts))

    async def ModelReady(self, request: Any, context: _Context) -> Any:  # noqa: N802
        facts = self._serving.facts(request.name, request.version)
        return _messages.ModelReadyResponse(ready=facts.ready)

    async def ServerMetadata(self, _: Any, context: _Context) -> Any:  # noqa: N802
        return _messages.ServerMetadataResponse(
            name="hanse", version=self._version, extensions=EXTENSIONS
        )

    async def ModelMetadata(self, request: Any, context: _Context) -> Any:  # noqa: N802
        facts = self._serving.facts(request.name, request.version)
        return _messages.ModelMetadataResponse(
            name=facts.name,
            versions=facts.versions,
            platform=PLATFORM,
            inputs=[_metadata(each) for each in facts.inputs],
            outputs=[_metadata(each) for each in facts.outputs],
            properties={"release": str(facts.release)} if facts.release else {},
        )

    async def ModelInfer(self, request: Any, context: _Context) -> Any:  # noqa: N802
        answer = await self._serving.infer(
            request.model_name,
            request.model_version,
            request.id,
            request.parameters["routing_key"].string_param
            if "routing_key" in request.parameters
            else "",
            _inputs(request),
            [each.name for each in request.outputs],
            _context(request.parameters),
        )
        context.set_trailing_metadata((("x-hanse-release", str(answer.release)),))
        response = _messages.ModelInferResponse(
            model_name=request.model_name, model_version=answer.version, id=request.id
        )
        for output in answer.outputs:
            response.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
            response.raw_output_contents.append(output.data)
        response.parameters["release"].string_param = str(answer.release)
        response.parameters["rollout"].string_param = answer.rollout
        response.parameters["role"].string_param = answer.role
        return response

    async def ModelStatistics(self, request: Any, context: _Context) -> Any:  # noqa: N802
        names = [request.name] if request.name else self._serving.models()
        response = _messages.ModelStatisticsResponse()
        for name in names:
            versions = self._serving.facts(name, "").versions
            for version in [request.version] if request.version else versions:
                success, fail, ns = self._serving.facts(name, version).counts
                stats = response.model_stats.add(
                    name=name, version=version, inference_count=success, execution_count=success
                )
                stats.inference_stats.success.count = success
                stats.inference_stats.success.ns = ns
                stats.inference_stats.compute_infer.count = success
                stats.inference_stats.compute_infer.ns = ns
                stats.inference_stats.fail.count = fail
        return response

    async def RepositoryIndex(self, request: Any, context: _Context) -> Any:  # noqa: N802
        response = _messages.RepositoryIndexResponse()
        for name in self._serving.models():
            versions = self._serving.facts(name, "").versions
            for version in versions:
                response.models.add(name=name, version=version, state="READY")
            if not versions and not request.ready:
                response.models.add(name=name, state="UNAVAILABLE", reason="no release is loaded")
        return response

    async def RepositoryModelLoad(self, _: Any, context: _Context) -> None:  # noqa: N802
        await self._governed(context)

    async def RepositoryModelUnload(self, _: Any, context: _Context) -> None:  # noqa: N802
        await self._governed(context)

    async def _governed(self, context: _Context) -> None:
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            "versions are governed by signed rollouts: use hanse rollout or hanse rollback",
        )


def add_inference_service(
    server: grpc.aio.Server, serving: Serving, version: str, others: Sequence[str]
) -> None:
    """Register inference, health and reflection; `others` are further services to reflect."""
    service = InferenceService(serving, version)
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _guarded(getattr(service, name)),
            request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        for name, method in _messages.methods.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    healthy = health.aio.HealthServicer()  # type: ignore[attr-defined]  # added at run time
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    # Reflection looks names up in one pool: the private one learns the services of the others.
    default = descriptor_pool.Default()
    for name in (health.SERVICE_NAME, *others):
        _copy_file(default.FindFileContainingSymbol(name), _messages.pool)
    names = (SERVICE, health.SERVICE_NAME, *others, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=_messages.pool)


def server_options() -> list[tuple[str, int]]:
    """Options of the inference port: tensors may be large, but not endless, nor inflated (T24)."""
    return [
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_concurrent_streams", limits.INFERENCES_AT_ONCE_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.so_reuseport", 0),
    ]


def _guarded(method: Callable[[Any, _Context], Any]) -> Callable[[Any, _Context], Any]:
    """Answer refusals with their status: NOT_FOUND, INVALID_ARGUMENT, UNAVAILABLE."""

    async def call(request: Any, context: _Context) -> Any:
        try:
            return await method(request, context)
        except (Rejected, Unavailable) as error:
            await refuse(context, error)

    return call


def _context(parameters: Mapping[str, Any]) -> Context:
    """Parameters `context.NAME` of a request, as texts."""
    found = {}
    for name in [name for name in parameters if name.startswith(CONTEXT_PREFIX)]:
        kind = parameters[name].WhichOneof("parameter_choice")
        text = as_text(getattr(parameters[name], kind)) if kind else None
        if text is not None:
            found[name.removeprefix(CONTEXT_PREFIX)] = text
    return found


def _inputs(request: Any) -> list[RawTensor]:
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise Rejected(f"{len(raw)} raw tensors for {len(request.inputs)} inputs")
    return [
        RawTensor(
            each.name,
            each.datatype,
            tuple(each.shape),
            raw[i] if raw else _pack(each.name, each.datatype, each.contents),
        )
        for i, each in enumerate(request.inputs)
    ]


def _pack(name: str, datatype: str, contents: Any) -> bytes:
    if datatype not in _TYPED:
        raise Rejected(f"input {name[:80]!r}: {datatype[:20]!r} has no typed form; send it raw")
    field, code = _TYPED[datatype]
    elements = getattr(contents, field)
    if datatype == "BYTES":
        return join_bytes(list(elements))
    try:
        return struct.pack(f"<{len(elements)}{code}", *elements)
    except struct.error as error:
        raise Rejected(f"input {name[:80]!r}: not {datatype}: {error}") from error


def _metadata(tensor: Tensor) -> Mapping[str, object]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}


def _copy_file(file: Any, pool: descriptor_pool.DescriptorPool) -> None:
    try:
        pool.FindFileByName(file.name)
        return
    except KeyError:
        for dependency in file.dependencies:
            _copy_file(dependency, pool)
        pool.AddSerializedFile(file.serialized_pb)
