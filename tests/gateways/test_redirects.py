"""T33: whoever is asked cannot send us elsewhere, to what only this machine reaches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from hanse.cli import audit_source
from hanse.core.errors import HanseError
from hanse.core.ids import Digest, segment
from hanse.daemon.healing_file import HttpCall, Pipeline
from hanse.daemon.hooks import web
from hanse.daemon.hooks.asking import Asking
from hanse.gateways.http_call import call
from hanse.gateways.prometheus_client import Server
from hanse.gateways.witness_client import add_checkpoint

ASKING = Asking(
    "ab" * 32, "harbour", segment("eu"), segment("m"), Digest.of(b"w"), "1", "serving", "", 0
)


class Elsewhere:
    """Two servers: one that sends everybody to the other, and one that counts who comes."""

    def __init__(self, status: int) -> None:
        self.came = 0
        world = self

        class Inner(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                world.came += 1
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        class Door(Inner):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(status)
                self.send_header("location", world.inner)
                self.send_header("content-length", "0")
                self.end_headers()

            do_POST = do_GET  # noqa: N815

        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), each) for each in (Inner, Door)]
        self.inner, self.door = (f"http://127.0.0.1:{s.server_port}" for s in self._servers)
        for server in self._servers:
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


@pytest.fixture(params=[301, 302, 303, 307, 308])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[Elsewhere]:
    made = Elsewhere(request.param)
    yield made
    made.close()


async def to_a_hook(url: str) -> None:
    await web.post_event(HttpCall(url, 5.0, 2, None, None), ASKING)


async def to_a_pipeline(url: str) -> None:
    await web.start_run(Pipeline(url, 5.0, 2, None, "p", "", "", "", {}), ASKING)


async def to_prometheus(url: str) -> None:
    await Server(url).count("sum(x)")


async def from_a_door(url: str) -> None:
    audit_source.of_url(url)("logs")


@pytest.mark.parametrize("ask", [to_a_hook, to_a_pipeline, to_prometheus, from_a_door])
async def test_a_redirect_is_an_answer_that_is_not_followed(
    elsewhere: Elsewhere, ask: Callable[[str], Awaitable[None]]
) -> None:
    with pytest.raises(HanseError, match=r"30[1-8]"):
        await ask(elsewhere.door)
    assert elsewhere.came == 0


async def test_whoever_asked_sees_the_redirect_as_it_is(elsewhere: Elsewhere) -> None:
    status, _ = await add_checkpoint(elsewhere.door, b"old 0\n")
    assert status in (301, 302, 303, 307, 308)
    status, _ = await call("GET", elsewhere.door, within_s=5.0, answer_bytes_max=100)
    assert status in (301, 302, 303, 307, 308)
    assert elsewhere.came == 0
