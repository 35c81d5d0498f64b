"""Witness policies: C2SP tlog-policy, read strictly, counted by keys."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core import limits
from hanse.core.errors import InvalidSpec, TooLarge
from hanse.core.ids import Segment, member_id
from hanse.core.log.note import COSIGNATURE_V1, ED25519, VerifierKey
from hanse.core.log.policy import (
    Policy,
    default_policy,
    default_quorum,
    parse_policy,
    witness_key,
)
from hanse.core.signing import SigningKey


def public(seed: int) -> bytes:
    return SigningKey(bytes([seed]) * 32).public


def vkey(name: str, seed: int, kind: int = COSIGNATURE_V1) -> str:
    return VerifierKey(name, kind, public(seed)).encode()


X = [VerifierKey(f"example.com/x{i}", COSIGNATURE_V1, public(i)) for i in (1, 2, 3)]
Y = [VerifierKey(f"example.com/y{i}", COSIGNATURE_V1, public(10 + i)) for i in (1, 2, 3)]
TWO_LEVELS = "".join(
    [
        "# two organisations\n\n",
        *(f"witness X{i} {k.encode()}\n" for i, k in enumerate(X, 1)),
        "group X-witnesses 2 X1 X2 X3\n",
        *(f"\twitness  Y{i}\t{k.encode()} https://y{i}.example/ \n" for i, k in enumerate(Y, 1)),
        "group Y-witnesses any Y1 Y2 Y3\n",
        "group X-and-Y all X-witnesses Y-witnesses\n",
        "quorum X-and-Y\n",
    ]
)


def test_the_example_of_the_specification_counts_as_it_says() -> None:
    policy = parse_policy(TWO_LEVELS)
    assert [w.url for w in policy.witnesses] == [""] * 3 + [
        f"https://y{i}.example/" for i in (1, 2, 3)
    ]
    for xs in range(4):
        for ys in range(4):
            assert policy.satisfied([*X[:xs], *Y[:ys]]) == (xs >= 2 and ys >= 1)
    assert policy.missing(X[1:]) == ("Y-witnesses",)
    assert policy.needed == (2, 2)


def test_keys_count_and_not_names() -> None:
    policy = parse_policy(TWO_LEVELS)
    again = VerifierKey("example.com/other-name", COSIGNATURE_V1, X[0].public)
    assert not policy.satisfied([X[0], again, Y[0]])
    assert policy.satisfied([again, X[1], Y[0]])


def test_a_single_witness_may_be_the_quorum() -> None:
    policy = parse_policy(f"witness w {X[0].encode()}\nquorum w\n")
    assert policy.satisfied([X[0]])
    assert not policy.satisfied(X[1:])
    assert (policy.needed, policy.missing(), policy.liars_tolerated) == ((1, 1), ("w",), 0)


def test_under_quorum_none_nothing_is_required_and_nothing_final() -> None:
    policy = parse_policy("quorum none\n")
    assert policy.requires_nothing
    assert not policy.satisfied([])
    assert policy.missing() == ()


MANY = "".join(f"witness w{i} {vkey(f'w{i}', 60 + i)}\n" for i in range(16)) + (
    "group g all " + " ".join(f"w{i}" for i in range(16)) + "\n"
)
W1, W2 = f"witness a {X[0].encode()}\n", f"witness b {X[1].encode()}\n"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "no quorum"),
        (W1, "no quorum"),
        (W1 + "quorum a", "cut off"),
        (W1 + "quorum a\nquorum a\n", "line 3.*already"),
        (W1 + "quorum b\n", "not defined"),
        ("quorum a\n" + W1, "line 1.*not defined"),
        (W1 + W1 + "quorum a\n", "already under another name"),
        (W1 + W2.replace("witness b", "witness a") + "quorum a\n", "taken"),
        (f"witness none {X[0].encode()}\nquorum none\n", "taken"),
        (W1 + f"witness b {vkey('other', 1)}\nquorum a\n", "already under another name"),
        (f"witness a {vkey('a', 1, ED25519)}\nquorum a\n", "0x01, not 0x04"),
        (f"log {vkey('a', 1)}\nquorum none\n", "0x04, not 0x01"),
        (f"log {vkey('a', 1, ED25519)}\nlog {vkey('b', 1, ED25519)}\nquorum none\n", "already"),
        (W1 + W2 + "group g 3 a b\nquorum g\n", "can never"),
        (W1 + W2 + "group g 0 a b\nquorum g\n", "neither any"),
        (W1 + W2 + "group g 01 a b\nquorum g\n", "neither any"),
        (W1 + W2 + "group g +1 a b\nquorum g\n", "neither any"),
        (W1 + W2 + "group g \u0661 a b\nquorum g\n", "neither any"),
        (W1 + W2 + "group g any\nquorum g\n", "no policy line"),
        (W1 + W2 + "group g any a a\nquorum g\n", "member of a group already"),
        (W1 + W2 + "group g any a\ngroup h any a\nquorum h\n", "member of a group already"),
        (W1 + "group g any none\nquorum g\n", "not defined"),
        (W1 + "group g any g\nquorum g\n", "not defined"),
        (W1 + "quorum a b\n", "no policy line"),
        (W1 + "Quorum a\n", "no policy line"),
        (W1 + "quorum a\r\n", "control character"),
        (W1 + "quorum a # \x7f\n", "control character"),
        (W1.replace("\n", " ftp://x\n") + "quorum a\n", "no URL"),
        (MANY + "quorum g\n", "a note holds 15"),
        ("witness a b\nquorum a\n", "line 1.*not a verifier key"),
    ],
)
def test_what_cannot_be_read_as_meant_is_refused_with_its_line(text: str, wrong: str) -> None:
    with pytest.raises(InvalidSpec, match=wrong):
        parse_policy(text)


def test_a_policy_has_a_bound() -> None:
    with pytest.raises(TooLarge):
        parse_policy("#" * limits.POLICY_BYTES_MAX + "\nquorum none\n")


def test_names_are_bytes_and_nothing_is_folded() -> None:
    policy = parse_policy(
        f"witness K {X[0].encode()}\nwitness \u212a {X[1].encode()}\nquorum \u212a\n"
    )
    assert policy.satisfied([X[1]])
    assert not policy.satisfied([X[0]])
    with pytest.raises(InvalidSpec, match="no policy line"):  # a space, but not an ASCII one
        parse_policy(W1 + "quorum\u00a0a\n")


# -- liars and losses ---------------------------------------------------------------


def regions(n: int) -> dict[Segment, dict[object, bytes]]:
    return {Segment(f"r{i:02}"): {member_id(public(i)): public(100 + i)} for i in range(n)}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("n", "q", "f"),
    [(2, 2, 1), (3, 2, 0), (4, 3, 1), (5, 4, 2), (7, 5, 2), (10, 7, 3), (15, 10, 4)],
)
def test_the_default_tolerates_what_the_arithmetic_says(n: int, q: int, f: int) -> None:
    policy = parse_policy(default_policy(Segment("fed"), regions(n)))  # type: ignore[arg-type]
    assert default_quorum(n) == q
    assert policy.needed == (q, n)
    assert (policy.liars_tolerated, policy.losses_tolerated) == (f, n - q)
    assert policy.liars_tolerated >= (n - 1) // 3


def test_with_fewer_than_two_regions_there_is_no_finality() -> None:
    assert default_policy(Segment("fed"), regions(1)) == "quorum none\n"  # type: ignore[arg-type]


def test_a_region_of_two_daemons_has_one_witness() -> None:
    keys = regions(2)
    keys[Segment("r00")][member_id(public(50))] = public(150)
    policy = parse_policy(default_policy(Segment("fed"), keys))  # type: ignore[arg-type]
    member = min(keys[Segment("r00")])  # type: ignore[type-var]
    mine = witness_key("fed", "r00", member, keys[Segment("r00")][member])  # type: ignore[arg-type]
    assert len(policy.witnesses) == 2
    assert policy.witnesses[0].key == mine


def test_any_one_of_two_witnesses_needs_no_liar() -> None:
    assert parse_policy(W1 + W2 + "group g any a b\nquorum g\n").liars_tolerated == -1


def test_a_quorum_always_fits_on_a_note() -> None:
    policy = parse_policy(default_policy(Segment("fed"), regions(40)))  # type: ignore[arg-type]
    assert len(policy.witnesses) < limits.NOTE_SIGNATURES_MAX


@st.composite
def trees(draw: st.DrawFn) -> Policy:
    """A policy over six witnesses in one or two levels of groups."""
    lines = [f"witness w{i} {vkey(f'w{i}', 20 + i)}" for i in range(6)]
    loose = [f"w{i}" for i in range(6)]
    for g in range(draw(st.integers(0, 2))):
        size = draw(st.integers(1, 3))
        members, loose = loose[:size], loose[size:]
        lines.append(f"group g{g} {draw(st.integers(1, len(members)))} {' '.join(members)}")
        loose.append(f"g{g}")
    lines.append(f"group top {draw(st.integers(1, len(loose)))} {' '.join(loose)}")
    return parse_policy("\n".join([*lines, "quorum top"]) + "\n")


@given(trees())
def test_liars_and_losses_are_what_trying_every_set_finds(policy: Policy) -> None:
    sets = [set(c) for n in range(7) for c in combinations(policy.keys, n)]
    quorums = [s for s in sets if policy.satisfied(s)]
    assert policy.cosignatures_needed == min(map(len, quorums))
    assert policy.liars_tolerated == min(len(a & b) for a in quorums for b in quorums) - 1
    stuck = [len(s) for s in sets if not policy.satisfied(set(policy.keys) - s)]
    assert policy.losses_tolerated == min(stuck) - 1
