"""Two tables of promises: for each a test, and the change that takes the defence of it away.

`threats.toml` and `invariants.toml` are the data. `docs/security.md` and `docs/rollouts.md` show
them, `scripts/campaign mutants` applies each change to a copy of the tree and asks that the test
fails there. A row with neither is open, and is said to be. Run this file to write the tables into
the pages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = {"threat": ROOT / "docs/security.md", "invariant": ROOT / "docs/rollouts.md"}
_TESTS_FAILED: Final = 1  # what pytest ends with; 2 and more: it could not run them
_MINUTES_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Threat:
    """One row. `file`, `old`, `new` are the change; without a `test` the row is open."""

    id: str
    what: str
    defence: str
    test: str = ""
    file: str = ""
    old: str = ""
    new: str = ""
    seen: str = ""
    """What the change does, in a few words."""
    wire: str = ""
    """A test of the same with a real daemon, where somebody at a connection is the threat."""

    @property
    def tests(self) -> list[str]:
        return [test for test in (self.test, self.wire) if test]

    @property
    def place(self) -> str:
        """The module of the defence, as people say it."""
        return self.file.removeprefix("src/hanse/").removesuffix(".py")


def rows_of(kind: str) -> list[Threat]:
    """The rows of `threat`s or of `invariant`s."""
    rows = tomllib.loads((ROOT / f"tests/{kind}s.toml").read_text())[kind]
    return [Threat(**row) for row in rows]


def everything() -> list[Threat]:
    return [row for kind in PAGES for row in rows_of(kind)]


# -- the page ------------------------------------------------------------------------------------


def table(kind: str, rows: Sequence[Threat]) -> str:
    lines = [f"| id | {kind} | defence | test that fails without it | how it was taken away |"]
    lines.append("|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: (row.id[0] != "T", row.id)):
        test = " and ".join(f"`{test}`" for test in row.tests) or "**open**"
        where = f" (`{row.place}`)" if row.place else ""
        lines.append(f"| {row.id} | {row.what} | {row.defence}{where} | {test} | {row.seen} |")
    open_ = ", ".join(sorted(row.id for row in rows if not row.test)) or "none"
    return "\n".join([*lines, "", f"Open: {open_}."]) + "\n"


def _marks(kind: str) -> tuple[str, str]:
    return f"<!-- {kind}s -->\n", f"<!-- end of {kind}s -->\n"


def shown(kind: str) -> str:
    """What the page says between its marks."""
    first, last = _marks(kind)
    return PAGES[kind].read_text().partition(first)[2].partition(last)[0]


def write(kind: str) -> None:
    first, last = _marks(kind)
    before, _, rest = PAGES[kind].read_text().partition(first)
    after = rest.partition(last)[2]
    PAGES[kind].write_text(before + first + table(kind, rows_of(kind)) + last + after)


def is_there(test: str) -> bool:
    """Whether there is a test of that name."""
    path, _, name = test.partition("::")
    found = ROOT / path
    return found.is_file() and bool(
        re.search(rf"^(async )?def {re.escape(name.partition('[')[0])}\(", found.read_text(), re.M)
    )


# -- mutants -------------------------------------------------------------------------------------


class Copy:
    """A copy of the tree whose tests run against its own source."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("src", "tests", "docs", "deploy", "protos", "scripts", "requirements"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        for path in ROOT.iterdir():
            if path.is_file():
                shutil.copy(path, folder)

    def survives(self, row: Threat) -> list[str]:
        """Tests of the row that pass without its defence. Raises if one cannot run."""
        path = self._folder / row.file
        whole = path.read_text()
        changed = whole.replace(row.old, row.new)
        if path.suffix == ".py":
            compile(changed, row.file, "exec")
        path.write_text(changed)
        try:
            return [test for test in row.tests if not self._fails(test)]
        finally:
            path.write_text(whole)

    def _fails(self, test: str) -> bool:
        code, said = self.run([test])
        if code not in (0, _TESTS_FAILED):
            raise RuntimeError(f"{test}: pytest ended with {code}\n{said[-2000:]}")
        return code == _TESTS_FAILED

    def run(self, tests: Sequence[str]) -> tuple[int, str]:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "--tb=line",
            "-p",
            "no:cacheprovider",
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": str(self._folder / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        ran = subprocess.run(
            [*command, *tests],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_MINUTES_MAX * 60,
            check=False,
        )
        return ran.returncode, ran.stdout + ran.stderr


if __name__ == "__main__":
    for name in PAGES:
        write(name)
