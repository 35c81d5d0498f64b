"""No bytes break a decoder, and what one accepts keeps the promise of its format (T25, T26, T28).

`scripts/campaign fuzz` runs the same functions for longer, guided by coverage.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.decoders import DECODERS, Decoder
from fuzz.mutation import drawn, edits, mutated
from fuzz.samples import TRAPS

SEEDS = {decoder.name: tuple(decoder.seeds()) for decoder in DECODERS}
each = pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
UNMADE = ("tuf-timestamp",)  # nothing here writes one yet


@each
def test_a_decoder_reads_what_was_written_for_it(decoder: Decoder) -> None:
    accepted = [decoder.fuzz_one(raw) for raw in SEEDS[decoder.name]]
    assert any(accepted) != (decoder.name in UNMADE)


@each
def test_no_trap_breaks_a_decoder(decoder: Decoder) -> None:
    for raw in (b"", *TRAPS):
        decoder.fuzz_one(raw)
        decoder.fuzz_one(SEEDS[decoder.name][0] + raw)
        decoder.fuzz_one(raw + SEEDS[decoder.name][0])


@each
def test_no_edit_breaks_a_decoder(decoder: Decoder) -> None:
    @settings(
        max_examples=40 if decoder.slow else 100,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(which=st.integers(0, 2**8), what=edits)
    def edited(which: int, what: list[tuple[int, int, int, bytes]]) -> None:
        decoder.fuzz_one(mutated(SEEDS[decoder.name], which, what))

    edited()


@each
def test_thousands_of_edits_break_no_decoder(decoder: Decoder) -> None:
    rng = Random(decoder.name)  # the same every time
    for _ in range(100 if decoder.slow else 600):
        raw = drawn(SEEDS[decoder.name], rng)
        try:
            decoder.fuzz_one(raw)
        except Exception as error:
            raise AssertionError(f"{decoder.name}: {raw.hex()}") from error


@each
def test_random_bytes_break_no_decoder(decoder: Decoder) -> None:
    rng = Random(1)  # the same every time
    for size in (1, 2, 3, 8, 33, 64, 100, 1000, 70_000):
        for _ in range(3):
            decoder.fuzz_one(rng.randbytes(size))


FOUND = sorted((Path(__file__).parents[1] / "vectors/found").glob("*/*"))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_broke_a_decoder_is_refused(path: Path) -> None:
    decoder = next(d for d in DECODERS if d.name == path.parent.name)
    assert not decoder.fuzz_one(path.read_bytes())
