"""The kill switch of one machine: a file that a person leaves, obeyed within a second.

It needs neither the daemon nor a network. The release is denied on this node for its rollout's
generation, also after a restart; the region sees the reason in the node's report. For a whole
region there is `hanse rollout abort`: one hop, and each node stores what it heard.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from hanse.core.errors import InvalidName
from hanse.core.ids import Digest, Segment, segment
from hanse.core.reading import canonical_json
from hanse.edge.status import replace_file

FOLDER = "off"
_BYTES_MAX = 4096


def leave(state: Path, model: str, release: str, reason: str) -> None:
    """Ask the agent of this state folder to leave a release. Raises `Broken` if it cannot."""
    folder = state / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    raw = canonical_json({"release": str(Digest.parse(release)), "reason": reason})
    replace_file(folder / f"{segment(model)}.json", raw, durable=True)


def left(state: Path) -> Iterator[tuple[Path, Segment, Digest, str]]:
    """What people have left: the file, the model, the release, why. What is no such is skipped."""
    for path in sorted((state / FOLDER).glob("*.json")):
        try:
            if path.stat().st_size <= _BYTES_MAX:
                said = json.loads(path.read_bytes())
                yield path, segment(path.stem), Digest.parse(said["release"]), str(said["reason"])
        except (OSError, ValueError, KeyError, TypeError, InvalidName):
            continue
