"""One large file from a daemon to a node, against a bare gRPC stream and against nginx."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import onnx
from onnx import TensorProto, helper
from tour.federation import HANSE, free_ports

from hanse.cli import client
from hanse.core.errors import HanseError
from measure.table import markdown, spread
from measure.taker import resident

SIZE = 10**9
ROUNDS = int(os.environ.get("HANSE_BENCH_ROUNDS", "5"))
MODEL, WEIGHTS = "big", "weights.data"
BAR, GREW_BAR_MIB = 0.9, 64
NGINX = """
user root; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 64; }}
http {{ access_log off; sendfile on; client_body_temp_path {folder}/t; proxy_temp_path {folder}/t;
  fastcgi_temp_path {folder}/t; uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
  server {{ listen 127.0.0.1:{port}; root {root}; }} }}
"""


class Taken(NamedTuple):
    seconds: float
    grew_mib: float = 0.0
    cpu_s: float = 0.0
    given_cpu_s: float = 0.0


def run() -> str:
    with tempfile.TemporaryDirectory(prefix="hanse-bench-") as folder:
        return _measured(Path(folder))


def _measured(folder: Path) -> str:
    model = _model(folder / "model")
    home, node = folder / "daemon", folder / "node"
    port, web_port = free_ports(2)
    address = f"127.0.0.1:{port}"
    _done("daemon", "init", "--federation", "bench", "--region", "here", "--home", home,
          "--listen", address)  # fmt: skip
    _done("agent", "enroll", "--via", home, "--node", "n1", "--home", node)
    with _running([str(HANSE), "daemon", "run", "--home", str(home)]) as daemon:
        _until_it_answers(home)
        _done("release", "publish", model, "-n", MODEL, "-v", "1.0.0", "--home", home)
        shown = client.call(home, "release.show", model=MODEL, version="1.0.0")
        file = next(f for f in json.loads(shown["manifest"])["files"] if f["name"] == WEIGHTS)
        size, sha256 = str(file["size"]), file["digest"].removeprefix("sha256:")
        with (
            _running(_taker("give", home, model / WEIGHTS), out=True) as giver,
            _nginx(folder, model, web_port) as web,
        ):
            assert giver.stdout is not None
            bare_port = giver.stdout.readline().decode().strip()
            hanse = _taker("hanse", node, address, size, sha256, shown["release"])
            parts = _taker("parts", node, address, size, sha256, shown["release"])
            bare = _taker("bare", node, bare_port, size, sha256)
            ways: dict[str, Callable[[], Taken]] = {
                "bare": lambda: _taken(bare, giver.pid),
                "hanse": lambda: _taken(hanse, daemon.pid),
                "parts": lambda: _taken(parts, daemon.pid),
            }
            if web:
                url = f"http://127.0.0.1:{web_port}/{WEIGHTS}"
                ways["nginx"] = lambda: _curled(url, folder)
            found: dict[str, list[Taken]] = {name: [] for name in ways}
            with _watching(daemon.pid) as grew:
                for number in range(ROUNDS + 1):
                    for name, way in ways.items():
                        result = way()
                        if number:  # the first round warms the caches of the disk
                            found[name].append(result)
    return _table(found, grew[0], int(size))


def _model(folder: Path) -> Path:
    """A model with its weights beside it: random numbers, of which nothing can be compressed."""
    folder.mkdir()
    weights = onnx.TensorProto(name="w", data_type=1, dims=[SIZE // 4])
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=WEIGHTS)
    asked = helper.make_tensor_value_info("i", TensorProto.INT64, [None])
    found = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])
    node = helper.make_node("Gather", ["w", "i"], ["y"])
    graph = helper.make_graph([node], "g", [asked], [found], [weights])
    opsets = [helper.make_opsetid("", 17)]
    (folder / "model.onnx").write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    with (folder / WEIGHTS).open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(SIZE // 100))
    return folder


def _taken(command: list[str], giver: int) -> Taken:
    before = _cpu_s(giver)
    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return Taken(said["seconds"], said["grew"] / 2**20, said["cpu"], _cpu_s(giver) - before)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _curled(url: str, folder: Path) -> Taken:
    """To the disk and to a digest, as a person would: in one pass of each byte."""
    to = folder / "curled"
    begin = time.perf_counter()
    line = f"set -o pipefail; curl -sf {url} | tee {to} | openssl sha256 && sync {to}"
    subprocess.run(["bash", "-c", line], check=True, capture_output=True)
    seconds = time.perf_counter() - begin
    to.unlink()
    return Taken(seconds)


def _table(found: dict[str, list[Taken]], grew: float, size: int) -> str:
    names = {
        "bare": "bare grpc.aio stream, mutual TLS",
        "hanse": "Hanse: daemon to node, as a stream",
        "parts": "Hanse: daemon to node, by parts",
        "nginx": "nginx, plain HTTP, `curl \\| tee \\| openssl sha256`, sync",
    }
    bare = median(taken.seconds for taken in found["bare"])
    rows = []
    for name, results in found.items():
        middle = median(taken.seconds for taken in results)
        row = [names[name], spread([size / t.seconds / 1e6 for t in results])]
        row.append(f"{bare / middle:.2f}")
        if name == "nginx":
            row += ["–", "–", "–"]
        else:
            row.append(f"{median(taken.given_cpu_s for taken in results):.2f}")
            row.append(f"{median(taken.cpu_s for taken in results):.2f}")
            row.append(f"{max(taken.grew_mib for taken in results):.0f}")
        rows.append(row)
    header = ["way", "MB/s", "of bare", "giver's CPU, s", "taker's CPU, s", "taker grew by, MiB"]
    nginx = "" if "nginx" in found else " nginx is not installed here, and so not in the table."
    return (
        f"### Transfer\n\n{size / 1e9:.2f} GB from a daemon's process to a node's over mutual "
        f"TLS: hashed, written, fsynced, compared, renamed. Medians of {ROUNDS} rounds, one after "
        f"the other in turns; the bar is {BAR} of bare, and {GREW_BAR_MIB} MiB. The daemon grew by "
        f"{grew / 2**20:.0f} MiB in all rounds.{nginx} Where the time goes: the CPU of "
        f"giver and taker (TLS at both ends, SHA-256, gRPC), who share the cores of this machine; "
        f"the fsync takes about a quarter of a second.\n\n" + markdown(header, rows)
    )


# -- processes -----------------------------------------------------------------


def _done(*words: object) -> None:
    ran = subprocess.run(
        [str(HANSE), *map(str, words)], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise SystemExit(f"hanse {words[:2]}: {ran.stderr}")


def _taker(*words: object) -> list[str]:
    return [sys.executable, "-m", "measure.taker", *map(str, words)]


def _until_it_answers(home: Path) -> None:
    for _ in range(300):
        try:
            if client.call(home, "status")["daemon"]["phase"] == "writing":
                return
        except HanseError:
            pass
        time.sleep(0.1)
    raise SystemExit("the daemon does not answer")


@contextmanager
def _running(command: list[str], *, out: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE if out else subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=pipe, stderr=None if out else subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _nginx(folder: Path, root: Path, port: int) -> Iterator[bool]:
    if shutil.which("nginx") is None:
        yield False
        return
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, root=root, port=port))
    with _running(["nginx", "-p", str(folder), "-c", str(config)]):
        time.sleep(1)
        yield True


@contextmanager
def _watching(pid: int) -> Iterator[list[float]]:
    """By how much a process grows meanwhile."""
    before, most, over = resident(pid), [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            most[0] = max(most[0], float(resident(pid) - before))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()
