"""What an ONNX file needs and promises, read in a process that may fail alone.

    python -m hanse.daemon.inspection FILE      prints one JSON object

A model file is untrusted input for a large parser in C++, so it is parsed by a child with
bounds on memory, processor and wall time. What is looked for there stands in `onnx_file`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hanse.core.catalog.manifest import Tensor
from hanse.core.errors import InvalidSpec, NotFound, Rejected, TooLarge, Unavailable
from hanse.daemon.onnx_file import PROTOBUF_BYTES_MAX, Inspection, examine

MEMORY_BYTES_BASE = 2 * 1024**3
CPU_S = 60
WALL_S = 90.0
ANSWER_BYTES_MAX = 1024 * 1024


def inspect(path: Path, *, wall_s: float = WALL_S) -> Inspection:
    """Inspect one file in a child process.

    Raises `InvalidSpec` saying what is wrong with it, `NotFound`, `TooLarge`, or `Unavailable`
    where the onnx package is not installed.
    """
    command = [sys.executable, "-IB", "-m", "hanse.daemon.inspection", str(path.absolute())]
    try:
        done = subprocess.run(  # noqa: S603  # our own module, by its full path
            command, capture_output=True, timeout=wall_s, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise InvalidSpec(
            f"{path.name} could not be read within {wall_s:g} s", fix="export the model again"
        ) from None
    if done.returncode < 0 or len(done.stdout) > ANSWER_BYTES_MAX:
        raise InvalidSpec(
            f"{path.name} exhausts the memory or time that a model file of its size may need",
            fix="export the model again; if it is sound, report it with the file",
        )
    return _from_answer(done.stdout, path.name)


def main(arguments: list[str]) -> int:
    path = Path(arguments[0])
    try:
        _limit_resources(path)
        answer: dict[str, Any] = {"inspection": asdict(examine(path))}
    except Rejected as error:
        kind = type(error).__name__
        answer = {"refused": {"kind": kind, "message": error.message, "fix": error.fix}}
    except MemoryError:
        answer = _refused(f"{path.name} needs more memory than a file of its size may need")
    except ImportError:
        answer = {"missing": "onnx"}
    sys.stdout.write(json.dumps(answer))
    return 0 if "inspection" in answer else 1


def _limit_resources(path: Path) -> None:
    size = path.stat().st_size if path.exists() else 0
    memory = MEMORY_BYTES_BASE + 4 * min(size, PROTOBUF_BYTES_MAX)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _refused(message: str) -> dict[str, Any]:
    return {"refused": {"kind": "InvalidSpec", "message": message, "fix": "export it again"}}


def _from_answer(raw: bytes, name: str) -> Inspection:
    try:
        answer = json.loads(raw)
    except ValueError:
        raise InvalidSpec(f"{name} could not be read", fix="export the model again") from None
    if "missing" in answer:
        raise Unavailable(
            "ONNX files cannot be inspected: the onnx package is not installed",
            fix="install hanse[daemon]",
        )
    if "refused" in answer:
        refused = answer["refused"]
        kinds = {"NotFound": NotFound, "TooLarge": TooLarge}
        raise kinds.get(refused["kind"], InvalidSpec)(refused["message"], fix=refused["fix"])
    found = answer["inspection"]
    return Inspection(
        ir_version=found["ir_version"],
        opsets=found["opsets"],
        inputs=_tensors_of(found["inputs"]),
        outputs=_tensors_of(found["outputs"]),
        metadata_keys=tuple(found["metadata_keys"]),
        external=tuple(found["external"]),
        producer=found["producer"],
    )


def _tensors_of(found: Iterable[dict[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(Tensor(t["name"], t["datatype"], tuple(t["shape"])) for t in found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
