"""The TUF timestamp: a statement that a trust version was the newest at some moment.

An online key signs one every day, good for three days, so a daemon that hears of no other
notices that it is kept from the news (T03). Its version is the Unix second of its signing:
nobody can use up the numbers without a clock that is wrong for everybody to see (T04), and
two holders of the key need not agree on the next one.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuf.api.metadata import SPECIFICATION_VERSION, Timestamp

from hanse.core.errors import InvalidProof
from hanse.core.ids import member_id
from hanse.core.reading import canonical_json
from hanse.core.signing import SigningKey
from hanse.core.trust import instants
from hanse.core.trust.members import Members
from hanse.core.trust.metadata import read

LIFE_S = 3 * instants.DAY_S
RENEW_S = instants.DAY_S


@dataclass(frozen=True, slots=True)
class Stamp:
    """A verified timestamp; `signed_s` is its TUF version."""

    raw: bytes
    signed_s: int
    trust_version: int
    trust_digest: bytes

    @property
    def expires_s(self) -> int:
        return self.signed_s + LIFE_S


def sign_stamp(members: Members, key: SigningKey, now_s: int) -> Stamp:
    """Say that `members` is the newest trust version at `now_s`."""
    signed = {
        "_type": "timestamp",
        "expires": instants.to_iso(now_s + LIFE_S),
        "hanse_trust": members.digest.hex(),
        "meta": {"snapshot.json": {"version": members.version}},
        "spec_version": ".".join(SPECIFICATION_VERSION),
        "version": now_s,
    }
    unsigned = canonical_json({"signatures": [], "signed": signed})
    signature = key.sign(read(unsigned, Timestamp, "timestamp.json").text).hex()
    signatures = [{"keyid": member_id(key.public), "sig": signature}]
    raw = canonical_json({"signatures": signatures, "signed": signed})
    return Stamp(raw, now_s, members.version, members.digest)


def open_stamp(raw: bytes, members: Members) -> Stamp:
    """Verify a timestamp by the keys that `members` lists. Raises `Rejected`.

    It may speak of a trust version that has not reached us.
    """
    found = read(raw, Timestamp, "timestamp.json")
    found.demand(members.timestamp, "timestamp")
    if found.expires_s != found.version + LIFE_S:
        raise InvalidProof("timestamp.json is not good for exactly three days from its signing")
    meta, extra = found.content.snapshot_meta, found.content.unrecognized_fields
    digest = extra.get("hanse_trust")
    if (meta.length, meta.hashes, meta.unrecognized_fields, set(extra)) != (
        None,
        None,
        {},
        {"hanse_trust"},
    ):
        raise InvalidProof("timestamp.json says something else than it should")
    if not isinstance(digest, str) or len(digest) != 64:
        raise InvalidProof("timestamp.json does not name a trust digest")
    try:
        named = bytes.fromhex(digest)
    except ValueError:
        raise InvalidProof("timestamp.json does not name a trust digest") from None
    return Stamp(raw, found.version, meta.version, named)
