"""Data goes to stdout in the form that was asked for, messages go to stderr.

    -o table   for reading; colours on a terminal only, never with NO_COLOR
    -o json    every field, with apiVersion and kind
    -o yaml    the same
    -o name    one name a line, for scripts

Text from elsewhere is escaped before a terminal sees it: whoever may write a reason may not
move our cursor (T42).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

API_VERSION = "hanse.dev/v1alpha1"
FORMS = ("table", "json", "yaml", "name")
_COLOURS = {
    "failing": "bold red",
    "conflict": "bold red",
    "killed": "bold red",
    "quarantined": "bold red",
    "rolling-back": "red",
    "held": "red",
    "degraded": "yellow",
    "unknown": "yellow",
    "frozen": "cyan",
    "rolling-out": "cyan",
    "healthy": "green",
    "proven": "green",
}


@dataclass(frozen=True, slots=True)
class Table:
    """`head` and `foot` are lines around it. Cells are plain text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()
    foot: Sequence[str] = ()


def emit(
    form: str, kind: str, value: Mapping[str, Any], table: Table, names: Iterable[str] = ()
) -> None:
    """Print one answer. `names` are for `-o name`."""
    if form == "json":
        print(json.dumps(_document(kind, value), indent=2))
    elif form == "yaml":
        import yaml

        sys.stdout.write(yaml.safe_dump(_document(kind, value), sort_keys=False))
    elif form == "name":
        for name in names:
            print(safe(name))
    elif _colourful():
        _print_rich(table)
    else:
        _print_plain(table)


def emit_change(form: str, kind: str, value: Mapping[str, Any]) -> None:
    """What a command has changed: the event that says so, and what undoes it."""
    rows = [[key, _cell(value[key])] for key in value if key not in ("event", "undo")]
    foot = [f"undo: {value['undo']}"] if value.get("undo") else []
    names = [str(value["event"])] if "event" in value else []  # not all that changes is an event
    emit(form, kind, value, Table((), [*(["event", n] for n in names), *rows], foot=foot), names)


def note(text: str) -> None:
    """A message for the person, apart from the data."""
    print(safe(text), file=sys.stderr)


def safe(text: str) -> str:
    """One line without control, bidirectional and other unprintable characters."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def age(seconds: float | None) -> str:
    """`4 s`, `3 min`, `2 h`, `5 d`; `?` where it is not known."""
    if seconds is None:
        return "?"
    for unit, length, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def at(unix_ms: int | None) -> str:
    """Local time to the second, and the date unless it is today."""
    if not unix_ms:
        return ""
    import datetime

    from hanse.core.limits import SHOWN_MS_MAX

    moment = datetime.datetime.fromtimestamp(min(unix_ms, SHOWN_MS_MAX) / 1000).astimezone()
    today = moment.date() == datetime.datetime.now().astimezone().date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def size(count: int) -> str:
    """`0 B`, `12 kB`, `10.9 MB`: of 1000, as networks are measured."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"


def fetching(file: Mapping[str, Any]) -> str:
    """`fetching model.onnx of sha256:5f2c…: 12.3 MB of 90.9 MB, 8.1 MB/s from 2 peers`."""
    done, of, rate = (size(file[key]) for key in ("bytes", "of", "bytes_per_s"))
    peers = len(file["from"])
    return (
        f"fetching {file['file']} of {str(file['release'])[:19]}: {done} of {of}, "
        f"{rate}/s from {peers} peer{'s' if peers != 1 else ''}"
    )


def nodes(counts: Mapping[str, Any] | None) -> str:
    """`7/8 (1 offline, 2 unable)`; `-` where the nodes are another region's."""
    if counts is None:
        return "-"
    apart = [f"{counts[key]} {key}" for key in ("offline", "unable") if counts[key]]
    return f"{counts['on_target']}/{counts['of']}" + (f" ({', '.join(apart)})" if apart else "")


def _document(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, **value}


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        if "version" in value and "release" in value:
            return f"{value['version']} ({str(value['release'])[:19]})"
        if "on_target" in value:
            return nodes(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _colourful() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _print_plain(table: Table) -> None:
    rows = [[safe(cell) for cell in row] for row in table.rows]
    lines = [*([list(table.columns)] if table.columns else []), *rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for text in table.head:
        print(safe(text))
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())
    for text in table.foot:
        print(safe(text))


def _print_rich(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(highlight=False)
    for text in table.head:
        console.print(Text(safe(text)), soft_wrap=True)
    if table.rows:
        shown = RichTable(
            *table.columns or [""] * len(table.rows[0]),
            box=None,
            show_header=bool(table.columns),
            header_style="bold",
            pad_edge=False,
        )
        for row in table.rows:
            shown.add_row(*(Text(safe(cell), style=_COLOURS.get(cell, "")) for cell in row))
        console.print(shown)
    for text in table.foot:
        console.print(Text(safe(text)), soft_wrap=True)
