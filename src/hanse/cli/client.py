"""Talks to a daemon over its control socket; plain sockets and JSON, so that it starts fast.

The other end is checked too: a socket that somebody else opened under that name would be
sent our plans and model files.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from hanse.core.errors import Broken, NotPermitted, Unavailable
from hanse.core.limits import BLOB_CHUNK_BYTES, CONTROL_LINE_BYTES_MAX
from hanse.daemon.error_codes import DAEMON_DOWN, NO_ANSWER, from_mapping

ANSWER_S = 30.0
LINE_BYTES_MAX = 64 * CONTROL_LINE_BYTES_MAX  # of an answer, and of bytes that follow one
_SAME_VERSION = "run the same version of hanse as it"
_UCRED = struct.Struct("3i")


class DaemonDown(Unavailable):
    """Nobody answers on the control socket."""

    code = DAEMON_DOWN


class NoAnswer(Unavailable):
    """The daemon took the request and went silent."""

    code = NO_ANSWER


def call(home: Path, verb: str, **args: Any) -> Any:
    """Ask and wait for the result. Raises what the daemon raised, `DaemonDown` or `NoAnswer`."""
    return result(stream(home, verb, **args))


def stream(home: Path, verb: str, **args: Any) -> Generator[dict[str, Any], None, Any]:
    """Yields each progress mapping; the generator's return value is the result."""
    with _connected(home) as connection:
        _say(connection, verb, args)
        return (yield from _answers(connection))


def result(
    answers: Generator[dict[str, Any], None, Any],
    heard: Callable[[dict[str, Any]], object] = lambda _: None,
) -> Any:
    """What a stream of answers ends with; `heard` is told each progress."""
    while True:
        try:
            heard(next(answers))
        except StopIteration as end:
            return end.value


def put_blob(
    home: Path, path: Path, digest: str, size: int, progress: Callable[[int], None]
) -> bool:
    """Send one file; False if the daemon had it already. `progress` is told bytes sent."""
    answer = send_file(home, path, "blob.put", progress, digest=digest, size=size)
    return bool(answer["stored"])


def send_file(
    home: Path, path: Path, verb: str, progress: Callable[[int], None], **args: Any
) -> dict[str, Any]:
    """Ask with a file that follows once the daemon wants it; the result."""
    with _connected(home) as connection, path.open("rb") as file:

        def heard(asked: dict[str, Any]) -> None:
            if asked.get("send"):
                # A daemon that hangs up has said why, and what it said is read next.
                with suppress(BrokenPipeError, ConnectionResetError):
                    _send_file(connection, file, progress)

        _say(connection, verb, args)
        return dict(result(_answers(connection), heard))


def is_running(home: Path) -> bool:
    try:
        with _connected(home):
            return True
    except DaemonDown:
        return False


def socket_path(home: Path) -> Path:
    """Where that home's daemon listens; `hanse.toml` is read only if it is not the usual place."""
    usual = home.absolute() / "control.sock"
    if usual.exists():
        return usual
    import tomllib

    from hanse.daemon.config import FILE_NAME, control_path

    try:
        configured = tomllib.loads((home / FILE_NAME).read_text()).get("control_socket", "")
    except (OSError, ValueError):
        configured = ""
    return control_path(home, str(configured))


@contextmanager
def _connected(home: Path) -> Iterator[socket.socket]:
    path = socket_path(home)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(str(path))
        except OSError as error:
            raise _down(home, path, error) from None
        _check_server(connection, home)
        yield connection


def _down(home: Path, path: Path, error: OSError) -> Unavailable | NotPermitted:
    if isinstance(error, PermissionError):
        return NotPermitted(
            f"{path} may not be opened by this user", fix="run as the daemon's user, or as root"
        )
    if not (home / "hanse.toml").exists():
        return DaemonDown(
            f"there is no daemon in {home}",
            fix="name its folder with --home or HANSE_HOME, or make one with hanse daemon init",
        )
    return DaemonDown(
        f"the daemon of {home} is not running", fix=f"start it with: hanse daemon run --home {home}"
    )


def _check_server(connection: socket.socket, home: Path) -> None:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(raw)
    if uid not in (0, os.geteuid(), home.stat().st_uid):
        raise NotPermitted(
            f"user {uid} answers in the place of this daemon", fix="find out who opened the socket"
        )


def _say(connection: socket.socket, verb: str, args: dict[str, Any]) -> None:
    line = json.dumps({"verb": verb, **args}).encode() + b"\n"
    # A daemon that refuses us hangs up before it has read this, and has said why.
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(line)


def _answers(connection: socket.socket) -> Generator[dict[str, Any], None, Any]:
    with connection.makefile("rb") as stream:
        while True:
            line = _received(stream.readline, LINE_BYTES_MAX, b"\n")
            if not line.endswith(b"\n"):
                raise Broken("the daemon's answer has no end", fix=_SAME_VERSION)
            answer = json.loads(line)
            if "progress" in answer:
                yield _with_data(answer["progress"], stream)
            elif "error" in answer:
                error = answer["error"]
                raise from_mapping(error["kind"], error["message"], error["fix"])
            elif "result" in answer:
                return answer["result"]
            else:
                raise Broken("the daemon's answer makes no sense", fix=_SAME_VERSION)


def _with_data(progress: dict[str, Any], stream: BinaryIO) -> dict[str, Any]:
    """`data` is the number of bytes that follow; whoever asked is given them in its place."""
    count = progress.get("data")
    if count is None:
        return progress
    if type(count) is not int or not 0 <= count <= LINE_BYTES_MAX:
        raise Broken("the daemon's answer makes no sense", fix=_SAME_VERSION)
    return {**progress, "data": _received(stream.read, count)}


def _received(read: Callable[[int], bytes], count: int, end: bytes = b"") -> bytes:
    """So many bytes, or up to `end`. Raises `NoAnswer` if fewer come."""
    try:
        found = read(count)
    except (TimeoutError, ConnectionError):
        found = b""
    if len(found) < count and not (end and found.endswith(end)):
        raise NoAnswer(
            "the daemon did not answer; what was asked may or may not have been done",
            fix="look with hanse status, and into the daemon's log, before you try again",
        )
    return found


def _send_file(connection: socket.socket, file: BinaryIO, progress: Callable[[int], None]) -> None:
    while chunk := file.read(BLOB_CHUNK_BYTES):
        connection.sendall(chunk)
        progress(len(chunk))
