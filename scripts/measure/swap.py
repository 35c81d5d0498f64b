"""Taking a node back to its last good release: how long, and what it costs the requests."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
from tour import digits

from hanse.core.catalog.manifest import File, Manifest, Outcome, Tensor, Variant
from hanse.core.device_step import Route
from hanse.core.errors import HanseError
from hanse.core.ids import Digest, Version, segment
from hanse.edge.inference import load
from hanse.edge.router import Router
from hanse.edge.served import Served
from hanse.edge.telemetry import Telemetry
from measure.table import markdown, quantile

SWAPS = 100
CLIENTS = 8
MODEL = segment("digits")


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        swaps, sent, answered, by_release = asyncio.run(_measure(Path(folder)))
    figures = [quantile(swaps, q) * 1e6 for q in (0.5, 0.99)] + [max(swaps) * 1e6]
    rows = [[f"{v:.0f}" for v in figures] + ["1000", str(sent), str(sent - answered)]]
    header = ["p50 µs", "p99 µs", "max µs", "bar µs", "requests", "lost or failed"]
    split = " and ".join(map(str, by_release))
    return (
        f"### Rollback on the node\n\n{SWAPS} swaps between two loaded digit models on onnxruntime "
        f"while {CLIENTS} clients ask without pause; the two answered {split} requests.\n\n"
        + markdown(header, rows)
    )


async def _measure(folder: Path) -> tuple[list[float], int, int, list[int]]:
    router = Router(Telemetry(memory_max=1000))
    releases = [_add(router, folder / name, name) for name in ("v1", "v2")]
    router.swap(Route(MODEL, releases[0]))
    stop = asyncio.Event()
    clients = [asyncio.create_task(_ask(router, stop, str(i))) for i in range(CLIENTS)]
    swaps = []
    for i in range(SWAPS):
        await asyncio.sleep(0.01)
        route = Route(MODEL, releases[(i + 1) % 2])
        began = time.perf_counter()
        router.swap(route)
        swaps.append(time.perf_counter() - began)
    stop.set()
    told = await asyncio.gather(*clients)
    await router.close()
    by_release = [sum(t[2].get(r, 0) for t in told) for r in releases]
    return swaps, sum(t[0] for t in told), sum(t[1] for t in told), by_release


def _add(router: Router, folder: Path, name: str) -> Digest:
    path = digits.make(folder)[name]
    file = File(segment("model.onnx"), Digest.of(path.read_bytes()), path.stat().st_size)
    manifest = Manifest(
        MODEL,
        Version(name),
        (file,),
        (Variant(segment("onnx"), "onnx", file.name),),
        (Tensor("X", "FP32", (-1, 64)),),
        (Tensor("label", "INT64", (-1,)), Tensor("probabilities", "FP32", (-1, 10))),
        outcome=Outcome("label", "label"),
    )
    release = Digest.of(manifest.encode())
    path.rename(path.with_name("model.onnx"))
    router.add(MODEL, Served(release, name, load(path.parent, manifest)))
    return release


async def _ask(
    router: Router, stop: asyncio.Event, name: str
) -> tuple[int, int, dict[Digest, int]]:
    feeds, sent, answered = {"X": np.zeros((1, 64), np.float32)}, 0, 0
    by_release: dict[Digest, int] = {}
    while not stop.is_set():
        sent += 1
        try:
            answer = await router.infer("digits", None, f"{name}/{sent}", "", feeds)
        except HanseError:
            continue
        answered += 1
        by_release[answer.release] = by_release.get(answer.release, 0) + 1
        await asyncio.sleep(0)
    return sent, answered, by_release
