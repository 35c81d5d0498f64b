"""Trust is a line: nobody skips, forks or rewinds it, with a TUF repository as its form."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from federation import CHAIN, OPERATOR, PEM, REGIONS, ROOT, key, members, origin
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import Targets

from hanse.core import limits
from hanse.core.errors import (
    Conflict,
    InvalidProof,
    InvalidSignature,
    InvalidSpec,
    Rejected,
    TooLarge,
)
from hanse.core.ids import Segment, member_id, segment
from hanse.core.log.policy import witness_key
from hanse.core.reading import canonical_json
from hanse.core.signing import SigningKey
from hanse.core.trust import chain, documents, instants, signatures, writing
from hanse.core.trust.bundle import Bundle, parse_bundle
from hanse.core.trust.chain import Chain
from hanse.core.trust.cuts import Cut
from hanse.core.trust.members import FloorCap, Keys, Member, Members, Person, Region
from hanse.core.trust.metadata import read
from hanse.core.trust.writing import Expiry

HEIR, THIRD, OFFICER = key("heir"), key("third"), key("officer")
TWO_OF_TWO = {"root_keys": (ROOT.public, HEIR.public), "root_threshold": 2}


def begun(*keys: SigningKey, **changes: Any) -> Chain:
    return chain.start(chain.sign(members(**changes), keys or (ROOT,)))


def following(before: Chain, *keys: SigningKey, **changes: Any) -> bytes:
    """The next version: the current one with changes, signed by `keys`, else by the root."""
    after = replace(before.current, version=before.current.version + 1, **changes)
    return chain.sign(after, keys or (ROOT,), before)


def edited(raw: bytes, file: str, **signed: Any) -> bytes:
    """The bundle with other fields in the signed part of one file, its signatures kept."""
    bundle = parse_bundle(raw)
    document = json.loads(bundle.files[file])
    document["signed"] |= signed
    return Bundle(bundle.version, {**bundle.files, file: canonical_json(document)}).encode()


def resigned(raw: bytes, before: Chain, *keys: SigningKey, **files: dict[str, Any]) -> bytes:
    """What whoever holds `keys` can make of a version: other contents, rightly signed."""
    bundle = parse_bundle(raw)
    new = dict(bundle.files)
    for name, changes in files.items():
        document = json.loads(new[name])
        new[name] = canonical_json({"signed": document["signed"] | changes, "signatures": []})
    signed = signatures.sign(Bundle(bundle.version, new), before.tip, keys or (ROOT,))
    return signed.encode()


# -- the line ----------------------------------------------------------------------


def test_a_chain_is_replayed_from_its_first_file() -> None:
    second = chain.extend(CHAIN, following(CHAIN, ring_seed="another"))
    third = chain.extend(second, following(second))
    whole = chain.replay(third.files)
    assert [m.version for m in whole.versions] == [1, 2, 3]
    assert whole.versions == third.versions
    assert whole.current.digest == third.current.digest
    assert (whole.at(2), whole.at(0), whole.at(4)) == (whole.versions[1], None, None)


@pytest.mark.parametrize("version", [1, 3, 9, 2**31])
def test_a_version_that_does_not_follow_is_refused(version: int) -> None:
    """Skipped, repeated or old: version 2 follows 1, and nothing else does."""
    raw = chain.sign(members(version=version), (ROOT,), CHAIN)
    with pytest.raises(InvalidProof):
        chain.extend(CHAIN, raw)


def test_a_chain_begins_with_version_one() -> None:
    with pytest.raises(InvalidProof):
        chain.start(following(CHAIN))
    with pytest.raises(InvalidProof):
        chain.replay(())


def test_what_was_refused_changes_nothing() -> None:
    before = CHAIN.files
    with pytest.raises(Rejected):
        chain.extend(CHAIN, following(CHAIN, HEIR))
    assert CHAIN.files == before


def test_the_thresholds_of_the_old_and_of_the_new_root_must_sign() -> None:
    handed_on = {"root_keys": (HEIR.public,)}
    for keys in ((HEIR,), (ROOT,), (THIRD,)):
        with pytest.raises(InvalidSignature):
            chain.extend(CHAIN, following(CHAIN, *keys, **handed_on))
    after = chain.extend(CHAIN, following(CHAIN, ROOT, HEIR, **handed_on))
    assert (after.current.root_version, after.current.root_keys) == (2, (HEIR.public,))
    with pytest.raises(InvalidSignature):
        chain.extend(after, following(after, ROOT, root_keys=(ROOT.public,)))


# -- thresholds (T18) --------------------------------------------------------------


def test_one_key_twice_is_one_signature() -> None:
    with pytest.raises(InvalidSignature):
        begun(ROOT, ROOT, **TWO_OF_TWO)
    assert begun(ROOT, HEIR, **TWO_OF_TWO).current.root_threshold == 2


def test_one_key_listed_twice_cannot_fill_a_threshold() -> None:
    with pytest.raises(InvalidSpec):
        begun(root_keys=(ROOT.public, ROOT.public), root_threshold=2)


def test_one_key_under_two_ids_is_refused() -> None:
    """A second id for the same key, with its own signature under that id."""
    raw = chain.sign(members(**TWO_OF_TWO), (ROOT, HEIR))
    root = json.loads(parse_bundle(raw).files["1.root.json"])["signed"]
    heir, twin = member_id(HEIR.public), "f" * 32
    keys = {**root["keys"], twin: root["keys"][member_id(ROOT.public)]}
    roles = json.loads(json.dumps(root["roles"]).replace(heir, twin))
    keys.pop(heir)
    forged = edited(raw, "1.root.json", keys=keys, roles=roles)
    with pytest.raises(InvalidSpec, match="an id that is not its own"):
        chain.start(forged)


@pytest.mark.parametrize("role", ["targets", "snapshot"])
def test_each_role_has_its_own_threshold(role: str) -> None:
    both = begun(ROOT, HEIR, **{role: Keys((ROOT.public, HEIR.public), 2)})
    with pytest.raises(InvalidSignature, match=f"1 of 2 keys of {role}"):
        chain.extend(both, following(both, ROOT, ring_seed="new"))
    assert chain.extend(both, following(both, ROOT, HEIR, ring_seed="new")).current.version == 2


def test_a_region_is_led_by_its_officers_and_by_nobody_else() -> None:
    regions = tuple(
        replace(r, officers=Keys((OFFICER.public,)) if r.name == "eu" else r.officers)
        for r in members().regions
    )
    led = begun(ROOT, OFFICER, regions=regions)
    gone = {"members": led.current.members[1:]}  # the daemon of eu
    with pytest.raises(InvalidSignature, match="0 of 1 keys of eu"):
        chain.extend(led, following(led, ROOT, **gone))
    assert len(chain.extend(led, following(led, ROOT, OFFICER, **gone)).current.members) == 2
    elsewhere = {"members": led.current.members[:-1]}
    with pytest.raises(InvalidSignature):
        chain.extend(led, following(led, OFFICER, **elsewhere))


def test_an_officer_cannot_say_more_than_its_own_file_says() -> None:
    led = begun(ROOT)
    raw = following(led, members=led.current.members[1:])
    for changes in (
        {"targets": {}},
        {"targets": {"us/region.json": {"length": 1, "hashes": {"sha256": "0" * 64}}}},
        {"delegations": {"keys": {}, "roles": []}},
    ):
        with pytest.raises(InvalidProof):
            chain.extend(led, resigned(raw, led, **{"eu.json": changes}))


# -- no file but the named one (T04, T05) --------------------------------------------


def test_a_file_from_another_version_does_not_fit() -> None:
    """Mix and match: every file is rightly signed, and they were never meant together."""
    second = chain.extend(CHAIN, following(CHAIN, ring_seed="second"))
    third = parse_bundle(following(second, ring_seed="third", members=members().members[1:]))
    other = parse_bundle(following(second, ring_seed="other", members=members().members[:-1]))
    assert chain.extend(second, third.encode())
    for name in ("targets.json", "members.json", "eu.json", "eu/region.json"):
        files = {**third.files, name: {**other.files, **second.tip.files}[name]}
        with pytest.raises(InvalidProof):
            chain.extend(second, Bundle(3, files).encode())


def test_a_target_file_with_other_bytes_is_refused() -> None:
    raw = parse_bundle(following(CHAIN, ring_seed="new"))
    for name in ("members.json", "witness.policy", "cuts.json", "eu/region.json"):
        content = raw.files.get(name, CHAIN.tip.files[name]) + b" "
        with pytest.raises(InvalidProof, match="is not the file"):
            chain.extend(CHAIN, Bundle(2, {**raw.files, name: content}).encode())


@pytest.mark.parametrize("version", [1, 2, 3, 4, 2**31])
@pytest.mark.parametrize("name", ["targets.json", "eu.json"])
def test_no_version_falls_or_runs_ahead_of_the_trust_version(name: str, version: int) -> None:
    """Fast-forward: a key that was stolen once must not use up all the numbers."""
    second = chain.extend(CHAIN, following(CHAIN, ring_seed="2", members=members().members[1:]))
    raw = following(second, ring_seed="3", members=members().members)
    file = json.loads(parse_bundle(raw).files[name])["signed"] | {"version": version}
    digest = read(canonical_json({"signed": file, "signatures": []}), Targets, name).digest
    snapshot = json.loads(parse_bundle(raw).files["snapshot.json"])["signed"]
    snapshot["meta"][name] = {"hanse_signed": digest.hex(), "version": version}
    forged = resigned(raw, second, **{name: file, "snapshot.json": snapshot})
    if version == 3:
        assert chain.extend(second, forged).current.version == 3
    else:
        with pytest.raises(InvalidProof, match="version"):
            chain.extend(second, forged)


@pytest.mark.parametrize("version", [1, 3, 2**31])
def test_the_root_follows_by_one(version: int) -> None:
    raw = following(CHAIN, ROOT, HEIR, root_keys=(HEIR.public,))
    bundle = parse_bundle(raw)
    files = dict(bundle.files)
    document = json.loads(files.pop("2.root.json"))
    document["signed"]["version"] = version
    files[f"{version}.root.json"] = canonical_json(document)
    forged = signatures.sign(Bundle(2, files), CHAIN.tip, (ROOT, HEIR)).encode()
    with pytest.raises(Rejected, match="does not follow" if version < 10 else None):
        chain.extend(CHAIN, forged)


def test_a_region_that_comes_back_does_not_come_back_older() -> None:
    fewer = {"regions": members().regions[1:], "members": members().members[1:]}
    without = chain.extend(CHAIN, following(CHAIN, **fewer))
    assert "eu.json" not in without.tip.files
    assert "eu.json" in without.tip.signed["snapshot.json"].content.meta
    again = {"regions": members().regions, "members": members().members}
    back = chain.extend(without, following(without, **again))
    assert back.tip.signed["eu.json"].version == 2
    old = {**parse_bundle(following(without, **again)).files}
    old["eu.json"] = CHAIN.tip.files["eu.json"]
    with pytest.raises(Rejected):
        chain.extend(without, Bundle(3, old).encode())


@pytest.mark.parametrize(
    "name", ["", "timestamp.json", "../x", "de.json", "de/region.json", "a" * 300]
)
def test_a_file_that_nothing_names_is_refused(name: str) -> None:
    bundle = parse_bundle(following(CHAIN, ring_seed="new"))
    with pytest.raises(Rejected):
        chain.extend(CHAIN, Bundle(2, {**bundle.files, name: b"{}"}).encode())


# -- two of one version (T15, T16) -----------------------------------------------------


def test_a_version_follows_only_the_one_that_it_names() -> None:
    ours = chain.extend(CHAIN, following(CHAIN, ring_seed="ours"))
    theirs = chain.extend(CHAIN, following(CHAIN, ring_seed="theirs"))
    assert ours.current.digest != theirs.current.digest
    successor = following(theirs, ring_seed="third")
    assert chain.extend(theirs, successor).current.version == 3
    with pytest.raises(InvalidProof, match="follows another version 2"):
        chain.extend(ours, successor)


def test_more_signatures_make_no_other_version() -> None:
    """Whoever has one key of several must not be able to split the federation alone."""
    some = begun(ROOT, snapshot=Keys((ROOT.public, HEIR.public), 1))
    one = chain.extend(some, following(some, ROOT, ring_seed="new"))
    both = chain.extend(some, following(some, ROOT, HEIR, ring_seed="new"))
    assert one.files != both.files
    assert one.current.digest == both.current.digest


def test_two_who_prepare_the_next_version_at_once_cannot_mix_their_drafts() -> None:
    """Only one of two drafts reaches its threshold from two signers (T15)."""
    two = {"targets": Keys((ROOT.public, HEIR.public), 2)}
    before = begun(ROOT, HEIR, **two)
    ours, theirs = (
        parse_bundle(following(before, who, ring_seed=text))
        for who, text in ((ROOT, "ours"), (HEIR, "theirs"))
    )
    with pytest.raises(Conflict):
        signatures.merge(ours, [theirs])
    for draft in (ours, theirs):
        with pytest.raises(InvalidSignature):
            chain.extend(before, draft.encode())


# -- what may only grow ------------------------------------------------------------------


def test_a_floor_falls_only_if_the_root_says_so() -> None:
    targets = Keys((OFFICER.public,))
    raised = begun(ROOT, OFFICER, targets=targets, floors={segment("ocr"): 7})
    lower: dict[str, Any] = {"floors": {segment("ocr"): 3}}
    with pytest.raises(InvalidProof, match="floor of ocr falls"):
        chain.extend(raised, following(raised, ROOT, OFFICER, **lower))
    lower["floor_caps"] = {segment("ocr"): FloorCap(3, 2)}
    with pytest.raises(InvalidSignature, match="root"):
        chain.extend(raised, following(raised, OFFICER, **lower))
    after = chain.extend(raised, following(raised, ROOT, OFFICER, **lower))
    assert after.current.floors == {"ocr": 3}
    with pytest.raises(InvalidProof, match="floor of ocr falls"):
        chain.extend(after, following(after, ROOT, OFFICER, floors={segment("ocr"): 2}))


def test_a_cut_needs_the_root_and_is_never_taken_back() -> None:
    own = Keys((OFFICER.public,))
    before = begun(ROOT, OFFICER, targets=own, snapshot=own)
    cut = Cut(origin("eu"), 5, bytes(32), 3)
    with pytest.raises(InvalidSignature, match="root"):
        chain.extend(before, following(before, OFFICER, cuts=(cut,)))
    after = chain.extend(before, following(before, ROOT, OFFICER, cuts=(cut,)))
    assert after.current.cuts == (cut,)
    for cuts in ((), (replace(cut, void_from=4),)):
        with pytest.raises(InvalidProof, match="taken back"):
            chain.extend(after, following(after, ROOT, OFFICER, cuts=cuts))
    deeper = following(after, ROOT, OFFICER, cuts=(replace(cut, void_from=1),))
    assert chain.extend(after, deeper).current.cuts[0].void_from == 1


def test_a_witness_policy_that_cannot_be_read_is_no_trust_version() -> None:
    broken = following(CHAIN, witness_policy="quorum nobody\n")
    with pytest.raises(InvalidSpec, match="witness policy, line 1"):
        chain.extend(CHAIN, broken)


def test_a_version_of_another_federation_is_refused() -> None:
    with pytest.raises(InvalidProof, match="another federation"):
        chain.extend(CHAIN, following(CHAIN, federation=segment("other")))


# -- reading ---------------------------------------------------------------------------

WITNESS = witness_key("acme", "eu", origin("eu").member, ROOT.public)
WITNESSES = f"witness a {WITNESS.encode()}\nquorum a\n"
FULL = members(
    **TWO_OF_TWO,
    witness_policy=WITNESSES,
    cuts=(Cut(origin("eu"), 9, bytes(32), 4),),
    floors={segment("ocr"): 4},
    floor_caps={segment("seg"): FloorCap(2, 1)},
    residency={segment("eu"): ("us",)},
    thresholds={"publisher": 2, "approver": 1},
    targets=Keys((OFFICER.public, HEIR.public), 2),
    snapshot=Keys((OFFICER.public,)),
    timestamp=Keys((THIRD.public,)),
    regions=tuple(
        Region(segment(r), PEM, Keys((OFFICER.public,)), frozenset({f"{r}-1"}), ("eu", r))
        for r in REGIONS
    ),
    members=tuple(
        Member(segment(r), key(r).public, PEM, f"{r}:1", key(f"witness {r}").public)
        for r in REGIONS
    ),
    quarantine_quorum=3,
)


def test_a_version_is_read_as_it_was_written() -> None:
    assert begun(ROOT, HEIR, OFFICER, **{k: getattr(FULL, k) for k in _FIELDS}).current == FULL


_FIELDS = [f for f in Members.__dataclass_fields__ if f not in ("digest", "version")]


def _people(*people: Person) -> dict[str, Any]:
    return {"people": people}


@pytest.mark.parametrize(
    "changes",
    [
        {"regions": members().regions[:2]},  # a member of a region that is not listed
        {"regions": members().regions * 2},
        {"members": members().members * 2},
        _people(Person("x", OPERATOR.public, ("emperor",), ("*",))),
        _people(Person("x", bytes(32), ("operator",), ("*",))),
        _people(Person("x", key("eu").public, ("operator",), ("*",))),  # a daemon's key
        {"members": (replace(members().members[0], witness_key=key("eu").public),)},
        {"thresholds": {"emperor": 1}},
        {"thresholds": {"publisher": 17}},
        {"regions": (Region(Segment("timestamp"), PEM),), "members": ()},
        {"regions": (Region(Segment("2.root"), PEM),), "members": ()},
        {"root_keys": (bytes(32),)},
        {"targets": Keys((ROOT.public,), 2)},
        {"cuts": (Cut(origin("eu"), 1, bytes(32), 1),) * 2},
    ],
)
def test_a_version_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        begun(**changes)


def test_a_document_with_a_key_twice_is_refused() -> None:
    bundle = parse_bundle(CHAIN.files[0])
    for name in ("1.root.json", "targets.json", "snapshot.json", "eu.json"):
        raw = bundle.files[name].replace(b'"version":1', b'"version":1,"version":1')
        with pytest.raises(InvalidSpec, match="stands twice"):
            chain.start(Bundle(1, {**bundle.files, name: raw}).encode())
    for name in (documents.MEMBERS, documents.FLOORS, documents.RESIDENCY):
        raw = bundle.files[name].replace(b'"schema":1', b'"schema":1,"schema":1')
        with pytest.raises(InvalidSpec, match="stands twice"):
            documents.read_shared({**bundle.files, name: raw})


@pytest.mark.parametrize(
    ("name", "bound", "error"),
    [
        ("1.root.json", limits.TRUST_ROOT_BYTES_MAX, TooLarge),
        ("snapshot.json", limits.TRUST_SNAPSHOT_BYTES_MAX, TooLarge),
        ("targets.json", limits.TRUST_TARGETS_BYTES_MAX, TooLarge),
        ("members.json", limits.TRUST_TARGET_BYTES_MAX, InvalidProof),  # nobody signed for it
    ],
)
def test_a_file_above_its_bound_is_refused(name: str, bound: int, error: type[Rejected]) -> None:
    bundle = parse_bundle(CHAIN.files[0])
    fat = Bundle(1, {**bundle.files, name: b" " * (bound + 1)}).encode()
    with pytest.raises(error):
        chain.start(fat)


@given(st.data())
def test_whatever_is_altered_is_refused(data: st.DataObject) -> None:
    """One flipped bit anywhere in a version, and it is no version any more."""
    raw = bytearray(SECOND)
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Rejected):
        chain.extend(CHAIN, bytes(raw))


SECOND = following(CHAIN, ring_seed="second", members=members().members[1:])


# -- expiry is another question (F19) -----------------------------------------------------


def test_what_expired_long_ago_still_says_who_belongs() -> None:
    old = chain.sign(members(), (ROOT,), expiry=Expiry(1_000_000, 1_000_000))
    assert chain.start(old).current == members()


@given(st.integers(0, instants.LAST_S))
def test_moments_are_written_as_the_calendar_has_them(seconds: int) -> None:
    written = instants.to_iso(seconds)
    assert datetime.fromisoformat(written) == datetime.fromtimestamp(seconds, UTC)


# -- drafts ----------------------------------------------------------------------------


def test_a_draft_may_be_signed_apart_and_in_any_order() -> None:
    keys = (ROOT, HEIR, OFFICER)
    before = begun(*keys, **{k: getattr(FULL, k) for k in _FIELDS})
    after = replace(
        before.current, version=2, root_version=2, root_keys=(HEIR.public, THIRD.public)
    )
    draft = writing.draft(before.tip, after, Expiry())
    apart = [signatures.sign(draft, before.tip, [k]) for k in (*keys, THIRD)]
    for order in (apart, apart[::-1]):
        whole = signatures.merge(draft, order)
        assert not [n for n in signatures.needs(whole, before.tip) if n.missing]
        assert chain.extend(before, whole.encode()).current == after
    almost = signatures.merge(draft, apart[:-1])
    assert [(n.role, n.missing) for n in signatures.needs(almost, before.tip) if n.missing] == [
        ("root 2", 1)
    ]


def test_what_does_not_change_keeps_its_bytes_and_signatures() -> None:
    bundle = parse_bundle(following(CHAIN, members=members().members[1:]))
    assert set(bundle.files) == {"eu.json", "eu/region.json", "snapshot.json"}
    assert set(parse_bundle(following(CHAIN)).files) == {"snapshot.json"}


@given(st.lists(st.sampled_from(["ring", "member", "root", "floor", "policy"]), max_size=6))
def test_any_line_of_versions_replays_to_what_was_written(kinds: list[str]) -> None:
    whole = CHAIN
    for number, kind in enumerate(kinds):
        now = whole.current
        changes: dict[str, Any] = {
            "ring": {"ring_seed": f"ring {number}"},
            "member": {"members": now.members[1:] or members().members},
            "root": {"root_keys": (ROOT.public, key(f"root {number}").public)},
            "floor": {"floors": {segment("ocr"): number}},
            "policy": {"thresholds": {"publisher": number}},
        }[kind]
        whole = chain.extend(whole, following(whole, **changes))
        for name, value in changes.items():
            assert getattr(whole.current, name) == value
    assert chain.replay(whole.files).versions == whole.versions
    assert [m.version for m in whole.versions] == list(range(1, len(kinds) + 2))
