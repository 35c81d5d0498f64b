"""Real readers on real slices: does the shipped test say of v4 what is known about it?

Two releases of one text reader read the same rendered lines, as a shadow does, and each pair is
one step of the paired test with margin 1. What is known comes from the fixed-sample McNemar test
of the same pairs, 250 a slice, two-sided at .05; the test here may be looked at after every line
and never says "worse" or "better" of equal readers more often than ALPHA, so it needs more lines
for small differences, and calls what it cannot tell by then undecided.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import onnxruntime as ort
from tour import decode, material, render

from hanse.core.evidence.ratio import Arms, RatioProcess
from measure.table import markdown

SEED, ALPHA, LINES_MAX = 23, 0.025, 800
WORKERS = 2
BETTER: Final = (
    ("Sans", "noise"),
    ("Sans", "jpeg"),
    ("Mono", "noise"),
    ("Mono", "jpeg"),
    ("Serif", "noise"),
    ("Serif-Bold", "noise"),
)
WORSE: Final = (
    ("Sans", "clean"),
    ("Sans", "lowres"),
    ("Mono", "clean"),
    ("Serif", "jpeg"),
    ("Serif", "blur"),
    ("Serif-Bold", "clean"),
    ("Serif-Bold", "lowres"),
    ("Serif-Bold", "jpeg"),
)
Slice = tuple[material.FontName, render.Degradation]
Found = tuple[str, int, int, int]
"""The verdict, the lines it took, and how many of them only v3 and only v4 read."""


def run() -> str:
    material.fetch_all()
    slices = [(font, degradation) for font in render.FONTS for degradation in render.DEGRADATIONS]
    with ProcessPoolExecutor(WORKERS) as pool:
        found = dict(zip(slices, pool.map(decided, slices), strict=True))
    rows, wrong, undecided = [], 0, 0
    for of, (verdict, lines, broken, mended) in found.items():
        known = "better" if of in BETTER else "worse" if of in WORSE else "inconclusive"
        wrong += {verdict, known} == {"better", "worse"}
        undecided += known != "inconclusive" and verdict == "inconclusive"
        rows.append([" ".join(of), known, verdict, str(lines), str(broken), str(mended)])
    header = ["slice", "known, 250 lines", "this test", "after lines", "only v3 reads"]
    return (
        f"### Verdicts on real readers\n\nPP-OCR v3 against v4, seed {SEED}, at most {LINES_MAX} "
        f"lines a slice, each direction at {ALPHA}. Contradicted: {wrong}. Known to differ and "
        f"still undecided: {undecided}.\n\n" + markdown([*header, "only v4 reads"], rows)
    )


def decided(of: Slice) -> Found:
    """Read line by line until one direction is shown."""
    worse = better = RatioProcess(1.0)
    broken = mended = 0
    for count, (old, new) in enumerate(_pairs(*of), start=1):
        broken, mended = broken + (old > new), mended + (new > old)
        worse = worse.observe(Arms(int(old > new), int(new > old), 1, 1))
        better = better.observe(Arms(int(new > old), int(old > new), 1, 1))
        for verdict, shown in (("worse", worse), ("better", better)):
            if shown.rejects(ALPHA):
                return verdict, count, broken, mended
    return "inconclusive", LINES_MAX, broken, mended


def _pairs(font: material.FontName, degradation: render.Degradation) -> Iterator[tuple[bool, bool]]:
    """Whether v3 reads the line, and whether v4 does."""
    readers = [_reader("v3"), _reader("v4")]
    for line in render.lines(SEED, font, degradation, LINES_MAX):
        old, new = (
            decode.same(decode.decode(r.run(None, {"x": line.tensor})[0], names), line.text)
            for r, names in readers
        )
        yield old, new


def _reader(version: material.ModelVersion) -> tuple[ort.InferenceSession, tuple[str, ...]]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(material.model(version), options)
    return session, decode.characters(session.get_modelmeta().custom_metadata_map["character"])
