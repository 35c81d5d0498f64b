"""The table of threats: for each a defence, a test of it, and the change that removes the defence.

`threats.toml` is the data. `docs/security.md` shows it, `scripts/campaign mutants` applies each
change to a copy of the tree and asks that the test fails there. A row with neither is open, and
is said to be. Run this file to write the table into the page.
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
PAGE: Final = ROOT / "docs/security.md"
_MARKS: Final = ("<!-- threats -->\n", "<!-- end of threats -->\n")
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


def threats() -> list[Threat]:
    rows = tomllib.loads((ROOT / "tests/threats.toml").read_text())["threat"]
    return [Threat(**row) for row in rows]


# -- the page ------------------------------------------------------------------------------------


def table(rows: Sequence[Threat]) -> str:
    lines = ["| id | threat | defence | test that fails without it | how it was taken away |"]
    lines.append("|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: (row.id[0] != "T", row.id)):
        test = " and ".join(f"`{test}`" for test in row.tests) or "**open**"
        where = f" (`{row.place}`)" if row.place else ""
        lines.append(f"| {row.id} | {row.what} | {row.defence}{where} | {test} | {row.seen} |")
    open_ = ", ".join(sorted(row.id for row in rows if not row.test)) or "none"
    return "\n".join([*lines, "", f"Open: {open_}."]) + "\n"


def shown(page: str) -> str:
    """What the page says between its marks."""
    return page.partition(_MARKS[0])[2].partition(_MARKS[1])[0]


def with_table(page: str, rows: Sequence[Threat]) -> str:
    before, _, rest = page.partition(_MARKS[0])
    after = rest.partition(_MARKS[1])[2]
    return before + _MARKS[0] + table(rows) + _MARKS[1] + after


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
    PAGE.write_text(with_table(PAGE.read_text(), threats()))
