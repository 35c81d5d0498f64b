"""One region's users: unmodified tritonclient, rendered text, labels that arrive late.

Runs as a process of its own. It reads words from standard input (`rate 20` sets requests per
second over all nodes, `quit` ends) and prints one line of JSON a second with running totals.
Labels go to the node that answered, some seconds after the answer, in batches.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
import numpy as np
import tritonclient.grpc as triton

from hanse.v1 import edge_pb2, edge_pb2_grpc
from tour import render
from tour.material import FontName

MODEL = "ocr-rec"
LABEL_BATCH_S = 0.5
TIMEOUT_S = 20.0


@dataclass
class Totals:
    """Shared by all workers of the process; `lock` guards every field."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    sent: int = 0
    ok: int = 0
    failed: int = 0
    labels: int = 0
    by_release: dict[str, int] = field(default_factory=dict)
    by_role: dict[str, int] = field(default_factory=dict)
    last_error: str = ""


@dataclass
class Pace:
    per_s: float = 0.0
    running: bool = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--region", required=True)
    parser.add_argument("--nodes", required=True, help="addresses, comma separated")
    parser.add_argument("--slices", required=True, help="Font+degradation, comma separated")
    parser.add_argument("--seed", type=int, default=23)
    parser.add_argument("--label-delay", type=float, default=2.0, help="seconds")
    options = parser.parse_args()
    nodes = options.nodes.split(",")
    pace, totals = Pace(), Totals()
    samples = _samples(options.seed, options.slices.split(","))
    guard = threading.Lock()
    workers = [
        threading.Thread(
            target=_serve_node,
            args=(f"{options.region}-{i}", node, len(nodes), options.label_delay),
            kwargs={"pace": pace, "totals": totals, "samples": samples, "guard": guard},
            daemon=True,
        )
        for i, node in enumerate(nodes)
    ]
    for worker in workers:
        worker.start()
    threading.Thread(target=_print_totals, args=(totals, pace), daemon=True).start()
    for line in sys.stdin:
        word, _, value = line.strip().partition(" ")
        if word == "rate":
            pace.per_s = float(value)
        elif word == "quit":
            break
    pace.running = False
    for worker in workers:
        worker.join(timeout=TIMEOUT_S)


def _samples(seed: int, slices: list[str]) -> Iterator[tuple[int, render.Line]]:
    """An endless mixture of the slices, each sample numbered."""
    parts = []
    for name in slices:
        font, degradation = name.split("+")
        assert font in render.FONTS
        assert degradation in render.DEGRADATIONS
        chosen: FontName = font
        parts.append(render.lines(seed, chosen, degradation, 10**6))
    return enumerate(itertools.chain.from_iterable(zip(*parts, strict=True)))


def _serve_node(
    name: str,
    address: str,
    share: int,
    label_delay_s: float,
    *,
    pace: Pace,
    totals: Totals,
    samples: Iterator[tuple[int, render.Line]],
    guard: threading.Lock,
) -> None:
    client = triton.InferenceServerClient(address)
    labels = edge_pb2_grpc.LabelServiceStub(grpc.insecure_channel(address))
    due: deque[tuple[float, str, str]] = deque()
    while pace.running and not _ready(client):
        time.sleep(0.1)
    next_s = next_label_s = time.monotonic()
    while pace.running:
        now = time.monotonic()
        if now >= next_label_s:
            next_label_s = now + LABEL_BATCH_S
            _send_labels(labels, due, totals)
        if pace.per_s <= 0 or now < next_s:
            time.sleep(0.02 if pace.per_s <= 0 else min(0.02, next_s - now))
            continue
        next_s = max(next_s + share / pace.per_s, now - 0.1)
        with guard:
            number, line = next(samples)
        request_id = f"{name}-{number}"
        if _ask(client, request_id, line.tensor, totals):
            due.append((time.monotonic() + label_delay_s, request_id, line.text))


def _ready(client: triton.InferenceServerClient) -> bool:
    """Users come when the model is there."""
    try:
        return bool(client.is_model_ready(MODEL))
    except triton.InferenceServerException:
        return False


def _ask(
    client: triton.InferenceServerClient, request_id: str, tensor: np.ndarray, totals: Totals
) -> bool:
    given = triton.InferInput("x", list(tensor.shape), "FP32")
    given.set_data_from_numpy(tensor)
    error, release, role = "", "", ""
    try:
        answer = client.infer(MODEL, [given], request_id=request_id, client_timeout=TIMEOUT_S)
        said = answer.get_response().parameters
        release, role = said["release"].string_param, said["role"].string_param
    except triton.InferenceServerException as failure:
        error = str(failure)
    with totals.lock:
        totals.sent += 1
        totals.ok += not error
        totals.failed += bool(error)
        totals.last_error = error or totals.last_error
        if release:
            totals.by_release[release] = totals.by_release.get(release, 0) + 1
            totals.by_role[role] = totals.by_role.get(role, 0) + 1
    return not error


def _send_labels(
    stub: edge_pb2_grpc.LabelServiceStub, due: deque[tuple[float, str, str]], totals: Totals
) -> None:
    batch = []
    while due and due[0][0] <= time.monotonic():
        _, request_id, text = due.popleft()
        batch.append(edge_pb2.Label(request_id=request_id, outcome=text))
    if not batch:
        return
    try:
        stub.Record(edge_pb2.RecordRequest(model=MODEL, labels=batch), timeout=TIMEOUT_S)
    except grpc.RpcError:
        return  # late labels may be lost; what is not labelled is not counted
    with totals.lock:
        totals.labels += len(batch)


def _print_totals(totals: Totals, pace: Pace) -> None:
    while pace.running:
        time.sleep(1.0)
        with totals.lock:
            line = {k: v for k, v in vars(totals).items() if k != "lock"}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
