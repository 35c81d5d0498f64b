"""What a process is told at start: one TOML file in which every setting is described.

A table of `Setting`s says what each key means and its default; the commented file that a person
gets is rendered from it, and a `Settings` reads that file back. Unknown keys are refused with the
nearest known one. Paths in the file are relative to the folder that it lies in.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.core.errors import InvalidSpec, NotFound
from hanse.core.ids import check_address
from hanse.core.reading import Reader

CONFIG_BYTES_MAX = 64 * 1024
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Setting:
    """What one key of the file means. Without a default it has to be given."""

    doc: str
    default: str | int | float | None = None


Table = Mapping[str, Setting]


class Settings(Reader):
    """Reads the file; a key that is not given has the default of its table."""

    def __init__(self, path: Path, table: Table, missing: NotFound) -> None:
        """Raises `missing` without a file, `InvalidSpec` if it is too large or no TOML."""
        try:
            super().__init__(read_toml(path), path.name)
        except FileNotFoundError:
            raise missing from None
        self._table, self._folder = table, path.parent

    def raw(self, key: str, default: Any = ...) -> Any:
        known = self._table[key].default if key in self._table else None
        return super().raw(key, default if known is None else known)

    def file(self, key: str) -> Path:
        return self._folder / self.text(key)

    def optional_file(self, key: str) -> Path | None:
        return self.file(key) if self.text(key) else None

    def optional_address(self, key: str) -> str:
        text = self.text(key)
        return check_address(text, key) if text else ""

    def log_level(self) -> str:
        return self.one_of("log_level", LOG_LEVELS)


def rendered(table: Table, values: Mapping[str, str | int | float]) -> Iterator[str]:
    """The lines of the file; what is not in `values` stands commented out at its default."""
    for key, setting in table.items():
        yield ""
        yield from (f"# {line}" for line in setting.doc.splitlines())
        commented = "" if key in values else "# "
        yield f"{commented}{key} = {toml(values.get(key, setting.default))}"


def toml(value: str | int | float | None) -> str:
    # A JSON text or number is also a TOML one, once DEL is escaped.
    return json.dumps(value).replace("\x7f", "\\u007f")


def read_toml(path: Path) -> dict[str, Any]:
    """Raises `InvalidSpec`, or `FileNotFoundError`."""
    with path.open("rb") as file:
        raw = file.read(CONFIG_BYTES_MAX + 1)
    if len(raw) > CONFIG_BYTES_MAX:
        raise InvalidSpec(f"{path} is larger than {CONFIG_BYTES_MAX} bytes")
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{path} is not valid TOML: {error}", fix="correct that line") from None
