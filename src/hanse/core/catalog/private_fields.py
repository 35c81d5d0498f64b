"""Which values of a manifest may be private, and what stands there in their place.

`training.data`, `training.code`, `hyperparameters.NAME`, `metrics.NAME` and `labels.NAME`: what
people and auditors want to know and no node acts on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hanse.core import limits
from hanse.core.errors import InvalidSpec
from hanse.core.ids import Digest
from hanse.core.reading import Reader

TABLES = ("hyperparameters", "metrics", "labels")
_FIELD = re.compile(
    r"training\.(?:data|code)|(?:hyperparameters|metrics|labels)\.[^\x00-\x1f\x7f*]{1,128}"
)


def may_be_private(field: str) -> bool:
    """`labels.slow_ms` may not: nodes count by it."""
    return _FIELD.fullmatch(field) is not None and field != "labels.slow_ms"


def value_of(document: Mapping[str, Any], field: str) -> Any:
    """The value in a manifest's mapping; None or empty if it is not there."""
    table, _, name = field.partition(".")
    found = document[table] if table == "labels" else document["training"]
    return found.get(name) if table in ("labels", "training") else found[table].get(name)


def parse_commitments(reader: Reader) -> dict[str, Digest]:
    """A manifest's `private`: commitments by field. Raises `InvalidSpec`."""
    found = reader.pairs("private", count_max=limits.LABELS_MAX)
    for field in found:
        if not may_be_private(field):
            raise InvalidSpec(f"manifest.private: {field[:80]!r} cannot be private")
    return {field: Digest.parse(text) for field, text in found.items()}


def check_hidden(private: Mapping[str, Digest], document: Mapping[str, Any]) -> None:
    """What is committed to must not stand beside it as well."""
    for field in private:
        if value_of(document, field):
            raise InvalidSpec(f"manifest.private: {field} stands in the manifest in clear")
