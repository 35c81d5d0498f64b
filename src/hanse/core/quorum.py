"""Which cosignatures make a head final under a trust chain.

A head counts by the policy of the trust version under which its last event was written, or by
any later one. So all who hold the same trust and the same notes agree, a change of policy takes
no finality back, and a witness that was removed vouches for nothing that is written after that
(decision 0013). The author's own region alone never suffices.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache

from hanse.core.ids import Origin, Segment
from hanse.core.log.note import VerifierKey
from hanse.core.log.policy import Policy, parse_policy, witness_key
from hanse.core.trust.chain import Chain

read_policy = lru_cache(maxsize=64)(parse_policy)


def quorum(
    asked: Iterable[Policy], own: Collection[bytes], lines: Collection[VerifierKey]
) -> tuple[VerifierKey, ...]:
    """Those whose verified lines make a head final by one of these policies; empty if none do."""
    for policy in asked:
        signers = tuple(key for key in policy.keys if key in lines)
        # A region cannot vouch for itself, whatever the policy says.
        if policy.satisfied(signers) and any(key.public not in own for key in signers):
            return signers
    return ()


def witness_keys(chain: Chain, region: Segment) -> frozenset[bytes]:
    """Every witness key that a daemon of this region has ever had."""
    members = (m for version in chain.versions for m in version.members)
    keys = (m.witness_key for m in members if m.region == region)
    return frozenset(key for key in keys if key is not None)


def policies(chain: Chain, since: int) -> tuple[Policy, ...]:
    """The policies in force from that trust version on that ask for something, newest first."""
    texts = dict.fromkeys(m.witness_policy for m in reversed(chain.versions[max(since, 1) - 1 :]))
    return tuple(p for p in map(read_policy, texts) if not p.requires_nothing)


def own_key(chain: Chain, me: Origin, public: bytes) -> VerifierKey:
    """The name under which a policy knows our witness key, or the one that it would have."""
    named = (key for p in policies(chain, 1) for key in p.keys if key.public == public)
    return next(named, witness_key(me.federation, me.region, me.member, public))
