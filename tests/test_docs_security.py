"""Every threat and every invariant has a test, or says plainly that it is open."""

from __future__ import annotations

from pathlib import Path

import pytest
from threats import PAGES, ROOT, Threat, everything, is_there, rows_of, shown, table

ROWS = everything()
TESTED = [row for row in ROWS if row.test]
ATTACKS = {f"T{n:02d}" for n in range(1, 54)}
LIMITS = {f"L{n:02d}" for n in range(1, 26)}
INVARIANTS = {f"R{n:02d}" for n in range(1, 23)}


def test_every_threat_has_a_row() -> None:
    assert {row.id for row in rows_of("threat")} == ATTACKS | LIMITS


def test_every_invariant_has_a_row() -> None:
    assert {row.id for row in rows_of("invariant")} == INVARIANTS


@pytest.mark.parametrize("kind", PAGES)
def test_the_page_shows_the_rows(kind: str) -> None:
    """After a change of the rows: `python tests/threats.py`."""
    assert shown(kind) == table(kind, rows_of(kind))


@pytest.mark.parametrize("row", TESTED, ids=lambda row: row.id)
def test_the_defence_stands_where_it_is_said_to_and_its_test_exists(row: Threat) -> None:
    assert all(map(is_there, row.tests))
    assert (ROOT / row.file).read_text().count(row.old) == 1, "the defence has moved: look again"
    assert row.old != row.new
    assert row.seen


def test_a_row_without_a_test_is_wholly_without() -> None:
    for row in ROWS:
        assert row.test or not (row.file or row.old or row.new or row.seen or row.wire)


def test_a_test_that_does_not_exist_is_found_out(tmp_path: Path) -> None:
    own = f"tests/{Path(__file__).name}"
    assert is_there(f"{own}::test_every_threat_has_a_row")
    assert not is_there(f"{own}::test_every_threat")
    assert not is_there("tests/test_of_nothing.py::test_x")
