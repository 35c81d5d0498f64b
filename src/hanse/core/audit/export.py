"""What an exported folder holds beside the files of the door, and the seal that names them all.

    export.json           {"files": {path: sha256}, "schema": 1}: every file, and nothing else
    witness.policy        C2SP tlog-policy: these logs, their witnesses and the quorum
    manifests/<hex>.json  every release, under its id
    tuf/                  the trust chain as a TUF repository

The seal is not signed: whoever can change a file can change it too. It says which file is
damaged, also where nothing else would; that the rest is true is proved by `replay`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hanse.core import limits
from hanse.core.audit.replay import Audit
from hanse.core.errors import InvalidProof, InvalidSpec
from hanse.core.events import ReleaseRecord
from hanse.core.ids import Digest
from hanse.core.log.note import ED25519, VerifierKey
from hanse.core.reading import Reader, canonical_json, parse_json
from hanse.core.trust.tuf_files import tuf_files

SEAL = "export.json"
POLICY = "witness.policy"


def derived(audited: Audit) -> dict[str, bytes]:
    """Files for other people's tools and for reading; they follow from the logs."""
    trust = tuf_files(audited.chain.files, audited.timestamp)
    return {POLICY: _policy(audited), **dict(_manifests(audited)), **trust}


def _policy(audited: Audit) -> bytes:
    logs = [
        f"log {VerifierKey(str(log.origin), ED25519, log.key).encode()}"
        for log in audited.logs.values()
    ]
    return ("\n".join([*logs, audited.chain.current.witness_policy])).encode()


def _manifests(audited: Audit) -> Iterator[tuple[str, bytes]]:
    for model in sorted(audited.catalog.views):
        for record in audited.catalog.records(model):
            body = record.event.body
            if isinstance(body, ReleaseRecord):
                yield f"manifests/{body.release.hex}.json", body.manifest


def seal(files: Mapping[str, Digest]) -> bytes:
    return canonical_json({"files": {p: d.hex for p, d in files.items()}, "schema": 1})


def parse_seal(raw: bytes) -> dict[str, Digest]:
    """The files that there must be. Raises `InvalidSpec`, `InvalidName` or `TooLarge`."""
    document = parse_json(raw, SEAL, bytes_max=limits.EXPORT_FILE_BYTES_MAX)
    with Reader(document, SEAL) as reader:
        reader.integer("schema", low=1, high=1)
        files = reader.raw("files")
    if not isinstance(files, dict):
        raise InvalidSpec(f"{SEAL}: expected a mapping of digests by path")
    found = {path: Digest(str(hex_)) for path, hex_ in files.items()}
    if seal(found) != raw:
        raise InvalidSpec(f"{SEAL}: not in canonical form")
    return found


def check_names(listed: Mapping[str, Digest], there: set[str], expected: set[str]) -> None:
    """A folder holds what its seal lists, and lists what its index promises."""
    for path in sorted(there ^ set(listed)):
        what = "is not listed in" if path in there else "is missing; it is listed in"
        raise InvalidProof(f"{path}: {what} {SEAL}")
    for path in sorted(expected ^ set(listed)):
        what = "belongs to no log or trust version of" if path in listed else "is not, but logs is,"
        raise InvalidProof(f"{path}: {what} this export")
