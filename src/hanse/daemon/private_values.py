"""Private values: kept here when a release is published, shown to auditors who may ask.

Only the commitment is in the manifest. Salt and value lie in the `private` space of this
daemon's own registry, which no frame, door, bundle, query or log line reads. Whoever wants
one shown hands in an auditor's signed request; that it was shown is an event in our log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hanse.core.catalog import private
from hanse.core.catalog.manifest import Manifest
from hanse.core.catalog.private import Opening
from hanse.core.dsse import open_envelope
from hanse.core.errors import Conflict, InvalidSpec, NotFound, NotPermitted
from hanse.core.events import Note, check_text
from hanse.core.ids import Digest, MemberId
from hanse.core.node import Clock, Node
from hanse.core.reading import canonical_json, parse_json
from hanse.core.trust.members import Members
from hanse.daemon.driver import Driver
from hanse.storage.contract import EventStore

SPACE = "private"
RECORD_BYTES_MAX = 64 * 1024


def check_clear(manifest: Manifest, policy: Sequence[str]) -> None:
    """Refuse a release that says in clear what this region keeps private."""
    shown = private.in_clear(manifest, policy)
    if shown:
        raise Conflict(
            f"this region keeps {', '.join(shown)} private",
            fix=f"publish again with {' '.join(f'--private {field}' for field in shown)}",
        )


def keep(node: Node, release: Digest, manifest: Manifest, given: Any) -> None:
    """Store every opening with the next step. Raises `InvalidSpec` or `InvalidProof`."""
    if not isinstance(given, Mapping):
        raise InvalidSpec("openings: expected a mapping by field")
    for opening in private.openings(release, manifest, given):
        secret = canonical_json({"salt": opening.salt.hex(), "value": opening.value})
        node.region.keep(SPACE, _key(release, opening.field), secret)


class PrivateValues:
    """Made once, by the composition root."""

    def __init__(self, driver: Driver, store: EventStore) -> None:
        self._driver, self._store = driver, store

    async def reveal(self, release: Digest, field: str, to: str, envelope: bytes) -> Opening:
        """The opening, once it is on record who was shown it.

        Raises `NotPermitted` unless `to` is an auditor of this region who has asked for just
        this, `NotFound` for what this daemon does not keep.
        """
        node = self._driver.node
        asked = private.request(node.me.federation, release, field)
        auditor = _auditor(node.book.chain.current, node.me.region, to, envelope, asked)
        secret = (await self._store.local(SPACE)).get(_key(release, field))
        if secret is None:
            raise NotFound(
                f"no private {field} of release {release.short} is kept here",
                fix="ask the daemon that recorded the release",
            )
        text = f"showed {field} of {release} to {auditor}"

        def record(node: Node, _: Clock) -> None:
            node.propose(Note(check_text(text, "note")), attestations=[envelope])

        await self._driver.do(record)
        found = parse_json(secret, "private value", bytes_max=RECORD_BYTES_MAX)
        return Opening(release, field, private.parse_salt(found["salt"]), found["value"])


def _auditor(members: Members, region: str, to: str, envelope: bytes, asked: bytes) -> MemberId:
    """The id of the auditor of that name or id, whose key has signed exactly this request."""
    keys = members.keys("auditor", region)
    chosen = {id_: key for id_, key in keys.items() if to in (id_, members.name_of(id_))}
    if not chosen:
        known = ", ".join(sorted(map(members.name_of, keys))) or "nobody"
        raise NotPermitted(f"{to[:80]} is no auditor of {region}", fix=f"auditors: {known}")
    found, signers = open_envelope(envelope, chosen)
    if (found.payload_type, found.payload) != (private.REQUEST_TYPE, asked):
        raise NotPermitted(
            f"{to[:80]} has asked for something else",
            fix="sign a request for this release and field with hanse audit ask",
        )
    return min(signers)


def _key(release: Digest, field: str) -> str:
    return f"{release.hex}/{field}"
