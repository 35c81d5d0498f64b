"""A daemon of canned answers behind a real control socket, and canned answers for it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hanse.cli import shapes
from hanse.daemon import control

Answer = Any | Exception | Callable[[dict[str, Any]], Any]


class FakeDaemon:
    """`answers` maps a verb to a result, an error to raise, or a function of the arguments.

    What such a function yields is progress; a `ConnectionError` hangs up.
    """

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.blobs: dict[str, bytes] = {}

    def calls(self, verb: str) -> list[dict[str, Any]]:
        return [args for name, args in self.asked if name == verb]

    def handler(self, verb: str) -> control.Handler:
        async def handle(args, progress, stream):
            self.asked.append((verb, args))
            answer = self.answers[verb]
            if isinstance(answer, Exception):
                raise answer
            found = answer(args) if callable(answer) else answer
            return await _played(found, progress) if isinstance(found, Generator) else found

        return handle

    async def put(self, args, progress, stream):
        digest, size = args["digest"], args["size"]
        if digest in self.blobs:
            return {"digest": digest, "size": size, "stored": False}
        await progress({"send": True})
        raw = b"".join([chunk async for chunk in control.upload(stream, size)])
        assert digest == f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self.blobs[digest] = raw
        return {"digest": digest, "size": size, "stored": True}


async def _played(answers: Generator[Any, None, Any], progress: control.Progress) -> Any:
    while True:
        try:
            said = next(answers)
        except StopIteration as end:
            return end.value
        await progress(said)


@contextmanager
def running(home: Path, answers: dict[str, Answer]) -> Iterator[FakeDaemon]:
    fake = FakeDaemon(answers)
    ready, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()
    verbs = {verb: fake.handler(verb) for verb in answers} | {"blob.put": fake.put}

    async def serve() -> None:
        async with control.serve(home / "control.sock", verbs):
            ready.set()
            await stop.wait()

    def carry() -> None:
        # A runner, not the bare loop: it ends what a caller that has gone left behind.
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=carry)
    thread.start()
    assert ready.wait(5)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)


OLD: shapes.ReleaseRef = {"release": "sha256:" + "1" * 64, "version": "3.0.0"}
NEW: shapes.ReleaseRef = {"release": "sha256:" + "2" * 64, "version": "4.0.0"}


def counts(on_target: int, of: int, offline: list[str] | None = None) -> shapes.Nodes:
    names = offline or []
    return {
        "on_target": on_target,
        "cached": of,
        "of": of,
        "unable": 0,
        "offline": len(names),
        "offline_names": names,
        "age_s": 1.5,
    }


def region(
    name: str,
    state: str,
    active: shapes.ReleaseRef | None = NEW,
    nodes: shapes.Nodes | None = None,
) -> shapes.RegionStatus:
    return {
        "region": name,
        "state": state,
        "since_ms": 1_790_000_000_000,
        "active": active,
        "nodes": nodes,
        "quality": {"metric": "error-rate", "bad": 30, "n": 1000, "age_s": 4.0},
        "rollout": None,
        "reason": "",
        "heard_s": 0.0,
    }


def status(*regions: shapes.RegionStatus, own: str = "eu-north") -> shapes.Status:
    return {
        "at_ms": 1_790_000_100_000,
        "daemon": {
            "federation": "acme",
            "region": own,
            "member": "0" * 32,
            "origin": f"acme/{own}/{'0' * 32}/i1",
            "address": "127.0.0.1:7420",
            "trust_version": 2,
            "trust_stale": "",
            "log_size": 17,
            "final_size": 17,
            "damage": [],
            "disk": {
                "level": "enough",
                "free_bytes": 70 * 2**30,
                "total_bytes": 100 * 2**30,
                "reserve_kept": True,
            },
            "phase": "writing",
            "why": "",
            "fix": "",
            "state_digest": "ab" * 32,
            "waits": [],
            "started_ms": 1_780_000_000_000,
            "version": "0.1.0",
        },
        "fetching": [],
        "peers": {"connected": 5, "of": 6, "oldest_s": 4.2},
        "members": [],
        "logs": [],
        "models": [
            {
                "model": "ocr-rec",
                "state": regions[0]["state"],
                "sentence": "ocr-rec 4.0.0 FAILING eu-north | last good 3.0.0",
                "last_good": OLD,
                "regions": list(regions),
            }
        ],
    }


def rollouts(state: str) -> shapes.RolloutStatuses:
    reading: shapes.MetricReading = {
        "metric": "error-rate",
        "test": "ratio",
        "bad_trial": 30,
        "n_trial": 1000,
        "bad_stable": 27,
        "n_stable": 9000,
        "harm": 12.3,
        "proof": None,
        "needed": 4.6,
        "dry_run": False,
        "text": "error-rate: trial 30 of 1000, stable 27 of 9000 requests",
    }
    part: shapes.RolloutRegion = {
        "region": "eu-north",
        "stage": "first",
        "state": "analyzing",
        "step": "2/5 analysis safety",
        "weight": 10,
        "verdict": "inconclusive",
        "reason": "undecided",
        "nodes": counts(8, 8),
        "metrics": [reading],
        "age_s": 0.5,
    }
    return {
        "rollouts": [
            {
                "model": "ocr-rec",
                "rollout": "r-17",
                "generation": 17,
                "release": NEW,
                "predecessor": OLD,
                "state": state,
                "current": True,
                "regions": [part],
                "timeline": [
                    {"at_ms": 1, "region": "eu-north", "event": "ev_1", "what": "r-17 started"}
                ],
            }
        ]
    }


def documents(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found
