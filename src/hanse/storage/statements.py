"""How a step's writes become SQL: grouped by table, so a transaction takes few thread hops.

The kinds of write touch different tables, so grouping changes no result; within one kind the
order is kept. Logs come before the events and checkpoints that refer to them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from hanse.core.ids import Origin
from hanse.core.step import (
    AppendEvents,
    DropTrust,
    Head,
    PutIndex,
    PutLocal,
    PutTrust,
    PutView,
    PutWitness,
    TruncateLog,
    Write,
)

Statement = tuple[str, Collection[tuple[Any, ...]]]
"""SQL with parameters only, and the rows to run it for."""

_PUT_HEAD = """
INSERT INTO head (id, origin, size, root, frontier, note, final_size, final_note)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    size = excluded.size, root = excluded.root, frontier = excluded.frontier, note = excluded.note,
    final_size = excluded.final_size, final_note = excluded.final_note
"""
_PUT_EVENT = "INSERT INTO event (log, seq, raw) VALUES (?, ?, ?)"
# The size is the same only when a note is replaced by one with more cosignatures: a peer that
# is served a chunk then gets them with it.
_PUT_CHECKPOINT = """
INSERT INTO checkpoint (log, size, note) VALUES (?, ?, ?)
ON CONFLICT (log, size) DO UPDATE SET note = excluded.note
"""
_DROP_EVENTS = "DELETE FROM event WHERE log = ? AND seq >= ?"
_DROP_CHECKPOINTS = "DELETE FROM checkpoint WHERE log = ? AND size > ?"
_DROP_TRUST = "DELETE FROM trust_file WHERE version > ?"
_PUT_TRUST = "INSERT INTO trust_file (version, raw) VALUES (?, ?)"
_PUT_WITNESS = """
INSERT INTO witness (origin, size, root) VALUES (?, ?, ?)
ON CONFLICT (origin) DO UPDATE SET size = excluded.size, root = excluded.root
"""
_PUT_VIEW = """
INSERT INTO view (model, digest, document) VALUES (?, ?, ?)
ON CONFLICT (model) DO UPDATE SET digest = excluded.digest, document = excluded.document
"""
_PUT_RELEASE = """
INSERT INTO release (release, model, version) VALUES (?, ?, ?)
ON CONFLICT (release) DO UPDATE SET model = excluded.model, version = excluded.version
"""
# A parent may come later, or never: it gets a row that says nothing but its name.
_PUT_UNKNOWN = "INSERT INTO release (release) VALUES (?) ON CONFLICT (release) DO NOTHING"
_CLEAR_PARENTS = "DELETE FROM parent WHERE child = (SELECT id FROM release WHERE release = ?)"
_PUT_PARENT = """
INSERT INTO parent (child, parent)
SELECT c.id, p.id FROM release AS c, release AS p WHERE c.release = ? AND p.release = ?
"""
_PUT_LOCAL = """
INSERT INTO local (space, key, value) VALUES (?, ?, ?)
ON CONFLICT (space, key) DO UPDATE SET value = excluded.value
"""
_DELETE_LOCAL = "DELETE FROM local WHERE space = ? AND key = ?"

DROP_VIEWS: tuple[Statement, ...] = (
    ("DELETE FROM view", [()]),
    ("DELETE FROM parent", [()]),
    ("DELETE FROM release", [()]),
)


def statements(writes: Sequence[Write], logs: Mapping[Origin, int]) -> list[Statement]:
    """The statements of one transaction, in order; `logs` gives each touched log's id."""
    cut = [write.head for write in writes if isinstance(write, TruncateLog)]
    ends = [(logs[head.origin], head.size) for head in cut]
    grouped = [
        (_DROP_EVENTS, ends),
        (_DROP_CHECKPOINTS, ends),
        (_PUT_HEAD, [_row(head, logs) for head in cut]),
        *_append([write for write in writes if isinstance(write, AppendEvents)], logs),
        (_DROP_TRUST, [(w.after,) for w in writes if isinstance(w, DropTrust)]),
        (_PUT_TRUST, [(w.version, w.raw) for w in writes if isinstance(w, PutTrust)]),
        (_PUT_WITNESS, [(w.origin, w.size, w.root) for w in writes if isinstance(w, PutWitness)]),
        (_PUT_VIEW, [(w.model, w.digest, w.document) for w in writes if isinstance(w, PutView)]),
        *_index({write.release: write for write in writes if isinstance(write, PutIndex)}),
        *_local({(w.space, w.key): w.value for w in writes if isinstance(w, PutLocal)}),
    ]
    return [(sql, rows) for sql, rows in grouped if rows]


def _append(
    writes: Sequence[AppendEvents], logs: Mapping[Origin, int]
) -> Iterable[tuple[str, list[tuple[Any, ...]]]]:
    heads, events, checkpoints = [], [], []
    for write in writes:
        head, log = write.head, logs[write.head.origin]
        final = (head.final_size, head.final_note)
        heads.append(_row(head, logs))
        events += [(log, seq, raw) for seq, raw in enumerate(write.events, write.start)]
        checkpoints.append((log, head.size, head.note))
        if head.final_size and not write.events:
            checkpoints.append((log, *final))
    return (_PUT_HEAD, heads), (_PUT_EVENT, events), (_PUT_CHECKPOINT, checkpoints)


def _row(head: Head, logs: Mapping[Origin, int]) -> tuple[Any, ...]:
    log, final = logs[head.origin], (head.final_size, head.final_note)
    return (log, str(head.origin), head.size, head.root, head.frontier, head.note, *final)


def _index(last: Mapping[str, PutIndex]) -> Iterable[tuple[str, list[tuple[Any, ...]]]]:
    edges = [(w.release, parent) for w in last.values() for parent in dict.fromkeys(w.parents)]
    return (
        (_PUT_RELEASE, [(w.release, w.model, w.version) for w in last.values()]),
        (_PUT_UNKNOWN, [(parent,) for _, parent in edges]),
        (_CLEAR_PARENTS, [(release,) for release in last]),
        (_PUT_PARENT, [*edges]),
    )


def _local(
    last: Mapping[tuple[str, str], bytes | None],
) -> Iterable[tuple[str, list[tuple[Any, ...]]]]:
    kept = [(*name, value) for name, value in last.items() if value is not None]
    gone = [name for name, value in last.items() if value is None]
    return (_PUT_LOCAL, [*kept]), (_DELETE_LOCAL, [*gone])
