"""Tries a release on labelled data that no training saw, beside the one that it shall replace.

    python -m hanse.edge.heldout CHILD PARENT HELDOUT.npz

CHILD and PARENT are folders with the files of a release and `manifest.json`. The archive holds
`in.<name>` for every input, one row an example, and `label`. It runs in a process of its own,
because only the edge knows onnxruntime, and confined; the answer is one line of JSON:

    {"golden": true, "rows": 719, "right": 702, "right_before": 518, "lost": 9}

`lost` counts the examples that only the older one gets right. Nothing is decided here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from hanse.artefacts import confinement, npz
from hanse.core.catalog.manifest import parse_manifest
from hanse.core.errors import HanseError, Rejected
from hanse.edge.inference import LoadedModel, load, selftest
from hanse.edge.outcomes import Array

ROWS_MAX = 20_000
HELDOUT_BYTES_MAX = 1024**3
MEMORY_BYTES_BASE = 4 * 1024**3
CPU_S = 600
PREFIX, LABEL = "in.", "label"


def tried(child: Path, parent: Path, heldout: Path) -> dict[str, int | bool]:
    """Raises `Rejected` naming what cannot be loaded, compared or read."""
    manifest = parse_manifest((child / "manifest.json").read_bytes())
    younger = load(child, manifest)
    if manifest.golden:
        selftest(younger, child, manifest.golden)
    older = load(parent, parse_manifest((parent / "manifest.json").read_bytes()))
    inputs, labels = _read(heldout)
    now, before = _right(younger, inputs, labels), _right(older, inputs, labels)
    return {
        "golden": manifest.golden is not None,
        "rows": len(labels),
        "right": sum(now),
        "right_before": sum(before),
        "lost": sum(b and not n for n, b in zip(now, before, strict=True)),
    }


def _right(model: LoadedModel, inputs: dict[str, Array], labels: list[str]) -> list[bool]:
    """Example by example, as answers are compared with labels on a node."""
    compare = model.comparator
    if compare is None:
        raise Rejected("the release declares no outcome, so its answers cannot be compared")
    found = []
    for row, label in enumerate(labels):
        feeds = {name: array[row : row + 1] for name, array in inputs.items()}
        model.check(feeds)
        try:
            said = compare.read(model.run(feeds))
            found.append(compare.agrees(compare.truth(label), said))
        except (HanseError, ValueError, IndexError):
            found.append(False)  # no answer is a wrong one
    return found


def _read(path: Path) -> tuple[dict[str, Array], list[str]]:
    try:
        with path.open("rb") as file:
            arrays = npz.read(file, path.name, bytes_max=HELDOUT_BYTES_MAX)
    except OSError as error:
        raise Rejected(f"{path.name} cannot be read: {error}") from None
    labels = [str(each) for each in arrays.pop(LABEL, np.empty(0)).ravel().tolist()][:ROWS_MAX]
    inputs = {name.removeprefix(PREFIX): array for name, array in arrays.items()}
    if not labels or any(len(array) < len(labels) for array in inputs.values()):
        raise Rejected(
            f"{path.name} needs `{LABEL}` and, for every input, `{PREFIX}<name>` with as many rows"
        )
    return inputs, labels


def give_up(*needed: Path) -> None:
    """All but reading these, and our own code: the model is not ours, and it is about to run."""
    files = [path for path in needed if path.is_file()]
    files += [each for path in needed if path.is_dir() for each in (path, *path.iterdir())]
    size = sum(path.stat().st_size for path in files)
    confinement.bound(memory=MEMORY_BYTES_BASE + 8 * size, cpu_s=CPU_S)
    code = (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1])
    confinement.confine([*(path.resolve() for path in files), *code])


def main() -> int:
    paths = [Path(path) for path in sys.argv[1:4]]
    try:
        give_up(*paths)
        found = tried(*paths)
    except HanseError as error:
        sys.stdout.write(json.dumps({"refused": str(error)[:400]}) + "\n")
        return 1
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
