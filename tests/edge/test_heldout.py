"""A release is tried on labelled data that no training saw, beside the one before it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from digit_releases import Release, holdout, release

from hanse.artefacts.confinement import landlock_version
from hanse.core.errors import Rejected
from hanse.edge.heldout import tried


def laid_out(kind: str, folder: Path, golden_of: str = "") -> Release:
    made = release(kind, folder, golden_of=golden_of)
    (folder / "manifest.json").write_bytes(made.raw)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("heldout")
    laid_out("v1", made / "v1")
    laid_out("v2", made / "v2", "v2")
    laid_out("v2", made / "wrong golden", "v1")
    laid_out("swapped", made / "swapped")
    x, y = holdout()
    np.savez(made / "heldout.npz", **{"in.X": x, "label": y})
    np.savez(made / "short.npz", **{"in.X": x[:5], "label": y})
    np.savez(made / "nothing.npz", x=np.arange(3))
    np.savez(made / "pickle.npz", label=np.array([{}], dtype=object))
    return made


def test_it_counts_what_each_gets_right(folder: Path) -> None:
    found = tried(folder / "v2", folder / "swapped", folder / "heldout.npz")
    assert found["rows"] == 719
    assert found["right"] > 690
    assert found["right_before"] < 600
    assert found["golden"] is True
    assert found["lost"] < 10


@pytest.mark.parametrize(
    ("child", "data", "why"),
    [
        ("wrong golden", "heldout.npz", "golden: output"),
        ("v2", "short.npz", "with as many rows"),
        ("v2", "nothing.npz", "with as many rows"),
        ("v2", "pickle.npz", "they are pickles"),
        ("v2", "missing.npz", "cannot be read"),
    ],
)
def test_what_cannot_be_tried_is_refused(folder: Path, child: str, data: str, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        tried(folder / child, folder / "v1", folder / data)


def test_as_a_process_it_answers_in_one_line(folder: Path) -> None:
    words = [folder / "v2", folder / "v1", folder / "heldout.npz"]
    ran = subprocess.run(
        [sys.executable, "-m", "hanse.edge.heldout", *map(str, words)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(ran.stdout)["right"] > 690
    words[0] = folder / "wrong golden"
    refused = subprocess.run(
        [sys.executable, "-m", "hanse.edge.heldout", *map(str, words)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "golden" in json.loads(refused.stdout)["refused"]


@pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")
def test_the_process_that_tries_it_reads_nothing_else(folder: Path, tmp_path: Path) -> None:
    """Its files are links into a store, as a daemon lays them out; what lies beside stays shut."""
    store = tmp_path / "store"
    store.mkdir()
    for name in ("model.onnx", "secret"):
        (store / name).write_bytes((folder / "v2/model.onnx").read_bytes())
    for each in ("child", "parent"):
        (tmp_path / each).mkdir()
        (tmp_path / each / "model.onnx").symlink_to(store / "model.onnx")
        manifest = (folder / "v1/manifest.json").read_bytes()
        (tmp_path / each / "manifest.json").write_bytes(manifest)
    code = (
        "import sys; from pathlib import Path; from hanse.edge import heldout\n"
        "paths = [Path(each) for each in sys.argv[1:]]; heldout.give_up(*paths[:3])\n"
        "print(heldout.tried(*paths[:3])['rows'])\n"
        "for open_ in (paths[3].read_bytes, lambda: paths[3].write_bytes(b'')):\n"
        "    try: open_(); print('opened')\n"
        "    except OSError: print('denied')\n"
    )
    paths = [tmp_path / "child", tmp_path / "parent", folder / "heldout.npz", store / "secret"]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["719", "denied", "denied"], done.stderr
