"""Every defence of the table of threats is taken away once, in a copy: its test must fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from threats import Copy, everything


def rounds(seed: int) -> Iterator[Mapping[str, int]]:
    """One round for each row; the seed means nothing. Survivors are named at the end."""
    del seed
    rows = [row for row in everything() if row.test]
    survived: list[str] = []
    with TemporaryDirectory(prefix="hanse-") as folder:
        copy = Copy(Path(folder))
        code, said = copy.run(sorted({test for row in rows for test in row.tests}))
        assert code == 0, f"the tests fail without any mutant\n{said[-4000:]}"
        for row in rows:
            alive = copy.survives(row)
            survived += [f"{row.id} {test}" for test in alive]
            print(f"{'SURVIVED' if alive else 'killed  '}  {row.id:4} {row.place}: {row.seen}")
            yield {"mutants": 1, "killed": int(not alive)}
    assert not survived, f"these tests see nothing: {survived}"
