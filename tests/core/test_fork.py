"""A proof of a fork names the one place where two histories part, and proves nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from federation import key, origin
from hypothesis import given
from hypothesis import strategies as st

from hanse.core import limits
from hanse.core.errors import Rejected
from hanse.core.ids import Origin
from hanse.core.log.checkpoint import Checkpoint, sign_checkpoint
from hanse.core.log.fork import Branch, Fork, compare, open_fork, prove
from hanse.core.log.merkle import leaf_hash, root_of
from hanse.core.log.proofs import inclusion_proof
from hanse.core.reading import canonical_json

EU = origin("eu")
PUBLIC = key("eu").public


def key_of(log: Origin) -> bytes:
    return key(str(log.region)).public


def events(size: int, shared: int, mark: str) -> list[bytes]:
    return [f"{i}".encode() if i < shared else f"{i} {mark}".encode() for i in range(size)]


def copy(raws: list[bytes], by: str = "eu") -> tuple[bytes, list[bytes]]:
    leaves = [leaf_hash(raw) for raw in raws]
    return sign_checkpoint(Checkpoint(str(EU), len(raws), root_of(leaves)), key(by)), leaves


def fork(shared: int = 5, one: int = 9, two: int = 7) -> Fork:
    made = prove(EU, PUBLIC, copy(events(one, shared, "a")), copy(events(two, shared, "b")))
    assert made is not None
    return made


@given(st.integers(0, 70), st.integers(1, 40), st.integers(1, 40))
def test_a_fork_is_proven_at_the_first_place_whoever_proves_it(
    shared: int, one: int, two: int
) -> None:
    a = copy(events(shared + one, shared, "a"))
    b = copy(events(shared + two, shared, "b"))
    made, again = prove(EU, PUBLIC, a, b), prove(EU, PUBLIC, b, a)
    assert made is not None
    assert again is not None
    assert made.encode() == again.encode()
    assert open_fork(made.encode(), key_of) == made
    assert made.index == shared
    assert len(made.encode()) <= limits.EVIDENCE_BYTES_MAX


def test_a_log_that_grows_proves_nothing() -> None:
    assert prove(EU, PUBLIC, copy(events(3, 9, "")), copy(events(8, 9, ""))) is None


def test_a_later_place_where_two_logs_differ_is_no_proof() -> None:
    """It is true, and two of its kind would freeze a log at two places."""
    one, two = copy(events(9, 5, "a")), copy(events(7, 5, "b"))
    branches = [Branch(n, ls[6], inclusion_proof(ls, 6)) for n, ls in (one, two)]
    first, second = sorted(branches, key=lambda branch: branch.note)
    with pytest.raises(Rejected, match="before event 6"):
        open_fork(Fork(EU, 6, (first, second)).encode(), key_of)


def test_an_honest_log_that_grew_cannot_be_accused_with_its_own_heads() -> None:
    """Both heads are signed, both paths stand, all before is equal: and so is the event."""
    one, two = copy(events(9, 99, "")), copy(events(7, 99, ""))
    branches = [Branch(n, ls[5], inclusion_proof(ls, 5)) for n, ls in (one, two)]
    first, second = sorted(branches, key=lambda branch: branch.note)
    with pytest.raises(Rejected, match="do not contradict"):
        open_fork(Fork(EU, 5, (first, second)).encode(), key_of)


def changed(made: Fork, **changes: Any) -> bytes:
    return canonical_json(json.loads(made.encode()) | changes)


def test_what_was_altered_proves_nothing() -> None:
    made = fork()
    heads = json.loads(made.encode())["heads"]
    twice = [heads[0], heads[0]]
    other = [heads[0], heads[1] | {"leaf": heads[0]["leaf"]}]
    short = [heads[0], heads[1] | {"path": heads[1]["path"][1:]}]
    for raw in (
        changed(made, heads=twice),
        changed(made, heads=other),
        changed(made, heads=short),
        changed(made, heads=heads[::-1]),
        changed(made, heads=heads[:1]),
        changed(made, index=4),
        changed(made, origin=str(origin("us"))),
        changed(made, schema=2),
        made.encode() + b" ",
        b"[" * 100,
    ):
        with pytest.raises(Rejected):
            open_fork(raw, key_of)


def test_nobody_is_accused_by_anothers_signature() -> None:
    forged = fork().encode().replace(b"/eu/", b"/us/")
    with pytest.raises(Rejected):
        open_fork(forged, key_of)


def test_a_suffix_is_weighed_against_what_is_held() -> None:
    ours, other = events(9, 5, "a"), events(7, 5, "b")
    held, note = copy(ours), copy(other)[0]
    assert compare(EU, PUBLIC, held, (note, other[3:]), 3) == fork()
    assert compare(EU, PUBLIC, held, (note, other[6:]), 6) == "earlier"
    assert compare(EU, PUBLIC, held, (copy(ours[:8])[0], ours[4:8]), 4) is None
