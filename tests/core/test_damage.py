"""What was found damaged: told once, healed by its file, kept across restarts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.core.damage import BYTES_MAX, SHOWN_MAX, Damage, Scrub
from hanse.core.errors import Rejected
from hanse.core.ids import Digest

DIGESTS = [Digest.of(bytes([n])) for n in range(5)]
DAMAGES = st.builds(
    Damage,
    st.sampled_from(DIGESTS),
    st.sampled_from(["file", "recipe", "copy in the bucket"]),
    st.integers(0, 2**50),
    st.booleans(),
)


@given(st.lists(st.one_of(DAMAGES, st.sets(st.sampled_from(DIGESTS))), max_size=90))
def test_what_is_open_is_what_nobody_has_healed_since(told: list[Damage | set[Digest]]) -> None:
    scrub, lost = Scrub(), set[Digest]()
    for each in told:
        if isinstance(each, Damage):
            scrub = scrub.tell(each)
            lost |= set() if each.healed else {each.digest}
        else:
            scrub = scrub.heal(each)
            lost -= each
        assert set(scrub.open) <= lost
        assert len(scrub.found) < SHOWN_MAX or len(scrub.found) == SHOWN_MAX
        if len(scrub.found) < SHOWN_MAX:
            assert set(scrub.open) == lost
        assert len(scrub.open) == len(set(scrub.open))
        assert Scrub.decode(scrub.encode()) == scrub
        assert len(scrub.encode()) < BYTES_MAX


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"after":"","began_ms":1,"found":[1]}'])
def test_what_is_no_note_is_refused(raw: bytes) -> None:
    with pytest.raises(Rejected):
        Scrub.decode(raw)
