"""Other people's unmodified client against the inference port, in the same process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from digit_releases import DIGITS, Release, holdout, release
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from hanse.core import limits
from hanse.core.device_step import Route
from hanse.core.serving import Answer
from hanse.edge.inference import load
from hanse.edge.router import Router
from hanse.edge.served import Served
from hanse.edge.serving import RoutedServing
from hanse.edge.telemetry import Telemetry
from hanse.rpc.inference_server import serve
from hanse.v1 import edge_pb2, edge_pb2_grpc

X, Y = holdout()


@dataclass
class Node:
    address: str
    client: triton.InferenceServerClient
    channel: grpc.aio.Channel
    router: Router
    telemetry: Telemetry
    v1: Release
    v2: Release

    def serve(self, which: Release, generation: int, rollout: str = "r-1") -> None:
        self.router.swap(Route(DIGITS, which.digest, rollout=rollout, generation=generation))

    async def ask(self, rows: int = 1, **options: object) -> triton.InferResult:
        tensor = triton.InferInput("X", [rows, 64], "FP32")
        tensor.set_data_from_numpy(X[:rows])
        return await self.client.infer("digits", [tensor], **options)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    telemetry = Telemetry()
    router = Router(telemetry)
    v1, v2 = (
        release("v1", tmp_path / "1", version="1.0"),
        release("v2", tmp_path / "2", version="2.0"),
    )
    for each in (v1, v2):
        model = load(each.folder, each.manifest)
        router.add(DIGITS, Served(each.digest, each.manifest.version, model))
    server = await serve("127.0.0.1:0", RoutedServing(router), telemetry.label, "0.1")
    address = f"127.0.0.1:{server.port}"
    async with grpc.aio.insecure_channel(address) as channel:
        client = triton.InferenceServerClient(address)
        node = Node(address, client, channel, router, telemetry, v1, v2)
        node.serve(v1, 1)
        yield node
        await client.close()
    await server.stop(0)
    await router.close()


async def test_health_and_metadata_are_what_a_client_expects(node: Node) -> None:
    assert await node.client.is_server_live()
    assert await node.client.is_server_ready()
    assert await node.client.is_model_ready("digits")
    assert await node.client.is_model_ready("digits", "2.0")
    metadata = await node.client.get_model_metadata("digits")
    assert list(metadata.versions) == ["1.0", "2.0"]
    assert metadata.platform == "onnx_onnxv1"
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [
        ("X", "FP32", [-1, 64])
    ]
    assert (await node.client.get_server_metadata()).name == "hanse"


async def test_answers_are_right_and_say_where_they_come_from(node: Node) -> None:
    answer = await node.ask(rows=200, request_id="r-9")
    assert (answer.as_numpy("label") == Y[:200]).mean() > 0.9
    assert answer.as_numpy("probabilities").shape == (200, 10)
    response = answer.get_response()
    assert response.id == "r-9"
    assert response.model_version == "1.0"
    assert response.parameters["release"].string_param == str(node.v1.digest)
    assert response.parameters["rollout"].string_param == "r-1"
    assert response.parameters["role"].string_param == "stable"


async def test_the_release_is_in_the_trailing_metadata(node: Node) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(node.channel)
    request = service_pb2.ModelInferRequest(model_name="digits")
    tensor = request.inputs.add(name="X", datatype="FP32", shape=[1, 64])
    tensor.contents.fp32_contents.extend(X[0].tolist())  # typed, where the client sends raw
    call = stub.ModelInfer(request)
    response = await call
    assert np.frombuffer(response.raw_output_contents[0], np.int64)[0] == Y[0]
    assert dict(await call.trailing_metadata())["x-hanse-release"] == str(node.v1.digest)


async def test_a_version_and_single_outputs_can_be_asked_for(node: Node) -> None:
    wanted = [triton.InferRequestedOutput("label")]
    answer = await node.ask(model_version="2.0", outputs=wanted)
    assert answer.get_response().parameters["role"].string_param == "explicit"
    assert answer.as_numpy("probabilities") is None
    assert answer.get_response().model_version == "2.0"


async def test_a_routing_key_keeps_a_caller_on_its_side_of_the_split(node: Node) -> None:
    route = Route(DIGITS, node.v1.digest, node.v2.digest, 5000, 0, "s", "r-2", 2)
    node.router.swap(route)
    for key in "abcdefgh":
        roles = set()
        for i in range(4):
            answer = await node.ask(request_id=f"{i}", parameters={"routing_key": key})
            roles.add(answer.get_response().parameters["role"].string_param)
        assert len(roles) == 1


@pytest.mark.parametrize(
    ("model", "options", "status"),
    [
        ("nobody", {}, "NOT_FOUND"),
        ("digits", {"model_version": "9"}, "NOT_FOUND"),
        ("digits", {"outputs": [triton.InferRequestedOutput("z")]}, "INVALID_ARGUMENT"),
    ],
)
async def test_refusals_have_the_protocols_status(
    node: Node, model: str, options: dict[str, object], status: str
) -> None:
    tensor = triton.InferInput("X", [1, 64], "FP32").set_data_from_numpy(X[:1])
    with pytest.raises(InferenceServerException, match=status):
        await node.client.infer(model, [tensor], **options)


@pytest.mark.parametrize("fault", ["shape", "dtype", "name", "twice", "short", "count"])
async def test_bad_input_is_the_callers_fault_and_changes_nothing(node: Node, fault: str) -> None:
    request = service_pb2.ModelInferRequest(model_name="digits")
    tensor = request.inputs.add(name="X", datatype="FP32", shape=[1, 64])
    raw = X[0].tobytes()
    if fault == "shape":
        tensor.shape[1] = -64
    elif fault == "dtype":
        tensor.datatype = "FP99"
    elif fault == "name":
        tensor.name = "x"
    elif fault == "twice":
        request.inputs.append(tensor)
        request.raw_input_contents.append(raw)
    elif fault == "count":
        request.raw_input_contents.append(raw)
    request.raw_input_contents.append(raw[:-1] if fault == "short" else raw)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(node.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert node.telemetry.drain() == ()


async def test_clients_cannot_change_what_is_served(node: Node) -> None:
    for change in (node.client.load_model, node.client.unload_model):
        with pytest.raises(InferenceServerException, match="signed rollouts"):
            await change("digits")


async def test_index_and_statistics_list_what_is_loaded(node: Node) -> None:
    index = await node.client.get_model_repository_index()
    assert [(m.name, m.version, m.state) for m in index.models] == [
        ("digits", "1.0", "READY"),
        ("digits", "2.0", "READY"),
    ]
    await node.ask()
    stats = await node.client.get_inference_statistics("digits", "1.0")
    assert stats.model_stats[0].inference_stats.success.count == 1
    assert stats.model_stats[0].inference_stats.success.ns > 0


async def test_other_extensions_are_unimplemented(node: Node) -> None:
    with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
        await node.client.get_model_config("digits")


async def test_probes_and_reflection_answer(node: Node) -> None:
    health = await health_pb2_grpc.HealthStub(node.channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(node.channel)
    for symbol in (
        "inference.GRPCInferenceService",
        "hanse.v1.LabelService",
        "grpc.health.v1.Health",
    ):
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
        async for reply in stub.ServerReflectionInfo(iter([request])):
            assert reply.file_descriptor_response.file_descriptor_proto, symbol


async def test_late_labels_become_counts(node: Node) -> None:
    for i in range(5):
        await node.ask(request_id=f"r{i}")
    stub = edge_pb2_grpc.LabelServiceStub(node.channel)
    labels = [edge_pb2.Label(request_id=f"r{i}", outcome=str(Y[0])) for i in range(4)]
    labels += [edge_pb2.Label(request_id="r4", outcome="-1")]
    labels += [edge_pb2.Label(request_id="gone", outcome="1")]
    reply = await stub.Record(edge_pb2.RecordRequest(model="digits", labels=labels))
    assert (reply.joined, reply.unknown) == (5, 1)
    (window,) = node.telemetry.drain()
    assert (window.stable.requests, window.stable.labelled, window.stable.wrong) == (5, 5, 1)


async def test_labels_without_a_request_are_refused(node: Node) -> None:
    stub = edge_pb2_grpc.LabelServiceStub(node.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Record(edge_pb2.RecordRequest(model="digits", labels=[edge_pb2.Label()]))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_hundred_swaps_under_load_lose_no_request(node: Node) -> None:
    stop = asyncio.Event()
    seen: Counter[str] = Counter()
    progress = asyncio.Condition()

    async def caller(name: int) -> int:
        asked = 0
        while not stop.is_set():
            answer = await node.ask(request_id=f"{name}/{asked}")
            assert answer.as_numpy("label")[0] == Y[0]
            asked += 1
            seen[answer.get_response().parameters["release"].string_param] += 1
            async with progress:
                progress.notify_all()
        return asked

    callers = [asyncio.create_task(caller(i)) for i in range(4)]
    for generation in range(100):
        node.serve(node.v2 if generation % 2 else node.v1, generation)
        aim = sum(seen.values()) + 4
        async with progress:
            await asyncio.wait_for(progress.wait_for(lambda: sum(seen.values()) >= aim), 10)  # noqa: B023  # awaited at once
    stop.set()
    asked = sum(await asyncio.gather(*callers))
    windows = node.telemetry.drain()
    assert asked == sum(seen.values()) == sum(w.stable.requests for w in windows)
    assert sum(w.stable.errors for w in windows) == 0
    assert min(seen[str(r.digest)] for r in (node.v1, node.v2)) > 50


async def test_a_compressed_request_is_not_inflated(node: Node) -> None:
    method = node.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(bytes(64 * 1024 * 1024), compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_requests_beyond_the_bound_are_refused_and_the_others_are_answered(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "INFERENCES_AT_ONCE_MAX", 2)
    release, arrived = asyncio.Event(), asyncio.Semaphore(0)

    class Slow(RoutedServing):
        async def infer(self, *args: object, **more: object) -> Answer:
            arrived.release()
            await release.wait()
            return await super().infer(*args, **more)  # type: ignore[arg-type]

    server = await serve("127.0.0.1:0", Slow(node.router), node.telemetry.label, "0.1")
    own = [("grpc.use_local_subchannel_pool", 1)]  # three clients, not one that waits its turn
    address = f"127.0.0.1:{server.port}"
    clients = [triton.InferenceServerClient(address, channel_args=own) for _ in range(3)]
    tensor = triton.InferInput("X", [1, 64], "FP32")
    tensor.set_data_from_numpy(X[:1])
    held = [asyncio.create_task(c.infer("digits", [tensor])) for c in clients[:2]]
    for _ in held:
        await arrived.acquire()
    with pytest.raises(InferenceServerException) as caught:
        await clients[2].infer("digits", [tensor])
    assert "RESOURCE_EXHAUSTED" in str(caught.value)
    release.set()
    assert all(answer.as_numpy("label") is not None for answer in await asyncio.gather(*held))
    for client in clients:
        await client.close()
    await server.stop(0)
