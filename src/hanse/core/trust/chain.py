"""The chain of trust versions, replayed from its first at every start.

Version 1 is the bootstrap: whoever runs a daemon chose to trust it. Each later version is
exactly one higher and follows from the one before (`repository.advance`), so nobody can skip,
fork or roll back trust. All versions are kept, because an event is judged by the version that
its author names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from hanse.core.errors import InvalidProof
from hanse.core.rollout.places import Labels
from hanse.core.signing import SigningKey
from hanse.core.trust import signatures, writing
from hanse.core.trust.bundle import parse_bundle
from hanse.core.trust.members import Members
from hanse.core.trust.repository import Repository, advance
from hanse.core.trust.writing import Expiry


@dataclass(frozen=True, slots=True)
class Chain:
    """`files[i]` is the bundle of version i + 1, `versions[i]` what it says."""

    files: tuple[bytes, ...]
    versions: tuple[Members, ...]
    tip: Repository
    """The files of the current version, from which the next one follows."""

    @property
    def current(self) -> Members:
        return self.versions[-1]

    def at(self, version: int) -> Members | None:
        return self.versions[version - 1] if 1 <= version <= len(self.versions) else None

    def labels_at(self, version: int) -> Labels | None:
        """The labels of every region then; None for a version that we do not have."""
        members = self.at(version)
        return None if members is None else members.labels_of_all


@lru_cache(maxsize=256)
def start(raw: bytes) -> Chain:
    """Begin a chain from the bootstrap version, which must be signed by its own thresholds.

    Pure; kept, because a process begins every chain that it replays from the same few.
    """
    tip = advance(None, parse_bundle(raw))
    return Chain((raw,), (tip.members,), tip)


def extend(chain: Chain, raw: bytes) -> Chain:
    """Add the next version. Raises `Rejected`; changes nothing."""
    tip = advance(chain.tip, parse_bundle(raw))
    return Chain((*chain.files, raw), (*chain.versions, tip.members), tip)


def replay(files: tuple[bytes, ...]) -> Chain:
    """Verify a whole chain again, as every start does: cached state is never trusted (T45)."""
    if not files:
        raise InvalidProof("there is no trust version", fix="run hanse daemon init or join")
    chain = start(files[0])
    for raw in files[1:]:
        chain = extend(chain, raw)
    return chain


def sign(
    members: Members,
    keys: Iterable[SigningKey],
    before: Chain | None = None,
    expiry: Expiry = Expiry(),  # noqa: B008  # immutable
) -> bytes:
    """The bundle that says `members` after `before`, signed with every key that may.

    It is not verified here: whoever lacks keys gets a draft for others to sign.
    """
    tip = before.tip if before else None
    bundle = writing.draft(tip, members, expiry)
    return signatures.sign(bundle, tip, keys).encode()
