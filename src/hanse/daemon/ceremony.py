"""How a federation begins and how a daemon joins it: with files, keys and nothing else.

    init    makes the root key, the first daemon and members file 1
    join    makes a daemon's keys and asks, with a request signed by its own key
    admit   the holder of the root key answers with members file n + 1

Membership is decided by whoever holds the root key, never by a running process, so all three
work without a network. A home without `hanse.toml` is unfinished: that file is written last.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hanse.core.errors import Conflict, NotFound
from hanse.core.ids import MemberId, Segment, check_address, member_id, segment
from hanse.core.signing import SigningKey
from hanse.core.trust import chain
from hanse.core.trust.ceremonies import keep_default_policy
from hanse.core.trust.members import Keys, Member, Members, Person, Region
from hanse.core.trust.writing import Expiry
from hanse.daemon.config import FILE_NAME, FIRST_START, render
from hanse.daemon.join_request import read_request, sign_request
from hanse.daemon.private_files import read_private, read_seed, write_new, write_seed
from hanse.daemon.trust_folder import add_file
from hanse.rpc import certificates

REQUEST_FILE = "join-request.json"
OPERATOR_ROLES = ("publisher", "release-manager", "operator")


@dataclass(frozen=True, slots=True)
class Founded:
    """What `init` made. The root key decides who belongs: keep it off this machine."""

    member: MemberId
    root_key: Path
    operator_key: Path


def init(
    home: Path,
    federation: str,
    region: str,
    listen: str,
    advertise: str,
    now: datetime.datetime,
) -> Founded:
    """Found a federation of one. Raises `Conflict` if there is anything in the way."""
    name, place = segment(federation, "federation"), segment(region, "region")
    check_address(listen, "listen")
    address = check_address(advertise or listen, "advertise")
    _check_free(home)
    daemon, witness, authority = _make_keys(home, name, place, now, None)
    root, operator, stamping = (
        _new_key(home / f"keys/{name}.key") for name in ("root", "operator", "timestamp")
    )
    members = Members(
        federation=name,
        version=1,
        root_keys=(root.public,),
        root_threshold=1,
        ring_seed=secrets.token_hex(16),
        regions=(Region(place, authority.cert_pem.decode()),),
        members=(_listed(home, place, daemon, witness, address),),
        people=(Person("operator", operator.public, OPERATOR_ROLES, ("*",)),),
        timestamp=Keys((stamping.public,)),
    )
    expiry = Expiry.after(int(now.timestamp()))
    add_file(home / "trust", 1, chain.sign(members, (root,), expiry=expiry))
    _write_config(home, name, place, listen, advertise)
    return Founded(member_id(daemon.public), home / "keys/root.key", home / "keys/operator.key")


def join(
    home: Path,
    files: Sequence[bytes],
    region: str,
    listen: str,
    advertise: str,
    now: datetime.datetime,
    edge_ca: certificates.Identity | None = None,
) -> bytes:
    """Make the keys of a daemon and its request, also left in `join-request.json`.

    `files` is the chain of the federation to join. A region that exists already has an edge
    CA, and `edge_ca` must be that one: nodes of a region may turn to any of its daemons.
    """
    current = chain.replay(tuple(files)).current
    place = segment(region, "region")
    check_address(listen, "listen")
    address = check_address(advertise or listen, "advertise")
    _check_address_free(current, address)
    _check_edge_ca(current, place, edge_ca.cert_pem.decode() if edge_ca else None)
    _check_free(home)
    daemon, witness, authority = _make_keys(home, current.federation, place, now, edge_ca)
    member = _listed(home, place, daemon, witness, address)
    request = sign_request(current.federation, member, authority, (daemon, witness))
    write_new(home / REQUEST_FILE, request)
    _write_config(home, current.federation, place, listen, advertise)
    return request


def admit(
    request: bytes,
    files: Sequence[bytes],
    root_keys: Sequence[SigningKey],
    now: datetime.datetime,
) -> bytes:
    """The next members file, with the daemon that asks. Raises `Conflict` or `NotPermitted`.

    The root may also keep the default witness policy complete, which a region's officers alone,
    who sign a draft, may not.
    """
    known = chain.replay(tuple(files))
    whole = keep_default_policy(known.current, admitted(request, known.current))
    following = replace(whole, version=known.current.version + 1)
    expiry = Expiry.after(int(now.timestamp()))
    raw = chain.sign(following, root_keys, known, expiry)
    chain.extend(known, raw)  # exactly what every daemon will check
    return raw


def admitted(request: bytes, current: Members) -> Members:
    """`current` with the daemon that asks, and its region if that is new. Raises `Conflict`."""
    asked = read_request(request)
    member = asked.member
    if asked.federation != current.federation:
        raise Conflict(
            f"the request is for {asked.federation}, this is {current.federation}",
            fix="join again with a members file of this federation",
        )
    if current.member(member.id):
        raise Conflict(f"{member.id} is a member already", fix="give it the newest members file")
    _check_address_free(current, member.address)
    _check_edge_ca(current, member.region, asked.edge_ca_pem)
    new = [] if current.region(member.region) else [Region(member.region, asked.edge_ca_pem)]
    return replace(current, regions=(*current.regions, *new), members=(*current.members, member))


def read_edge_ca(home: Path) -> certificates.Identity:
    """The edge CA of a home. Raises `NotFound` if it is kept elsewhere."""
    certificate = home / "keys/edge-ca.crt"
    if not certificate.exists():
        raise NotFound(f"there is no {certificate}", fix="name the home that has the edge CA")
    return certificates.Identity(certificate.read_bytes(), read_private(home / "keys/edge-ca.key"))


def _check_free(home: Path) -> None:
    for name in (FILE_NAME, "keys", "trust"):
        if (home / name).exists():
            raise Conflict(
                f"{home} holds a {name} already, and keys are never overwritten",
                fix="name another --home; remove that folder only if you know that nobody needs it",
            )


def _make_keys(
    home: Path,
    federation: Segment,
    region: Segment,
    now: datetime.datetime,
    edge_ca: certificates.Identity | None,
) -> tuple[SigningKey, SigningKey, certificates.Identity]:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = home / "keys"
    daemon, witness = _new_key(keys / "daemon.key"), _new_key(keys / "witness.key")
    member = member_id(daemon.public)
    span = certificates.from_now(now, certificates.AUTHORITY_LIFE)
    uri = certificates.daemon_uri(federation, region, member)
    identity = certificates.authority(uri, span, f"daemon-{member}")
    if edge_ca is None:
        # The random part makes issuer names differ: TLS finds a node's issuer by its name.
        name = f"ca-{secrets.token_hex(8)}-{region}"
        uri = f"spiffe://{federation}/{region}/edge-ca/{name}"
        edge_ca = certificates.authority(uri, span, name)
    for name, pair in (("tls", identity), ("edge-ca", edge_ca)):
        write_new(keys / f"{name}.key", pair.key_pem)
        write_new(keys / f"{name}.crt", pair.cert_pem, mode=0o644)
    return daemon, witness, edge_ca


def _new_key(path: Path) -> SigningKey:
    key = SigningKey(secrets.token_bytes(32))
    write_seed(path, key.seed)
    return key


def _listed(
    home: Path, region: Segment, key: SigningKey, witness: SigningKey, address: str
) -> Member:
    certificate = (home / "keys/tls.crt").read_text()
    return Member(region, key.public, certificate, address, witness.public)


def _write_config(
    home: Path, federation: Segment, region: Segment, listen: str, advertise: str
) -> None:
    values = {"federation": federation, "region": region, "listen": listen}
    text = render({**values, "advertise": advertise} if advertise else values)
    # An empty registry alone could as well be one that was lost.
    write_new(home / FIRST_START, b"This daemon has not run yet. It removes this file.\n")
    write_new(home / FILE_NAME, text.encode())


def _check_address_free(members: Members, address: str) -> None:
    taken = next((m for m in members.members if m.address == address), None)
    if taken is not None:
        raise Conflict(
            f"{address} is the address of the daemon of {taken.region}",
            fix="join with another --listen or --advertise",
        )


def _check_edge_ca(members: Members, region: Segment, edge_ca_pem: str | None) -> None:
    known = members.region(region)
    if known is not None and known.edge_ca_pem != edge_ca_pem:
        raise Conflict(
            f"region {region} has an edge CA, and a second daemon has to carry the same one",
            fix="join with --edge-ca and the home of a daemon of that region, or name a new region",
        )


def root_keys(paths: Sequence[Path]) -> tuple[SigningKey, ...]:
    return tuple(SigningKey(read_seed(path)) for path in paths)
