"""Hooks: commands that are bounded in all, CloudEvents, and runs of a pipeline."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from hanse.core.ids import Digest, segment
from hanse.daemon.healing_file import Command, HttpCall, Pipeline
from hanse.daemon.hooks import command, web
from hanse.daemon.hooks.asking import Asking, HookFailed

ASKING = Asking(
    "ab" * 32,
    "harbour",
    segment("eu-north"),
    segment("digits"),
    Digest.of(b"worse"),
    "4.0.0",
    "serving",
    "worse: accuracy",
    1_795_000_000_123,
)


# -- commands ----------------------------------------------------------------------------------


def script(folder: Path, text: str, **more: Any) -> Command:
    (folder / "hook.py").write_text(text)
    values = {"timeout_s": 10.0, "environment": {}} | more
    return Command((sys.executable, "-u", "hook.py"), folder, **values)


async def test_a_command_is_told_what_happened_and_nothing_else(tmp_path: Path) -> None:
    os.environ["OF_THE_DAEMON"] = "secret"
    told = script(
        tmp_path,
        "import os, sys, json\n"
        "event = json.load(sys.stdin)\n"
        "json.dump([dict(os.environ), event, os.getcwd()], open('told', 'w'))\n"
        "print('first'); print('done')\n",
        environment={"HANSE_KEY": "/keys/hook"},
    )
    assert await command.run(told, ASKING, tmp_path) == "it said: done"
    environment, event, folder = json.loads((tmp_path / "told").read_text())
    assert Path(folder) == tmp_path
    assert event["id"] == environment["HANSE_RETRAIN"] == ASKING.key
    assert environment["HANSE_KEY"] == "/keys/hook"
    assert environment["HANSE_RELEASE"] == str(ASKING.release)
    assert environment["HANSE_CAUSE"] == "serving"
    assert "OF_THE_DAEMON" not in environment


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import sys; print('no data'); sys.exit(3)", "ended with 3; it said: no data"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended with -9"),
        ("import sys; [print('x' * 1000) for _ in range(20000)]; sys.exit(1)", "x" * 200),
    ],
)
async def test_how_a_command_fails_is_said_in_one_bounded_line(
    tmp_path: Path, text: str, why: str
) -> None:
    with pytest.raises(HookFailed) as failed:
        await command.run(script(tmp_path, text), ASKING, tmp_path)
    assert why in failed.value.message
    assert len(failed.value.message) < 300


async def test_a_command_that_cannot_be_started_is_a_failure_of_the_hook(tmp_path: Path) -> None:
    missing = Command((str(tmp_path / "nothing"),), tmp_path, 1.0, {})
    with pytest.raises(HookFailed, match="cannot be started"):
        await command.run(missing, ASKING, tmp_path)


CHILDREN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("pids", "w").write(f"{os.getpid()} {child.pid}")
"""


async def test_what_takes_too_long_is_ended_with_everything_that_it_started(
    tmp_path: Path,
) -> None:
    slow = script(tmp_path, CHILDREN + "time.sleep(600)", timeout_s=1.0)
    with pytest.raises(HookFailed, match="longer than 1 s"):
        await command.run(slow, ASKING, tmp_path)
    assert not any(map(alive, pids(tmp_path)))


async def test_what_ends_well_leaves_nothing_behind_either(tmp_path: Path) -> None:
    """The child holds the pipe open: waiting for its end would take ten minutes."""
    begun = time.monotonic()
    await command.run(script(tmp_path, CHILDREN + "print('ok')"), ASKING, tmp_path)
    assert time.monotonic() - begun < 9
    assert not any(map(alive, pids(tmp_path)))


async def test_a_daemon_that_stops_takes_its_hook_along(tmp_path: Path) -> None:
    slow = script(tmp_path, CHILDREN + "time.sleep(600)")
    running = asyncio.create_task(command.run(slow, ASKING, tmp_path))
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(map(alive, pids(tmp_path)))


ORPHAN = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_hooks import ASKING, CHILDREN, command, script
home = Path({home!r})
asyncio.run(command.run(script(home, CHILDREN + "time.sleep(600)"), ASKING, home))
"""


async def test_one_that_outlived_its_daemon_is_ended_before_the_next_begins(
    tmp_path: Path,
) -> None:
    code = ORPHAN.format(tests=str(Path(__file__).parent), home=str(tmp_path))
    daemon = subprocess.Popen(  # noqa: ASYNC220  # a daemon of its own
        [sys.executable, "-c", code]
    )
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)  # until its number is written down; else the next waits for its end
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    older = pids(tmp_path)
    assert all(map(alive, older))
    assert await command.run(script(tmp_path, "print('again')"), ASKING, tmp_path)
    assert not alive(older[0])


def pids(folder: Path) -> list[int]:
    return [int(text) for text in (folder / "pids").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# -- servers -----------------------------------------------------------------------------------


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """Answers from a list of statuses, then with 200; keeps what it was asked."""

    statuses: list[int] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def answer(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        self.seen.append(seen)
        if self.statuses and (status := self.statuses.pop(0)) != 200:
            return status, {}
        parts = urlsplit(seen.path)
        if parts.path == "/apis/v2beta1/runs" and seen.method == "POST":
            run = json.loads(seen.body)
            assert set(run) <= RUN_FIELDS, "the server of the v2beta1 API knows no other"
            assert run["display_name"]
            assert run["pipeline_version_reference"]["pipeline_id"]
            self.runs.append({**run, "run_id": f"run-{len(self.runs)}", "state": "PENDING"})
            return 200, self.runs[-1]
        if parts.path == "/apis/v2beta1/runs":
            (predicate,) = json.loads(parse_qs(parts.query)["filter"][0])["predicates"]
            assert (predicate["operation"], predicate["key"]) == ("EQUALS", "display_name")
            found = [r for r in self.runs if r["display_name"] == predicate["stringValue"]]
            return 200, {"runs": found, "total_size": len(found)} if found else {}
        if parts.path.startswith("/apis/v2beta1/runs/"):
            return 200, next(r for r in self.runs if r["run_id"] == parts.path.rpartition("/")[2])
        return 200, {}


RUN_FIELDS = {
    *("experiment_id", "display_name", "description", "pipeline_spec"),
    *("pipeline_version_reference", "runtime_config", "service_account", "namespace"),
}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            size = int(self.headers.get("content-length", 0))
            headers = {k.lower(): v for k, v in self.headers.items()}
            seen = Seen(self.command, self.path, headers, self.rfile.read(size))
            status, answer = made.answer(seen)
            raw = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        made.url = f"http://127.0.0.1:{listening.server_port}"
        thread = Thread(target=listening.serve_forever)
        thread.start()
        yield made
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PAUSE_S", 0.01)


def hook(server: Server, **more: Any) -> HttpCall:
    values = {"timeout_s": 5.0, "attempts": 4, "secret": None, "token": None} | more
    return HttpCall(f"{server.url}/hooks/retrain", **values)


async def test_the_event_is_a_cloud_event_in_structured_form(server: Server) -> None:
    await web.post_event(hook(server), ASKING)
    (seen,) = server.seen
    assert (seen.method, seen.path) == ("POST", "/hooks/retrain")
    assert seen.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    event = json.loads(seen.body)
    assert {k: event[k] for k in ("specversion", "id", "source", "type", "subject", "time")} == {
        "specversion": "1.0",
        "id": ASKING.key,
        "source": "/hanse/harbour/eu-north",
        "type": "dev.hanse.model.retrain.v1",
        "subject": "digits",
        "time": "2026-11-18T11:06:40.123Z",
    }
    assert event["datacontenttype"] == "application/json"
    assert event["data"]["release"] == str(ASKING.release)


async def test_it_is_sent_again_with_the_same_key_until_it_is_taken(server: Server) -> None:
    server.statuses = [503, 429]
    await web.post_event(hook(server), ASKING)
    assert len(server.seen) == 3
    assert len({seen.body for seen in server.seen}) == 1


@pytest.mark.parametrize(
    ("statuses", "tried", "why"),
    [([400], 1, "answered 400"), ([302], 1, "answered 302"), ([500] * 4, 4, "asked 4 times")],
)
async def test_it_is_not_sent_for_ever(
    server: Server, statuses: list[int], tried: int, why: str
) -> None:
    server.statuses = statuses
    with pytest.raises(HookFailed, match=why):
        await web.post_event(hook(server), ASKING)
    assert len(server.seen) == tried


async def test_nobody_there_is_a_failure_after_the_last_try(server: Server) -> None:
    gone = replace(hook(server, attempts=2), url="http://127.0.0.1:9/x")
    with pytest.raises(HookFailed, match="asked 2 times"):
        await web.post_event(gone, ASKING)


async def test_with_a_secret_it_is_signed_as_standard_webhooks_are(
    server: Server, tmp_path: Path
) -> None:
    """The formula of the specification, worked out here by other means."""
    secret, token = tmp_path / "secret", tmp_path / "token"
    secret.write_text("whsec_" + base64.b64encode(b"k" * 24).decode() + "\n")
    token.write_text("abc\n")
    for path in (secret, token):
        path.chmod(0o600)
    await web.post_event(hook(server, secret=secret, token=token), ASKING)
    (seen,) = server.seen
    assert seen.headers["authorization"] == "Bearer abc"
    assert seen.headers["webhook-id"] == ASKING.key
    at = seen.headers["webhook-timestamp"]
    assert abs(int(at) - time.time()) < 60
    signed = b".".join([ASKING.key.encode(), at.encode(), seen.body])
    ran = subprocess.run(  # noqa: ASYNC221  # a few milliseconds
        ["openssl", "dgst", "-sha256", "-hmac", "k" * 24, "-binary"],
        input=signed, capture_output=True, check=True,
    )  # fmt: skip
    assert seen.headers["webhook-signature"] == "v1," + base64.b64encode(ran.stdout).decode()


def pipeline(server: Server, **more: Any) -> Pipeline:
    values: dict[str, Any] = {"token": None, "experiment_id": "exp-1", "service_account": "runner"}
    parameters = {"key": "{retrain}", "data": "s3://bucket/{region}", "epochs": "3"}
    values |= {"pipeline_id": "p-1", "version_id": "v-2", "parameters": parameters} | more
    return Pipeline(server.url, 5.0, 3, **values)


async def test_a_pipeline_run_has_the_form_of_the_v2beta1_api(server: Server) -> None:
    assert await web.start_run(pipeline(server), ASKING) == "run-0"
    assert [s.method for s in server.seen] == ["GET", "POST"]
    run = server.runs[0]
    assert run["display_name"] == f"hanse-retrain-{ASKING.key}"
    assert run["pipeline_version_reference"] == {"pipeline_id": "p-1", "pipeline_version_id": "v-2"}
    assert run["runtime_config"] == {
        "parameters": {"key": ASKING.key, "data": "s3://bucket/eu-north", "epochs": "3"}
    }
    assert (run["experiment_id"], run["service_account"]) == ("exp-1", "runner")


async def test_a_pipeline_is_run_once_for_a_key(server: Server) -> None:
    first = await web.start_run(pipeline(server), ASKING)
    assert await web.start_run(pipeline(server), ASKING) == first
    other = replace(ASKING, key="cd" * 32)
    assert await web.start_run(pipeline(server), other) != first
    assert len(server.runs) == 2


async def test_a_run_that_failed_is_known_by_its_state(server: Server) -> None:
    run = await web.start_run(pipeline(server), ASKING)
    assert await web.run_state(pipeline(server), run) == "PENDING"
    server.runs[0]["state"] = "FAILED"
    assert await web.run_state(pipeline(server), run) in web.OVER


@pytest.mark.parametrize("answer", [{}, {"run_id": 7}])
async def test_an_answer_that_names_no_run_is_a_failure(
    server: Server, answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "answer", lambda self, seen: (200, answer))
    with pytest.raises(HookFailed, match="did not say which run"):
        await web.start_run(pipeline(server), ASKING)
