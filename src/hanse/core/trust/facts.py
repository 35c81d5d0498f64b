"""What a trust version says, fact by fact in plain words, and what another one changes in it.

Whoever signs a draft reads this, so nothing that a version can say may be missing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256

from hanse.core.ids import member_id
from hanse.core.trust import instants
from hanse.core.trust.members import Keys, Members
from hanse.core.trust.repository import Repository


def facts(repository: Repository) -> dict[str, str]:
    """Every fact of a version, by what it is about."""
    return dict(_files(repository)) | facts_of(repository.members)


def facts_of(members: Members) -> dict[str, str]:
    return dict(_facts(members))


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """One line for each difference."""
    lines = []
    for about in sorted({*before, *after}):
        old, new = before.get(about), after.get(about)
        if old is None:
            lines.append(f"adds {about}: {new}")
        elif new is None:
            lines.append(f"removes {about} (was: {old})")
        elif old != new:
            lines.append(f"changes {about}: {new} (was: {old})")
    return lines


def _files(repository: Repository) -> Iterator[tuple[str, str]]:
    for name, file in repository.signed.items():
        expires = instants.to_iso(file.expires_s)
        yield f"file {name}", f"version {file.version}, good until {expires}"


def _facts(members: Members) -> Iterator[tuple[str, str]]:
    yield "federation", members.federation
    for role in ("root", "targets", "snapshot", "timestamp"):
        yield f"who signs {role}", _keys(getattr(members, role))
    for region in members.regions:
        yield (
            f"region {region.name}",
            (
                f"officers {_keys(region.officers)}; edge CA {_short(region.edge_ca_pem)}; gives "
                f"model files to {_list(region.residency)}"
            ),
        )
        if labels := members.labels.get(region.name):
            said = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
            yield f"labels of {region.name}", said
        for name in sorted(region.revoked):
            yield f"revoked in {region.name} {name}", "may not connect"
    for member in members.members:
        witness = member_id(member.witness_key) if member.witness_key else "none"
        yield (
            f"daemon {member.id}",
            (
                f"of {member.region} at {member.address}; witness {witness}; certificate "
                f"{_short(member.tls_cert_pem)}"
            ),
        )
    for number, person in enumerate(members.people):
        again = [p.id for p in members.people[:number]].count(person.id)
        yield (
            f"person {person.name} with key {person.id}" + f" ({again + 1})" * bool(again),
            f"{_list(person.roles)} in {_list(person.regions)}",
        )
    for name, count in members.thresholds.items():
        yield f"threshold of {name}", f"{count} people"
    for model, floor in members.floors.items():
        yield f"floor of {model}", f"counter {floor}"
    for model, cap in members.floor_caps.items():
        yield (
            f"correction of the floor of {model}",
            f"counter {cap.floor} for what was raised before trust version {cap.before}",
        )
    for cut in members.cuts:
        yield (
            f"cut of log {cut.origin}",
            f"void from event {cut.void_from}; size {cut.size}, root {cut.root.hex()}",
        )
    for source, targets in members.residency.items():
        yield f"model files of {source}", f"may go to {_list(targets)}"
    yield "regions whose holds quarantine a release", str(members.quarantine_quorum)
    yield "witness policy", " / ".join(members.witness_policy.splitlines())
    yield "seed of the overlay", members.ring_seed


def _keys(role: Keys) -> str:
    return f"{role.threshold} of {_list(role.by_id)}"


def _list(texts: Iterable[str]) -> str:
    return ", ".join(texts) or "none"


def _short(pem: str) -> str:
    return sha256(pem.encode()).hexdigest()[:16]
