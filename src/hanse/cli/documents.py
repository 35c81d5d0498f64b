"""Files that people write: YAML, TOML or JSON, read strictly and with bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hanse.core.errors import InvalidSpec, NotFound

FILE_BYTES_MAX = 64 * 1024
VALUES_MAX = 10_000  # with every reference written out


def read(path: Path, option: str, form: str) -> dict[str, Any]:
    """The mapping in the file that `option` names; `form` says what one begins with.

    Raises `NotFound` or `InvalidSpec`.
    """
    try:
        raw = path.read_bytes()
    except OSError:
        raise NotFound(f"cannot read {path}", fix=f"check the path of {option}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise InvalidSpec(f"{path} is larger than {FILE_BYTES_MAX} bytes", fix=form)
    try:
        document = _decode(path, raw)
    except (ValueError, RecursionError) as error:
        raise InvalidSpec(f"{path} cannot be read: {error}", fix="correct that line") from None
    if not isinstance(document, dict):
        raise InvalidSpec(f"{path} is not a mapping", fix=form)
    return document


def _decode(path: Path, raw: bytes) -> Any:
    text = raw.decode()
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".toml":
        import tomllib

        return tomllib.loads(text)
    return _yaml(text)


def _yaml(text: str) -> Any:
    import yaml

    class Strict(yaml.SafeLoader):
        """Refuses what YAML takes in silence: a key twice in one mapping."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise ValueError(f"{key} stands twice in one mapping")
            return super().construct_mapping(node, deep)

    try:
        document = yaml.load(text, Strict)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    _check_size(document)
    return document


def _check_size(document: Any) -> None:
    """Steps may be written once and referred to, but not multiplied without end."""
    waiting, seen = [document], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > VALUES_MAX:
            raise ValueError(f"references make it longer than {VALUES_MAX} values")
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
