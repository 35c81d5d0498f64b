"""What the files of a release are, need and promise, read in a process that may fail alone.

    python -m hanse.daemon.inspection      reads one JSON object, prints another

Model files are untrusted input for large parsers, so a child reads them: within bounds on memory,
processor and wall time (L25), and confined. It opens the files that it is to read, imports what it
needs, and from then on can open nothing more and speak to nobody. What is looked for stands in
`onnx_file` and in `artefacts`.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from hanse.artefacts import confinement
from hanse.artefacts.content import check_content
from hanse.core.catalog.manifest import Tensor
from hanse.core.errors import InvalidSpec, NotFound, Rejected, TooLarge, Unavailable
from hanse.daemon.onnx_file import PROTOBUF_BYTES_MAX, Inspection, examine

MEMORY_BYTES_BASE = 2 * 1024**3
CPU_S = 60
WALL_S = 90.0
ANSWER_BYTES_MAX = 1024 * 1024
ONNX = "onnx"


def inspect_files(
    files: Mapping[str, Path], roles: Mapping[str, str], *, wall_s: float = WALL_S
) -> dict[str, Inspection]:
    """Inspect files by name; the answer has an entry for every one whose role is `onnx`.

    `roles` says what is more than data beside a model: see `artefacts.content`. Raises
    `InvalidSpec` saying what is wrong with which file, `NotFound`, `TooLarge`, or `Unavailable`
    where the onnx package is not installed.
    """
    paths = {name: str(path.absolute()) for name, path in files.items()}
    said = json.dumps({"files": paths, "roles": dict(roles)}).encode()
    command = [*confinement.PYTHON, "-m", "hanse.daemon.inspection"]
    names = ", ".join(sorted(roles) or sorted(files))[:200]
    try:
        done = subprocess.run(  # noqa: S603  # our own module, by its full path
            command,
            input=said,
            capture_output=True,
            timeout=wall_s,
            check=False,
            env=confinement.environment(),
        )
    except subprocess.TimeoutExpired:
        raise InvalidSpec(
            f"{names} could not be read within {wall_s:g} s", fix="export the model again"
        ) from None
    if done.returncode < 0 or len(done.stdout) > ANSWER_BYTES_MAX:
        raise InvalidSpec(
            f"{names} exhausts the memory or time that a model file of its size may need",
            fix="export the model again; if it is sound, report it with the file",
        )
    return _from_answer(done.stdout, names)


def main() -> int:
    asked = json.loads(sys.stdin.buffer.read())
    files, roles = asked["files"], asked["roles"]
    answer: dict[str, Any]
    try:
        with ExitStack() as stack:
            opened = {name: stack.enter_context(_opened(name, files[name])) for name in files}
            _give_up(files.values(), set(roles.values()))
            answer = {"inspections": _inspected(opened, roles)}
    except Rejected as error:
        kind = type(error).__name__
        answer = {"refused": {"kind": kind, "message": error.message, "fix": error.fix}}
    except MemoryError:
        names = ", ".join(roles)[:200]
        answer = _refused(f"{names} needs more memory than a file of its size may need")
    except ImportError:
        answer = {"missing": "onnx"}
    sys.stdout.write(json.dumps(answer))
    return 0 if "inspections" in answer else 1


def _give_up(paths: Iterable[str], roles: Collection[str]) -> None:
    """Once the files are open: all that reading them does not need."""
    largest = max((Path(path).stat().st_size for path in paths), default=0)
    memory = MEMORY_BYTES_BASE + 4 * min(largest, PROTOBUF_BYTES_MAX)
    confinement.bound(memory=memory, cpu_s=CPU_S)
    if ONNX in roles:
        import onnx  # noqa: F401  # it opens files of its own, now or never
    "".encode("cp437")  # the same goes for the characters of names in archives
    confinement.confine()


def _inspected(opened: Mapping[str, BinaryIO], roles: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for name, file in opened.items():
        if roles.get(name) == ONNX:
            found[name] = asdict(examine(file, name))
        check_content(name, file, roles.get(name, ""))
    return found


def _opened(name: str, path: str) -> BinaryIO:
    try:
        file = Path(path).open("rb")  # noqa: SIM115  # its caller closes it
    except OSError:
        raise NotFound(f"there is no file {path}", fix="check the path") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise InvalidSpec(f"{name} is not a plain file", fix="name the model's own file")
    return file


def _refused(message: str) -> dict[str, Any]:
    return {"refused": {"kind": "InvalidSpec", "message": message, "fix": "export it again"}}


def _from_answer(raw: bytes, names: str) -> dict[str, Inspection]:
    try:
        answer = json.loads(raw)
    except ValueError:
        raise InvalidSpec(f"{names} could not be read", fix="export the model again") from None
    if "missing" in answer:
        raise Unavailable(
            "ONNX files cannot be inspected: the onnx package is not installed",
            fix="install hanse[daemon]",
        )
    if "refused" in answer:
        refused = answer["refused"]
        kinds = {"NotFound": NotFound, "TooLarge": TooLarge}
        raise kinds.get(refused["kind"], InvalidSpec)(refused["message"], fix=refused["fix"])
    return {name: _inspection(found) for name, found in answer["inspections"].items()}


def _inspection(found: dict[str, Any]) -> Inspection:
    return Inspection(
        ir_version=found["ir_version"],
        opsets=found["opsets"],
        inputs=_tensors_of(found["inputs"]),
        outputs=_tensors_of(found["outputs"]),
        external=found["external"],
    )


def _tensors_of(found: Iterable[dict[str, Any]]) -> tuple[Tensor, ...]:
    return tuple(Tensor(t["name"], t["datatype"], tuple(t["shape"])) for t in found)


if __name__ == "__main__":
    sys.exit(main())
