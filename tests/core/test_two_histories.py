"""Two histories of one log are never both final, as long as no more witnesses lie than f (I3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random

import pytest
from federation import CODEC, ROOT, Author, key
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from witnessed import members, origin, witness

from hanse.core.errors import InvalidProof
from hanse.core.events import Note
from hanse.core.finality import Finality
from hanse.core.log.checkpoint import Checkpoint, cosignature
from hanse.core.log.merkle import leaf_hash, root_of
from hanse.core.log.note import Note as SignedNote
from hanse.core.log.policy import default_quorum, parse_policy
from hanse.core.log.proofs import consistency_proof, verify_consistency
from hanse.core.log.witness import NOTHING, Seen
from hanse.core.logbook import Logbook
from hanse.core.trust import chain

LOG = origin("r0")
SHARED = 3


def policy(n: int, q: int) -> str:
    lines = [f"witness w{i} {witness(f'r{i}').encode()}" for i in range(n)]
    names = " ".join(f"w{i}" for i in range(n))
    return "\n".join([*lines, f"group all-of-them {q} {names}", "quorum all-of-them"]) + "\n"


@lru_cache
def chain_of(n: int, q: int) -> chain.Chain:
    regions = [f"r{i}" for i in range(n)]
    return chain.replay((chain.sign(members(regions, policy(n, q)), (ROOT,)),))


@lru_cache
def history(n: int, q: int, half: int, size: int) -> Author:
    author = Author("r0", book=Logbook(CODEC, chain_of(n, q)))
    for i in range(size):
        author.write(Note(f"{i}" if i < SHARED else f"{i} for half {half}"))
    return author


@dataclass
class World:
    """An author that lies to two halves, `liars` that cosign all, and the honest others."""

    n: int
    q: int
    liars: frozenset[int]
    sizes: tuple[int, int]
    orders: tuple[tuple[int, ...], ...]
    """Per honest witness, which of the two histories it is shown, one after the other."""

    def both_final(self) -> bool:
        trust = chain_of(self.n, self.q)
        histories = [history(self.n, self.q, half, self.sizes[half]) for half in (0, 1)]
        lines = [self._cosign(i, histories) for i in range(self.n)]
        return all(self._final(trust, histories[half], lines, half) for half in (0, 1))

    def _cosign(self, i: int, histories: list[Author]) -> list[bytes]:
        """For each half, the lines that witness `i` gives on its head."""
        given_: list[bytes] = [b"", b""]
        seen = NOTHING
        for half in (0, 1) if i in self.liars else self.orders[i]:
            leaves = [leaf_hash(e) for a in histories[half].appends for e in a.events]
            head = Checkpoint(str(LOG), len(leaves), root_of(leaves))
            if i not in self.liars:
                if not seen.allows(head):
                    continue
                proof = consistency_proof(leaves, seen.size)
                try:
                    verify_consistency(seen.size, head.size, proof, seen.root, head.root)
                except InvalidProof:
                    continue
                seen = Seen(head.size, head.root)
            line = cosignature(head, witness(f"r{i}"), key(f"witness of r{i}"), 1_700_000_000)
            given_[half] += line.line().encode()
        return given_

    def _final(
        self, trust: chain.Chain, author: Author, lines: list[list[bytes]], half: int
    ) -> bool:
        """Whether a daemon of that half, which hears every cosignature on its history, is sure."""
        book = Logbook(CODEC, trust)
        finality = Finality(origin("r1"), book, None, {})
        for append in author.appends:
            added = book.extend(LOG, append.start, append.events, append.head.note)
            assert added is not None
            finality.grown(added[0].head, added[1], 0.0)
        bare = SignedNote.parse(book.heads[LOG].note).render()
        for witnessed in lines:
            if witnessed[half]:
                finality.heard(LOG, bare + witnessed[half], origin("r1").member)
        return book.heads[LOG].final_size == book.size(LOG)


@st.composite
def worlds(draw: st.DrawFn, n: int, q: int, liars: int) -> World:
    lying = draw(st.permutations(range(n)))[:liars]
    return World(
        n,
        q,
        frozenset(lying),
        (draw(st.integers(SHARED + 1, 6)), draw(st.integers(SHARED + 1, 6))),
        tuple(draw(st.sampled_from([(0,), (1,), (0, 1), (1, 0)])) for _ in range(n)),
    )


POLICIES = [(4, 3, 1), (5, 4, 2), (7, 5, 2)]


@pytest.mark.parametrize(("n", "q", "f"), POLICIES)
def test_two_histories_are_never_both_final(n: int, q: int, f: int) -> None:
    assert default_quorum(n) == q
    assert parse_policy(policy(n, q)).liars_tolerated == f

    @settings(max_examples=40, deadline=None)
    @given(worlds(n, q, f))
    def holds(world: World) -> None:
        assert not world.both_final()

    holds()


@pytest.mark.parametrize(("n", "q", "f"), POLICIES)
def test_one_witness_less_in_the_quorum_or_one_liar_more_and_it_breaks(
    n: int, q: int, f: int
) -> None:
    """The promise above is as strong as the arithmetic says and no stronger."""
    quick = settings(max_examples=2000, deadline=None, phases=[Phase.generate])
    for weaker in (worlds(n, q - 1, f), worlds(n, q, f + 1)):
        try:
            find(weaker, lambda w: w.both_final(), settings=quick, random=Random(7))
        except NoSuchExample:
            pytest.fail("no double finality was found where there must be one")
