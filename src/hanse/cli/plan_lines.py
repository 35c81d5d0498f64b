"""Where in a plan's file a complaint belongs: the line of the field that it names.

YAML, and JSON, which is YAML too, are composed once more, without values, to learn at which line
each path begins: `spec.stages[0].steps[2].setWeight`. A complaint about a field that is missing is
shown at its parent.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hanse.core.errors import InvalidSpec

_PATH = re.compile(r"[A-Za-z][\w-]*(?:\[[0-9]+\]|\.[\w-]+)*")
_LAST = re.compile(r"(\.[\w-]+|\[[0-9]+\]|^[\w-]+)$")
DEPTH_MAX = 32


def located(error: InvalidSpec, path: Path) -> InvalidSpec:
    """The same complaint with `file:line:` before it, if the file is YAML or JSON."""
    if path.suffix == ".toml":
        return error
    line = _line(error.message, path.read_text())
    where = f"{path}:{line}" if line else str(path)
    return InvalidSpec(f"{where}: {error.message}", fix=error.fix)


def _line(message: str, text: str) -> int | None:
    found = _PATH.match(message)
    lines = _lines(text)
    named = found[0] if found else ""
    while named and named not in lines:
        named = _LAST.sub("", named)
    return lines.get(named)


def _lines(text: str) -> dict[str, int]:
    """Path to line, from 1. Of a node that is referred to, the first path counts."""
    import yaml

    lines: dict[str, int] = {}

    def walk(node: Any, path: str, depth: int) -> None:
        if depth > DEPTH_MAX:
            return
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here = f"{path}.{key.value}" if path else str(key.value)
                lines.setdefault(here, key.start_mark.line + 1)
                walk(value, here, depth + 1)
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                lines.setdefault(f"{path}[{i}]", value.start_mark.line + 1)
                walk(value, f"{path}[{i}]", depth + 1)

    try:
        walk(yaml.compose(text, Loader=yaml.SafeLoader), "", 0)
    except yaml.YAMLError:
        return {}
    return lines
