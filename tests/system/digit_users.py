"""Users of the digit models: an unmodified Triton client a node, and labels that come late."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import grpc
import tritonclient.grpc as triton
from digit_releases import holdout
from system_federation import MODEL

from hanse.v1 import edge_pb2, edge_pb2_grpc

ANSWER_S = 20.0
PAUSE_S = 0.008  # between two requests of one user: two cores have other things to do as well
LABEL_BATCH = 20


class Users:
    """One thread a node, from `with` to its end. Totals are read under no lock: they only grow."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self.sent: Counter[str] = Counter()  # by node
        self.failures: list[str] = []
        self.by_release: Counter[str] = Counter()
        self.by_role: Counter[str] = Counter()
        self.labels = threading.Event()  # set: outcomes that are known are told
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, args=(address,), daemon=True)
            for address in addresses
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(2 * ANSWER_S)

    @property
    def answered(self) -> int:
        return sum(self.sent.values()) - len(self.failures)

    def _serve(self, address: str) -> None:
        x, y = holdout()
        client = triton.InferenceServerClient(address)
        channel = grpc.insecure_channel(address)
        labels, due = edge_pb2_grpc.LabelServiceStub(channel), []
        number = 0
        while not self._over.is_set():
            row, request_id = number % len(x), f"{address}-{number}"
            number += 1
            if self._ask(client, address, request_id, x[row : row + 1]):
                due.append(edge_pb2.Label(request_id=request_id, outcome=str(y[row])))
            if self.labels.is_set() and len(due) >= LABEL_BATCH:
                self._tell(labels, due)
                due = []
            del due[:-2000]
            time.sleep(PAUSE_S)
        client.close()
        channel.close()

    def _ask(
        self, client: triton.InferenceServerClient, address: str, request_id: str, row: object
    ) -> bool:
        given = triton.InferInput("X", [1, 64], "FP32")
        given.set_data_from_numpy(row)
        self.sent[address] += 1
        try:
            answer = client.infer(MODEL, [given], request_id=request_id, client_timeout=ANSWER_S)
        except triton.InferenceServerException as failure:
            self.failures.append(str(failure))
            return False
        said = answer.get_response().parameters
        self.by_release[said["release"].string_param] += 1
        self.by_role[said["role"].string_param] += 1
        return True

    def _tell(self, labels: edge_pb2_grpc.LabelServiceStub, due: list[edge_pb2.Label]) -> None:
        try:
            labels.Record(edge_pb2.RecordRequest(model=MODEL, labels=due), timeout=ANSWER_S)
        except grpc.RpcError:
            return  # late labels may be lost; what is not labelled is not counted


def answers(address: str) -> str:
    """One request to this node; the release that answered, and "" if none did."""
    given = triton.InferInput("X", [1, 64], "FP32")
    given.set_data_from_numpy(holdout()[0][:1])
    client = triton.InferenceServerClient(address)
    try:
        answer = client.infer(MODEL, [given], client_timeout=ANSWER_S)
        return str(answer.get_response().parameters["release"].string_param)
    except triton.InferenceServerException:
        return ""
    finally:
        client.close()
