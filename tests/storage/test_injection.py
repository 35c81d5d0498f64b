"""T41: whatever stands in a name or a label is data to SQL, and comes back byte for byte."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanse.core.ids import Origin
from hanse.core.log.merkle import Frontier, leaf_hash
from hanse.core.step import AppendEvents, Head, PutIndex, PutLocal, PutTrust, PutView
from hanse.storage.sqlite import SqliteEventStore

STORAGE = Path(__file__).parents[2] / "src/hanse/storage"
ORIGIN = Origin.parse(f"harbour/north/{'a' * 32}/i1")
CORPUS = [
    "'; DROP TABLE event; --", '"; DROP TABLE event; --', "x' OR '1'='1", "') OR 1=1 --",
    "1; SELECT 1", "Robert'); DROP TABLE head;--", "\\'; DROP TABLE event; --", "%' OR 1 LIKE '%",
    "_", "%", "?", ":a", "@a", "$a", "?1", "NULL", "''", "x'41'", "/* */", "--",
    "\u2019; DROP TABLE event; --", "\u02bc", "a\u0000b", "\u202e", "\U0001f4a9", "a\nb",
    "\x1b[2J", "sqlite_master", "main.event", "rowid", "' UNION SELECT raw FROM trust_file --",
    "load_extension('x')", "ATTACH 'x' AS y", "PRAGMA user_version", "x" * 5000,
]  # fmt: skip


async def test_the_corpus_comes_back_byte_for_byte(tmp_path: Path) -> None:
    events = tuple(text.encode() for text in CORPUS)
    frontier = Frontier.empty().append(tuple(map(leaf_hash, events)))
    head = Head(ORIGIN, len(events), frontier.root(), frontier.encode(), CORPUS[0].encode())
    store = await SqliteEventStore.open(tmp_path)
    await store.apply([AppendEvents(head, 0, events), PutTrust(1, "\n".join(CORPUS).encode())])
    for text in CORPUS:
        digest = hashlib.sha256(text.encode()).digest()
        await store.apply(
            [
                PutView(text, digest, text.encode()),
                PutIndex(text, text, text, ("'; DROP TABLE parent; --", text + "'")),
                PutLocal(text, text, text.encode()),
            ]
        )
    await store.close()
    store = await SqliteEventStore.open(tmp_path)
    assert await store.events(ORIGIN, 0, 1000, 10**6) == list(events)
    assert await store.trust() == ["\n".join(CORPUS).encode()]
    assert await store.views() == {
        text: hashlib.sha256(text.encode()).digest() for text in CORPUS
    } or len(await store.views()) == len(CORPUS)
    for text in CORPUS:
        assert await store.view(text) == (hashlib.sha256(text.encode()).digest(), text.encode())
        assert await store.local(text) == {text: text.encode()}
        assert (text, text) in [tuple(row) for row in await store.releases(text)]
        assert text + "'" in await store.ancestors(text)
    await store.close()


def formatted_sql() -> Iterator[str]:
    """Statements that are put together from values, in whichever way Python has for it."""
    for path in sorted(STORAGE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            text = ""
            if isinstance(node, ast.JoinedStr):
                text = "".join(v.value for v in node.values if isinstance(v, ast.Constant))
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add):
                text = node.left.value if isinstance(node.left, ast.Constant) else ""
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "format":
                text = getattr(getattr(node.func, "value", None), "value", "")
            if isinstance(text, str) and re.search(r"\b(SELECT|INSERT|DELETE|UPDATE|DROP)\b", text):
                yield f"{path.name}:{node.lineno}: {text[:60]}"


def test_no_statement_is_put_together_from_values() -> None:
    assert list(formatted_sql()) == []


@pytest.mark.parametrize("pragma", ["trusted_schema"])
async def test_the_schema_of_a_foreign_file_runs_nothing(tmp_path: Path, pragma: str) -> None:
    store = await SqliteEventStore.open(tmp_path)
    for connection in (store._writer, store._reader):
        rows = await connection.execute_fetchall(f"PRAGMA {pragma}")
        assert [tuple(row) for row in rows] == [(0,)]
    await store.close()
