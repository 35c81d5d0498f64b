"""What a release that a hook brought has to stand before anybody rolls it out.

Its golden inputs, and labelled data of this region that no training saw: it must be right as
often as the release that it answers at least, and as often as the operator asks. That is no
proof, only a reason to begin a rollout, which proves it on what users really send.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hanse.artefacts import confinement
from hanse.core.catalog.manifest import Manifest
from hanse.core.errors import Rejected, Unavailable
from hanse.daemon.healing_file import Heals
from hanse.storage.blobs import Blobs

CHECK_S = 600.0
ANSWER_BYTES_MAX = 4096


async def check(child: Manifest, parent: Manifest, heals: Heals, blobs: Blobs) -> str:
    """What was found, in a sentence. Raises `Rejected` if it does not stand."""
    if heals.heldout is None:
        if child.golden is None:
            raise Rejected("it has no golden inputs, and no held-out data are declared")
        return "every node runs its golden inputs; no held-out data are declared"
    with TemporaryDirectory(prefix="hanse-check-") as scratch, ExitStack() as kept:
        younger, older = Path(scratch) / "child", Path(scratch) / "parent"
        await asyncio.to_thread(_lay_out, younger, child, blobs, kept)
        await asyncio.to_thread(_lay_out, older, parent, blobs, kept)
        found = await _tried(younger, older, heals.heldout)
    if "refused" in found:
        raise Rejected(str(found["refused"]))
    return _judged(found, heals.heldout_min)


def _judged(found: dict[str, Any], least: float) -> str:
    rows, right, before = found["rows"], found["right"], found["right_before"]
    said = f"right in {right} of {rows} held-out examples, the release before in {before}"
    if right < before:
        raise Rejected(f"it is {said}")
    if right < least * rows:
        raise Rejected(f"it is {said}; at least {least:.0%} are asked for")
    return f"{said}{'; golden inputs as signed' if found['golden'] else ''}"


def _lay_out(folder: Path, manifest: Manifest, blobs: Blobs, kept: ExitStack) -> None:
    """The files are there until `kept` is left."""
    folder.mkdir()
    for file in manifest.files:
        path = kept.enter_context(blobs.laid_out(file.digest))
        (folder / file.name).symlink_to(path.absolute())
    (folder / "manifest.json").write_bytes(manifest.encode())


async def _tried(child: Path, parent: Path, heldout: Path) -> dict[str, Any]:
    """Raises `Unavailable` if the check itself does not run: that says nothing of the release."""
    process = await asyncio.create_subprocess_exec(
        *(*confinement.PYTHON, "-m", "hanse.edge.heldout"),
        *map(str, (child, parent, heldout)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=confinement.environment(),
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(CHECK_S):
            raw = await process.stdout.read(ANSWER_BYTES_MAX)
            await process.wait()
    except TimeoutError:
        raise Unavailable(f"the checks took longer than {CHECK_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unavailable("the checks cannot run here", fix="install hanse[edge] beside the daemon")
    return found
