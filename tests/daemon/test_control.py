"""A control server with canned verbs, asked by the real client over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import json
import os
import socket
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hanse.cli import client
from hanse.core.errors import Broken, Conflict, InvalidSpec, NotFound, NotPermitted, TooLarge
from hanse.core.limits import CONTROL_LINE_BYTES_MAX
from hanse.daemon import control
from hanse.daemon.config import control_path


async def echo(args, progress, stream):
    await progress({"step": 1})
    await progress({"step": 2})
    return {"args": args}


async def refuse(args, progress, stream):
    raise Conflict("it moved on", fix="look again")


async def crash(args, progress, stream):
    raise ZeroDivisionError("a secret detail")


async def put(args, progress, stream):
    if args["digest"] == "known":
        return {"digest": "known", "size": args["size"], "stored": False}
    await progress({"send": True})
    hashed = hashlib.sha256()
    async for chunk in control.upload(stream, args["size"]):
        hashed.update(chunk)
        if args["digest"] == "refused":
            raise TooLarge("the disk is full", fix="delete something")
    return {"digest": hashed.hexdigest(), "size": args["size"], "stored": True}


async def give(args, progress, stream):
    await progress({"data": b"", "of": 3})
    await progress({"data": b"\n{}", "of": 3})
    await progress({"data": bytes(CONTROL_LINE_BYTES_MAX), "of": 3})
    return {}


VERBS = {"echo": echo, "refuse": refuse, "crash": crash, "give": give, "blob.put": put}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    async with control.serve(tmp_path / "control.sock", VERBS):
        yield tmp_path


async def call(home: Path, verb: str, **args: object) -> object:
    return await asyncio.to_thread(client.call, home, verb, **args)


async def raw(home: Path, data: bytes) -> dict[str, dict[str, str]]:
    reader, writer = await asyncio.open_unix_connection(home / "control.sock")
    writer.write(data)
    answer = json.loads(await reader.readline())
    writer.close()
    return answer


async def test_arguments_arrive_and_progress_precedes_the_result(home):
    def ask():
        seen, answers = [], client.stream(home, "echo", model="ocr-rec", n=3)
        while True:
            try:
                seen.append(next(answers))
            except StopIteration as end:
                return seen, end.value

    seen, result = await asyncio.to_thread(ask)
    assert seen == [{"step": 1}, {"step": 2}]
    assert result == {"args": {"model": "ocr-rec", "n": 3}}


async def test_bytes_follow_their_line_as_they_are(home):
    seen = await asyncio.to_thread(lambda: [said["data"] for said in client.stream(home, "give")])
    assert seen == [b"", b"\n{}", bytes(CONTROL_LINE_BYTES_MAX)]


@pytest.mark.parametrize(
    "said",
    [b"", b'{"progress": {"da', b'{"progress": {"data": 9}}\n', b'{"progress": {"data": 9}}\nabc'],
)
async def test_a_daemon_that_goes_away_in_the_middle_has_not_answered(tmp_path, said):
    async def go(reader, writer):
        await reader.readline()
        writer.write(said)
        writer.close()

    async with await asyncio.start_unix_server(go, tmp_path / "control.sock"):
        with pytest.raises(client.NoAnswer):
            await asyncio.to_thread(list, client.stream(tmp_path, "give"))


async def test_an_answer_without_an_end_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "LINE_BYTES_MAX", 1000)

    async def go(reader, writer):
        await reader.readline()
        writer.write(b"a" * 2000)
        writer.close()

    async with await asyncio.start_unix_server(go, tmp_path / "control.sock"):
        with pytest.raises(Broken, match="no end"):
            await asyncio.to_thread(list, client.stream(tmp_path, "give"))


async def test_an_error_keeps_its_class_its_message_and_its_fix(home):
    with pytest.raises(Conflict) as caught:
        await call(home, "refuse")
    assert (caught.value.message, caught.value.fix) == ("it moved on", "look again")


async def test_an_unexpected_failure_is_answered_without_its_details(home):
    with pytest.raises(Broken) as caught:
        await call(home, "crash")
    assert "secret" not in str(caught.value)


async def test_an_unknown_verb_is_not_found(home):
    with pytest.raises(NotFound):
        await call(home, "sudo")


@pytest.mark.parametrize(
    "line", [b"[]\n", b"{}\n", b'{"verb": 3}\n', b"\xff\n", b'{"verb": "echo", "verb": "echo"}\n']
)
async def test_a_malformed_request_is_refused_and_the_server_lives(home, line):
    assert (await raw(home, line))["error"]["kind"] == "InvalidSpec"
    assert await call(home, "echo") == {"args": {}}


async def test_a_request_line_is_bounded(home):
    answer = await raw(home, b'{"verb":"' + b"a" * (CONTROL_LINE_BYTES_MAX + 10) + b'"}\n')
    assert answer["error"]["kind"] == InvalidSpec.__name__


async def test_a_caller_who_hangs_up_hurts_nobody(home):
    _, writer = await asyncio.open_unix_connection(home / "control.sock")
    writer.write(b'{"verb":')
    writer.close()
    assert await call(home, "echo") == {"args": {}}


async def test_the_socket_is_for_its_owner_alone(home):
    assert (home / "control.sock").stat().st_mode & 0o777 == 0o600


async def test_another_user_is_refused(home, monkeypatch):
    monkeypatch.setattr(control.os, "geteuid", lambda: os.getuid() + 1000)
    real = control._UCRED
    monkeypatch.setattr(
        control, "_UCRED", type("Ucred", (), {"size": real.size, "unpack": lambda *_: (1, 7, 7)})()
    )
    with pytest.raises(NotPermitted):
        await call(home, "echo")


SETRESUID = {"x86_64": 117, "aarch64": 147}.get(os.uname().machine, 0)


def ask_as(uid: int, path: Path) -> bytes:
    """What this user is answered. By the bare system call, it is this thread alone that changes."""
    answers: list[bytes] = []

    def ask() -> None:
        assert ctypes.CDLL(None).syscall(SETRESUID, uid, uid, uid) == 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(path))
            with contextlib.suppress(BrokenPipeError):  # it may have said no already
                connection.sendall(b'{"verb":"echo"}\n')
            answers.append(connection.recv(4096))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return b"".join(answers)


@pytest.mark.skipif(os.geteuid() != 0 or not SETRESUID, reason="only root can become another user")
async def test_the_kernel_says_who_calls():
    """Not the file's mode, which is opened here to everybody, and nothing that the caller says."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "control.sock"

        async def echo(args, progress, stream):
            return {"args": args}

        async with control.serve(path, {"echo": echo}):
            path.chmod(0o666)
            refused = await asyncio.to_thread(ask_as, 65534, path)
            answered = await asyncio.to_thread(ask_as, 0, path)
    assert b"user 65534 may not command this daemon" in refused
    assert b'{"result":{"args":{}}}' in answered


async def test_the_client_refuses_a_socket_that_somebody_else_opened(home, monkeypatch):
    real = client._UCRED
    monkeypatch.setattr(
        client, "_UCRED", type("Ucred", (), {"size": real.size, "unpack": lambda *_: (1, 7, 7)})()
    )
    with pytest.raises(NotPermitted, match="in the place of"):
        await call(home, "echo")


async def test_an_upload_arrives_whole_and_its_progress_adds_up(home, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(os.urandom(3_000_000))
    sent: list[int] = []
    stored = await asyncio.to_thread(
        client.put_blob, home, file, "sha256:00", 3_000_000, sent.append
    )
    assert stored
    assert sum(sent) == 3_000_000


async def test_a_blob_that_is_there_already_is_not_sent(home, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"x" * 100)
    assert not await asyncio.to_thread(client.put_blob, home, file, "known", 100, lambda n: None)


async def test_a_refusal_in_the_middle_of_an_upload_reaches_the_sender(home, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(bytes(20_000_000))
    with pytest.raises(TooLarge, match="disk is full"):
        await asyncio.to_thread(client.put_blob, home, file, "refused", 20_000_000, lambda n: None)


async def test_a_second_daemon_does_not_take_over_a_living_socket(home):
    with pytest.raises(Conflict):
        async with control.serve(home / "control.sock", VERBS):
            pass
    assert await call(home, "echo") == {"args": {}}


async def test_a_socket_left_by_a_killed_daemon_is_replaced(tmp_path):
    path = tmp_path / "control.sock"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as left_behind:
        left_behind.bind(str(path))
    async with control.serve(path, VERBS):
        assert await call(tmp_path, "echo") == {"args": {}}
    assert not path.exists()


async def test_a_home_with_a_long_path_is_found_too(tmp_path):
    home = tmp_path / ("a" * 60) / ("b" * 60)
    home.mkdir(parents=True)
    path = control_path(home)
    async with control.serve(path, VERBS):
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert await call(home, "echo") == {"args": {}}
    path.parent.rmdir()


async def test_no_daemon_is_said_with_the_command_that_starts_it(tmp_path):
    (tmp_path / "hanse.toml").write_text("")
    with pytest.raises(client.DaemonDown, match="hanse daemon run"):
        await call(tmp_path, "echo")


async def test_stopping_ends_the_requests_that_are_being_answered(tmp_path):
    started = asyncio.Event()

    async def forever(args, progress, stream):
        started.set()
        await asyncio.Event().wait()

    async with control.serve(tmp_path / "control.sock", {"forever": forever}):
        asked = asyncio.create_task(call(tmp_path, "forever"))
        await started.wait()
    with pytest.raises(client.NoAnswer):
        await asked
