"""Buckets to test with: in memory, in a folder, and S3 as other people's servers speak it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from obstore.store import MemoryStore
from tour.federation import free_ports
from werkzeug.serving import WSGIRequestHandler, make_server

from hanse.core.ids import MemberId
from hanse.storage.bucket import BucketBlobs
from hanse.storage.objects import Bucket, Place, open_bucket

MEMBERS = [MemberId(letter * 32) for letter in "abcd"]
OWNER = "hanse-test/eu"


def memory_bucket() -> Bucket:
    return Bucket(MemoryStore(), "memory")


def folder_bucket(folder: Path) -> Bucket:
    return open_bucket(Place(f"file://{folder}"))


def blobs_in(bucket: Bucket, folder: Path, member: int = 0, **more: int) -> BucketBlobs:
    """The store of one daemon, as after its start."""
    more = {"cache_bytes": 2**30, **more}
    store = BucketBlobs(folder, bucket, MEMBERS[member], owner=OWNER, **more)
    store.sweep_temporaries()
    return store


def rot(bucket: Bucket, key: str, position: int) -> None:
    """Flip a bit of an object at rest."""
    folder = key.rpartition("/")[0]
    size = next(each.size for each in bucket.find(folder) if each.key == key)
    raw = bytearray(bucket.read(key, 0, size))
    raw[position] ^= 1
    bucket.put(key, bytes(raw))


@dataclass(frozen=True)
class S3Server:
    """Speaks S3 at `endpoint`; the user may do everything."""

    endpoint: str
    user: str = "testkey"
    secret: str = "testsecret"
    front: Front | None = None

    def place(self, folder: Path, secret: str = "") -> Place:
        """A bucket of its own, and the file with the credentials for it."""
        file = folder / "credentials"
        file.write_text(
            f"access_key_id = {self.user}\nsecret_access_key = {secret or self.secret}\n"
        )
        name = f"hanse-{secrets.token_hex(6)}"
        self.make(name)
        return Place(f"s3://{name}/blobs", self.endpoint, file, {"region": "us-east-1"})

    def make(self, name: str) -> None:
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.user,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=name)


class Front:
    """In front of moto: notes what is asked for, and fails as it is told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.faults: list[str] = []  # a status, or "cut": for the requests that come
        self._behind = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.seen.append(
            f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        )
        match self.faults.pop(0) if self.faults else "":
            case "429" | "500" | "503" as code:
                start(f"{code} Not Now", [("Content-Length", "0")])
                return [b""]
            case "cut":
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                return [b""]
        return self._behind(environ, start)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """A server in the tests' own process: it stores in memory, and believes everybody."""
    front = Front()
    server = make_server("127.0.0.1", 0, front, threaded=True, request_handler=_Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield S3Server(f"http://127.0.0.1:{server.server_port}", front=front)
    server.shutdown()
    thread.join()


class _Silent(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Hundreds a test."""


CEPH = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Ceph's own gateway over one monitor and one store in memory, as Debian packages them."""
    if missing := [name for name in CEPH if shutil.which(name) is None]:
        pytest.skip(f"{missing[0]} is not installed: apt-get install ceph-mon ceph-osd radosgw")
    for _ in range(3):  # somebody else may take a port first
        folder = tmp_path_factory.mktemp("ceph")
        monitor, gateway = free_ports(2)
        command = ["bash", Path(__file__).with_name("start_ceph.sh"), folder]
        with (folder / "start.log").open("wb") as log:
            started = subprocess.run(
                [*command, str(monitor), str(gateway)],
                check=False,
                stdout=log,
                stderr=log,
                timeout=120,
            )
        if started.returncode == 0:
            break
        _kill_all(folder)
    else:
        raise AssertionError((folder / "start.log").read_text()[-2000:])
    yield S3Server(f"http://127.0.0.1:{gateway}")
    _kill_all(folder)


def _kill_all(folder: Path) -> None:
    for pid in (folder / "run").glob("*.pid"):
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.kill(int(pid.read_text()), signal.SIGKILL)
