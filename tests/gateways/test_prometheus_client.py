"""Only a count is a count: every other answer is none, bounded in size and time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from hanse.core import limits
from hanse.core.errors import InvalidSpec, Unavailable
from hanse.daemon.prometheus import selectors
from hanse.gateways.prometheus_client import Server


def success(kind: str, result: object) -> bytes:
    return json.dumps(
        {"status": "success", "data": {"resultType": kind, "result": result}}
    ).encode()


def vector(*values: str) -> bytes:
    return success("vector", [{"metric": {}, "value": [1435781451.781, v]} for v in values])


heads: list[str] = []  # what the last server was asked with


@contextlib.asynccontextmanager
async def answering(
    body: bytes, status: str = "200 OK", more: str = ""
) -> AsyncIterator[tuple[str, list[dict[str, list[str]]]]]:
    """A server that says one thing to everybody; and the forms that it was sent."""
    forms: list[dict[str, list[str]]] = []
    heads.clear()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        heads.append(head)
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        forms.append(parse_qs((await reader.readexactly(length)).decode()))
        writer.write(f"HTTP/1.1 {status}\r\n{more}content-length: {len(body)}\r\n\r\n".encode())
        writer.write(body)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/prom", forms
    finally:
        server.close()


@pytest.mark.parametrize(
    ("body", "found"),
    [(vector("17"), 17), (vector("0"), 0), (vector("1e3"), 1000), (success("scalar", [1, "5"]), 5)],
)
async def test_a_count_is_a_count(body: bytes, found: int) -> None:
    async with answering(body) as (url, forms):
        assert await Server(url).count("sum(x)", 12.5) == found
    assert forms == [{"query": ["sum(x)"], "time": ["12.500"], "timeout": ["5s"]}]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (vector(), "nothing is found"),
        (vector("1", "2"), "write sum"),
        (vector("NaN"), "no count"),
        (vector("+Inf"), "no count"),
        (vector("-1"), "no count"),
        (vector("1.5"), "no count"),
        (vector("x"), "no count"),
        (vector(str(2**41)), "no count"),
        (success("vector", ["x"]), "no count"),
        (success("vector", [{"value": [1]}]), "no count"),
        (success("scalar", {"a": 1}), "no count"),
        (success("matrix", []), "write an instant query"),
        (success("string", [1, "5"]), "write an instant query"),
        (b"[]", "no result"),
        (b'{"status": "error", "data": {"resultType": "scalar", "result": [1, "5"]}}', "no result"),
        (b'{"status": "success", "data": {"resultType": "scalar", "result": [1, NaN]}}', "no JSON"),
        (b"<html>", "no JSON"),
        (b"[" * 100_000, "too long"),
        (b" " * (limits.PROMETHEUS_ANSWER_BYTES_MAX + 1), "too long"),
    ],
)
async def test_everything_else_is_no_answer(body: bytes, said: str) -> None:
    async with answering(body) as (url, _):
        with pytest.raises(Unavailable) as caught:
            await Server(url).count("sum(x)")
    assert said in f"{caught.value}"


@pytest.mark.parametrize(
    ("status", "more"),
    [("302 Found", "location: http://127.0.0.1:1/\r\n"), ("503 Busy", ""), ("204 No", "")],
)
async def test_nothing_is_followed_and_only_200_answers(status: str, more: str) -> None:
    async with answering(vector("1"), status, more) as (url, forms):
        with pytest.raises(Unavailable):
            await Server(url).count("sum(x)")
    assert len(forms) == 1


async def test_a_query_that_cannot_be_read_is_our_mistake_not_weather() -> None:
    body = b'{"status":"error","errorType":"bad_data","error":"parse error: unexpected end"}'
    async with answering(body, "400 Bad Request") as (url, _):
        with pytest.raises(InvalidSpec, match="parse error"):
            await Server(url).count("sum(")


async def test_who_does_not_answer_in_time_has_not_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hanse.gateways.prometheus_client.PROMETHEUS_ANSWER_S", 0.05)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(Unavailable, match="no answer within"):
        await Server(url).count("x")
    server.close()
    await server.wait_closed()
    with pytest.raises(Unavailable, match="cannot be asked"):
        await Server(url).count("x")


async def test_a_name_is_known_if_anything_was_seen_of_it() -> None:
    for body, known in ((vector("3"), True), (vector(), False)):
        async with answering(body) as (url, forms):
            assert await Server(url).knows("orders_total") is known
        assert forms[0]["query"] == ["count(last_over_time(orders_total[1h]))"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ('sum(a_total{release="$release"})', ("a_total",)),
        ('sum by (x) (a{r="b{c"}) or vector(0)', ("a",)),
        ("""sum(a{r='$role'}) + sum(ns:b {r="x"})""", ("a", "ns:b")),
        ("vector(1)", ()),
    ],
)
def test_the_metrics_that_a_query_names(query: str, names: tuple[str, ...]) -> None:
    assert selectors(query) == names


async def test_a_token_is_shown_as_the_file_has_it_now(tmp_path: Path) -> None:
    token = tmp_path / "token"
    async with answering(vector("1")) as (url, _):
        await Server(url).count("x")
        with pytest.raises(Unavailable, match="cannot be asked"):
            await Server(url, token).count("x")
        for text in ("first\n", "second"):
            token.write_text(text)
            await Server(url, token).count("x")
    shown = ["authorization" in head and head.split("bearer ")[1].split()[0] for head in heads]
    assert shown == [False, "first", "second"]
