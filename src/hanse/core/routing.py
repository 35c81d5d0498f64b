"""Which requests see the canary or its shadow: decided by a hash, never by a die.

A unit (the caller's routing key, else the request id) falls into one of 2^64 buckets. It is in
the share of `weight_bp` basis points if its bucket lies below that share of the range, so
raising a weight only adds units and nobody flips back and forth. Canary and shadow use
different salts: with one salt the shadow would only ever see canary units.

A plan may give whole nodes to the canary instead: then the node is the unit, by its name.
"""

from __future__ import annotations

import hashlib

BUCKETS = 2**64
_FULL_BP = 10_000


def bucket(salt: str, unit: str) -> int:
    """The bucket of a unit, 0 to 2^64 - 1. The salt's length is hashed, so pairs never blur."""
    name = salt.encode()
    digest = hashlib.sha256(len(name).to_bytes(4, "big") + name + unit.encode()).digest()
    return int.from_bytes(digest[:8], "big")


def threshold(weight_bp: int) -> int:
    """The first bucket outside a share of `weight_bp` of 10,000."""
    return weight_bp * BUCKETS // _FULL_BP


def takes_all(salt: str, node: str, weight_bp: int) -> bool:
    """Whether a node is in the share of the nodes that answer with the canary alone."""
    return bucket(f"{salt}/node", node) < threshold(weight_bp)


def shadow_salt(salt: str) -> str:
    return f"{salt}/shadow"
