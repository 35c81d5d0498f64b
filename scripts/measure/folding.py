"""How much of a release lies on a disk that holds the one before, and what reading it costs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from hanse.core.ids import Digest
from hanse.core.limits import BLOB_CHUNK_BYTES
from hanse.storage.folded import FoldedBlobs
from measure.pairs import Pair, pairs
from measure.table import markdown


def run() -> str:
    rows = []
    for pair in pairs():
        rows.append(_row(pair))
        print(*rows[-1], sep=" | ", flush=True)
    header = (
        "A and B", "B, MB", "kept of B, MB", "**saved**", "fold s", "unfold s",
        "whole MB/s", "folded MB/s",
    )  # fmt: skip
    return (
        "### Room on the disk\n\n"
        "A daemon that holds A keeps of B its payloads alone, if that saves a tenth and 1 MiB; "
        "else B stays whole. *Kept* leaves out the list of places, some 100 bytes a part. *Fold*: "
        "CPU time of one thread for splitting both, packing, syncing and reading back. *Whole* and "
        "*folded*: B read by ranges of 1 MiB, as it is served, from the page cache. B is compared "
        "after each.\n\n" + markdown(header, rows)
    )


def _row(pair: Pair) -> list[str]:
    size = len(pair.new)
    with tempfile.TemporaryDirectory(prefix="hanse-folding-") as folder:
        store = FoldedBlobs(Path(folder))
        older, newer = _put(store, pair.old), _put(store, pair.new)
        whole_s = _read(store, newer, pair.new)
        start = time.process_time()
        saved = store.fold(newer, older)
        fold_s = time.process_time() - start
        shown = [pair.name, f"{size / 1e6:.1f}", f"{(size - saved) / 1e6:.2f}"]
        if not saved:
            rest = ["whole", f"{fold_s:.2f}", "–", f"{size / whole_s / 1e6:.0f}", "–"]
            return shown + rest
        folded_s = _read(store, newer, pair.new)
        start = time.process_time()
        store.unfold(newer)
        unfold_s = time.process_time() - start
        _read(store, newer, pair.new)
    return [
        *shown,
        f"**{saved / size:.1%}**",
        f"{fold_s:.2f}",
        f"{unfold_s:.2f}",
        f"{size / whole_s / 1e6:.0f}",
        f"{size / folded_s / 1e6:.0f}",
    ]


def _put(store: FoldedBlobs, raw: bytes) -> Digest:
    with store.writer(len(raw)) as writer:
        for at in range(0, len(raw), BLOB_CHUNK_BYTES):
            writer.write(raw[at : at + BLOB_CHUNK_BYTES])
        writer.commit()
    return Digest.of(raw)


def _read(store: FoldedBlobs, digest: Digest, raw: bytes) -> float:
    start = time.perf_counter()
    steps = range(0, len(raw), BLOB_CHUNK_BYTES)
    pieces = [store.read_range(digest, at, BLOB_CHUNK_BYTES) for at in steps]
    took = time.perf_counter() - start
    assert b"".join(pieces) == raw
    return took
