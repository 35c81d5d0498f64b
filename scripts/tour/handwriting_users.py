"""The users of one region in `scripts/demo --heal`: they send digits and later say what they were.

    python -m tour.handwriting_users --region eu-north --nodes A,B --data FOLDER

On standard input: `rate 40`, `fog` (from now on their lens is foggy), `quit`. What became known
is kept in the folder, which is this region's own: nothing of it ever leaves it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import tritonclient.grpc as triton

from hanse.v1 import edge_pb2, edge_pb2_grpc
from tour import handwriting

MODEL = "digits"
ANSWER_S = 10.0
LATE_S = 1.0  # until somebody knows what a digit was
BATCH_S = 0.5
RECENT = 200


@dataclass
class Told:
    """What this process says of itself once a second; `lock` guards every field."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    sent: int = 0
    failed: int = 0
    labels: int = 0
    by_release: dict[str, int] = field(default_factory=dict)
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))
    last_error: str = ""

    def line(self) -> str:
        with self.lock:
            right = sum(self.recent) / len(self.recent) if self.recent else 0.0
            said = {"sent": self.sent, "failed": self.failed, "labels": self.labels}
            said |= {"right": round(right, 3), "of": len(self.recent)}  # type: ignore[dict-item]
            return json.dumps(said | {"by_release": self.by_release, "error": self.last_error})


@dataclass
class Mood:
    per_s: float = 0.0
    foggy: bool = False
    running: bool = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--region", required=True)
    parser.add_argument("--nodes", required=True, help="addresses, comma separated")
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    nodes = options.nodes.split(",")
    mood, told = Mood(), Told()
    workers = [
        threading.Thread(
            target=serve,
            args=(f"{options.region}-{i}", node, len(nodes), options.data, mood, told),
            daemon=True,
        )
        for i, node in enumerate(nodes)
    ]
    for worker in (*workers, threading.Thread(target=tell, args=(mood, told), daemon=True)):
        worker.start()
    for line in sys.stdin:
        word, _, value = line.strip().partition(" ")
        if word == "rate":
            mood.per_s = float(value)
        elif word == "fog":
            mood.foggy = True
        elif word == "quit":
            break
    mood.running = False
    for worker in workers:
        worker.join(timeout=ANSWER_S)


def tell(mood: Mood, told: Told) -> None:
    while mood.running:
        time.sleep(1.0)
        print(told.line(), flush=True)


def serve(name: str, address: str, share: int, data: Path, mood: Mood, told: Told) -> None:
    """One node's users, until they are told to stop."""
    _, rows, _, labels = handwriting.scans()
    client = triton.InferenceServerClient(address)
    stub = edge_pb2_grpc.LabelServiceStub(grpc.insecure_channel(address))
    due: deque[tuple[float, str, int, bool]] = deque()
    rng = random.Random(name)
    while mood.running and not _ready(client):
        time.sleep(0.1)
    number, next_s, next_label_s = 0, time.monotonic(), time.monotonic()
    while mood.running:
        now = time.monotonic()
        if now >= next_label_s:
            next_label_s = now + BATCH_S
            _labels(stub, due, told)
        if mood.per_s <= 0 or now < next_s:
            time.sleep(0.02 if mood.per_s <= 0 else min(0.02, next_s - now))
            continue
        next_s = max(next_s + share / mood.per_s, now - 0.1)
        pick, number = rng.randrange(len(rows)), number + 1
        row = rows[pick : pick + 1]
        seen = handwriting.fog(row) if mood.foggy else row
        answer = _ask(client, f"{name}-{number}", seen, told)
        if answer is None:
            continue
        right = answer == labels[pick]
        due.append((time.monotonic() + LATE_S, f"{name}-{number}", int(labels[pick]), right))
        held_out = pick % handwriting.HELD_OUT_EVERY == 0
        handwriting.keep(data, seen, int(labels[pick]), held_out=held_out)


def _ready(client: triton.InferenceServerClient) -> bool:
    """Users come when the model is there."""
    try:
        return bool(client.is_model_ready(MODEL))
    except triton.InferenceServerException:
        return False


def _ask(
    client: triton.InferenceServerClient, request_id: str, row: handwriting.Rows, told: Told
) -> int | None:
    given = triton.InferInput("X", [1, 64], "FP32")
    given.set_data_from_numpy(np.ascontiguousarray(row))
    error, release, found = "", "", None
    try:
        answer = client.infer(MODEL, [given], request_id=request_id, client_timeout=ANSWER_S)
        release = answer.get_response().parameters["release"].string_param
        found = int(answer.as_numpy("label")[0])
    except triton.InferenceServerException as failure:
        error = str(failure)
    with told.lock:
        told.sent += 1
        told.failed += bool(error)
        told.last_error = error or told.last_error
        if release:
            told.by_release[release] = told.by_release.get(release, 0) + 1
    return found


def _labels(
    stub: edge_pb2_grpc.LabelServiceStub, due: deque[tuple[float, str, int, bool]], told: Told
) -> None:
    batch = []
    while due and due[0][0] <= time.monotonic():
        _, request_id, label, right = due.popleft()
        batch.append(edge_pb2.Label(request_id=request_id, outcome=str(label)))
        with told.lock:
            told.recent.append(right)
    if not batch:
        return
    try:
        stub.Record(edge_pb2.RecordRequest(model=MODEL, labels=batch), timeout=ANSWER_S)
    except grpc.RpcError:
        return  # late labels may be lost; what is not labelled is not counted
    with told.lock:
        told.labels += len(batch)


if __name__ == "__main__":
    main()
