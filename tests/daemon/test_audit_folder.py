"""Exported folders: they verify offline, and whoever changes anything in them is found out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from audited import bootstrap, door_of, stored
from hand_federation import CAREFUL, FIRST, MODEL, Federation

from hanse.core.audit import export
from hanse.core.audit.compare import BEHIND, FORK, MISSING, SAME, compare, states_contradict
from hanse.core.audit.history import runs
from hanse.core.audit.paths import parse_index
from hanse.core.audit.proof import find, prove, verify_proof
from hanse.core.audit.replay import audit
from hanse.core.errors import Conflict, HanseError, InvalidProof, NotFound, Rejected
from hanse.core.events import Note
from hanse.core.ids import Digest
from hanse.core.log.tlog_proof import TlogProof
from hanse.daemon.audit_folder import reader, save, verify
from hanse.rpc.codec import EventCodec

CODEC = EventCodec()


def told(done: int, of: int) -> None:
    assert 0 < done <= of


@pytest.fixture(scope="module")
def federation() -> Federation:
    """Two releases: the first everywhere, the second failed and was rolled back."""
    made = Federation()
    first = made.publish("3.0.0")
    made.roll_out("r-1", 1, first, None, **FIRST)
    made.run(30.0)
    second = made.publish("4.0.0", parents=(first,))
    made.roll_out("r-2", 2, second, first, **CAREFUL)
    made.run(20.0)
    made.propose("us-east", Note("a word"))
    return made


@pytest.fixture(scope="module")
def folder(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("export") / "audit"
    save(door_of(stored(federation)), made, (), CODEC, told)
    return made


@pytest.fixture(scope="module")
def root(federation: Federation) -> bytes:
    return bootstrap(federation)


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_an_audit_computes_the_state_that_the_daemons_compute(
    federation: Federation, folder: Path, root: bytes
) -> None:
    found = verify(folder, root, CODEC)
    for node in federation.nodes.values():
        assert found.state_digest == node.catalog.state_digest
        assert found.heads_digest == node.book.digest
    assert {str(o): log.head.size for o, log in found.logs.items()} == {
        str(o): h.size for o, h in federation.node("us-east").book.heads.items()
    }


def test_the_history_says_what_ran_where_when_and_who_approved_it(
    federation: Federation, folder: Path, root: bytes
) -> None:
    found = verify(folder, root, CODEC)
    history = list(runs(found.catalog, found.chain, MODEL))
    view = federation.node("eu-north").catalog.views[MODEL]
    assert {r.event for r in history if r.standing} == {a.id for a in view.heads}
    assert {r.region for r in history} == {"ap-south", "eu-north", "us-east"}
    for run in history:
        assert run.published_by == ("anna",)
        assert run.approved_by == (("anna",) if run.cause == "promote" else ())
        assert run.rollout.startswith("r-") or run.cause == "rollback"
        assert run.until_ms is None or run.until_ms >= run.since_ms
        assert (run.until_ms is None) == run.standing
    for region in ("ap-south", "eu-north", "us-east"):
        own = [r for r in history if r.region == region]
        assert [r.since_ms for r in own] == sorted(r.since_ms for r in own)
        assert all(a.until_ms == b.since_ms for a, b in pairwise(own))


def test_a_folder_is_itself_what_a_door_serves(folder: Path, root: bytes, tmp_path: Path) -> None:
    again = save(reader(folder), tmp_path / "again", (), CODEC, told)
    assert again.state_digest == verify(folder, root, CODEC).state_digest
    assert [p.read_bytes() for p in files(tmp_path / "again")] == [
        p.read_bytes() for p in files(folder)
    ]


def test_every_file_matters(folder: Path, root: bytes, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in files(folder):
        name = str(path.relative_to(folder))
        shutil.copytree(folder, copy)
        (copy / name).unlink()
        with pytest.raises(InvalidProof, match=f"^{name}"):
            verify(copy, root, CODEC)
        shutil.rmtree(copy)


@pytest.mark.parametrize("seed", range(60))
def test_a_changed_byte_is_found_and_its_file_is_named(
    folder: Path, root: bytes, tmp_path: Path, seed: int
) -> None:
    rng = Random(seed)
    paths = files(folder)
    path = paths[seed % len(paths)]
    name, copy = str(path.relative_to(folder)), tmp_path / "copy"
    shutil.copytree(folder, copy)
    raw = bytearray((copy / name).read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    (copy / name).write_bytes(raw)
    with pytest.raises(InvalidProof) as refused:
        verify(copy, root, CODEC)
    if name != export.SEAL:
        assert refused.value.message.startswith(name)


@pytest.mark.parametrize("seed", range(60))
def test_whoever_changes_a_log_and_seals_the_folder_again_is_found_out(
    folder: Path, root: bytes, tmp_path: Path, seed: int
) -> None:
    rng = Random(seed)
    logs = [p for p in files(folder) if p.relative_to(folder).parts[0] == "log"]
    name, copy = str(logs[seed % len(logs)].relative_to(folder)), tmp_path / "copy"
    shutil.copytree(folder, copy)
    raw = bytearray((copy / name).read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    (copy / name).write_bytes(raw)
    seal_again(copy)
    with pytest.raises(InvalidProof) as refused:
        verify(copy, root, CODEC)
    # The hashes of a log and its events are held against each other: one of the two is named.
    assert refused.value.message.startswith(name.partition("/tile")[0])


def seal_again(folder: Path) -> None:
    there = [p for p in files(folder) if p.name != export.SEAL]
    listed = {str(p.relative_to(folder)): Digest.of(p.read_bytes()) for p in there}
    (folder / export.SEAL).write_bytes(export.seal(listed))


def test_a_file_too_many_a_link_and_a_derived_lie_are_refused(
    folder: Path, root: bytes, tmp_path: Path
) -> None:
    extra, linked, lie, outside = (tmp_path / n for n in ("extra", "linked", "lie", "outside"))
    for copy in (extra, linked, lie, outside):
        shutil.copytree(folder, copy)
    (extra / "log/more").write_bytes(b"")
    with pytest.raises(InvalidProof, match=r"^log/more: is not listed"):
        verify(extra, root, CODEC)
    (linked / "logs").unlink()
    (linked / "logs").symlink_to(folder / "logs")
    with pytest.raises(InvalidProof, match=r"^logs"):
        verify(linked, root, CODEC)
    (lie / export.POLICY).write_bytes(b"quorum none\n")
    seal_again(lie)
    with pytest.raises(InvalidProof, match=r"^witness\.policy: does not follow"):
        verify(lie, root, CODEC)
    listed = export.parse_seal((outside / export.SEAL).read_bytes())
    listed["../extra/logs"] = Digest.of((extra / "logs").read_bytes())
    (outside / export.SEAL).write_bytes(export.seal(listed))
    with pytest.raises(InvalidProof, match=r"^\.\./extra/logs: has other bytes"):
        verify(outside, root, CODEC)


def test_an_index_that_speaks_of_another_size_is_named(
    folder: Path, root: bytes, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    index = parse_index((copy / "logs").read_bytes())
    origin, size = next(iter(index.logs.items()))
    (copy / "logs").write_bytes(replace(index, logs={**index.logs, origin: size - 1}).encode())
    seal_again(copy)
    with pytest.raises(InvalidProof, match=rf"^log/{origin}/checkpoint: size {size} was signed"):
        verify(copy, root, CODEC)


def test_another_trust_root_stands_for_nothing_here(folder: Path, root: bytes) -> None:
    with pytest.raises(InvalidProof, match=r"^trust/00001\.json: this is not the trust root"):
        verify(folder, root + b" ", CODEC)


def test_one_log_can_be_exported_alone_and_an_unknown_one_cannot(
    federation: Federation, root: bytes, tmp_path: Path
) -> None:
    read = door_of(stored(federation))
    mine = federation.node("us-east").me
    save(read, tmp_path / "one", [mine], CODEC, told)
    assert list(verify(tmp_path / "one", root, CODEC).logs) == [mine]
    with pytest.raises(Conflict):
        save(read, tmp_path / "one", [mine], CODEC, told)
    with pytest.raises(NotFound):
        save(read, tmp_path / "two", [mine.__class__.parse(f"hansa/x/{'0' * 32}/i1")], CODEC, told)


# -- proofs -------------------------------------------------------------------------------------


def test_the_proof_of_any_event_verifies_from_itself_and_the_trust_chain(
    federation: Federation, folder: Path, root: bytes
) -> None:
    read = reader(folder)
    found = verify(folder, root, CODEC)
    events = [(log.origin, e) for log in found.logs.values() for e in log.events]
    for origin, event in events[:: max(1, len(events) // 25)]:
        named = event.id.raw.hex()
        made = prove(read, *find(read, named))
        proven = verify_proof(made.render(), root, found.chain.files, CODEC)
        assert (proven.origin, proven.event) == (origin, event)


@pytest.mark.parametrize("seed", range(40))
def test_no_byte_of_a_proof_can_change_but_in_signatures_of_others(
    folder: Path, root: bytes, seed: int
) -> None:
    rng, read = Random(seed), reader(folder)
    origin = sorted(parse_index(read("logs")).logs, key=str)[seed % 3]
    raw = bytearray(prove(read, origin, seed % 2).render())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    with pytest.raises(Rejected):
        verify_proof(bytes(raw), root, (root,), CODEC)


def test_a_proof_of_another_event_at_that_place_is_refused(folder: Path, root: bytes) -> None:
    read = reader(folder)
    origin, *_ = parse_index(read("logs")).logs
    one, other = prove(read, origin, 0), prove(read, origin, 1)
    swapped = TlogProof(one.index, one.path, one.note, other.event)
    with pytest.raises(InvalidProof):
        verify_proof(swapped.render(), root, (root,), CODEC)


def test_an_event_that_is_nowhere_and_a_name_that_is_none_are_told_apart(folder: Path) -> None:
    with pytest.raises(NotFound):
        find(reader(folder), "ev_" + "0" * 12)
    with pytest.raises(HanseError, match="is not an event"):
        find(reader(folder), "latest")


# -- comparing (T21) ----------------------------------------------------------------------------


def test_places_that_show_the_same_agree_and_a_late_one_is_behind(
    federation: Federation, root: bytes
) -> None:
    now = audit(door_of(stored(federation)), root, CODEC)
    assert {d.kind for d in compare(now, now)} == {SAME}
    assert not states_contradict(now, now)
    mine = federation.node("us-east").me
    late = dict(federation.appends)
    last = max(start for origin, start in late if origin == mine)
    del federation.appends[mine, last]
    then = audit(door_of(stored(federation)), root, CODEC)
    federation.appends.update(late)
    kinds = {d.origin: d.kind for d in compare(now, then)}
    assert kinds.pop(mine) == BEHIND
    assert set(kinds.values()) == {SAME}


def test_a_log_that_one_place_withholds_is_missing_there(
    federation: Federation, root: bytes
) -> None:
    mine = federation.node("us-east").me
    all_ = audit(door_of(stored(federation)), root, CODEC)
    kept = {key: value for key, value in federation.appends.items() if key[0] != mine}
    federation.appends, before = kept, federation.appends
    fewer = audit(door_of(stored(federation)), root, CODEC)
    federation.appends = before
    assert {d.kind for d in compare(all_, fewer) if d.origin == mine} == {MISSING}


def test_two_histories_of_one_log_are_a_fork_at_their_first_difference(root: bytes) -> None:
    """Both places verify: only side by side do they show that somebody lies (T21)."""
    one, other = Federation(), Federation()
    for federation, word in ((one, "north"), (other, "south")):
        federation.propose("us-east", Note("the same"))
        federation.propose("us-east", Note(word))
    found = [audit(door_of(stored(f)), bootstrap(f), CODEC) for f in (one, other)]
    mine = one.node("us-east").me
    (fork,) = [d for d in compare(*found) if d.kind == FORK]
    assert (fork.origin, fork.fork_at) == (mine, one.node("us-east").book.size(mine) - 1)


def test_equal_logs_with_unequal_states_contradict(federation: Federation, root: bytes) -> None:
    one, other = (audit(door_of(stored(federation)), root, CODEC) for _ in range(2))
    other.catalog._digests[MODEL] = bytes(32)
    assert states_contradict(one, other)


def test_the_material_holds_what_the_tests_speak_of(folder: Path, root: bytes) -> None:
    types = [e.type for log in verify(folder, root, CODEC).logs.values() for e in log.events]
    assert types.count("Promote") >= 4
    assert types.count("Healthy") >= 4
