"""`hanse audit ask`, `reveal` and `check-opening`: private values, shown and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hanse.cli import audit_source, client, options
from hanse.cli.errors import next_step
from hanse.cli.output import Table, emit, note
from hanse.core.errors import NotFound

_FILE = click.Path(path_type=Path, dir_okay=False)
_AGAIN = "ask the region for it again: hanse audit reveal"
_THERE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.argument("release", metavar="sha256:…")
@click.argument("field")
@click.option("--federation", required=True, help="Whose release it is, as the export says.")
@click.option("--key", type=_FILE, required=True, help="The auditor's signing key.")
def ask(release: str, field: str, federation: str, key: Path) -> None:
    """Sign a request to be shown a private FIELD of a release; needs no daemon.

    Give the output to the region that published it: hanse audit ask … > request.json
    """
    click.echo(_request(federation, release, field, key))


@click.command()
@click.argument("release", metavar="MODEL@VERSION", callback=options.exact_release)
@click.argument("field")
@click.option("--to", required=True, help="The auditor, by name or id in the trust file.")
@click.option("--request", type=_THERE, help="What the auditor has signed, by hanse audit ask.")
@click.option("--key", type=_FILE, help="The auditor's key instead, if it is at hand.")
@click.option("--save", type=_FILE, help="Where to.  [default: FIELD.opening.json]")
@options.home
def reveal(
    release: dict[str, str], field: str, to: str, request: Path | None, key: Path | None,
    save: Path | None, home: Path,
) -> None:  # fmt: skip
    """Hand a private FIELD of a release to an auditor, on record.

    The daemon that recorded the release has it. It writes an event that says what was shown to
    whom; the file is for the auditor alone.
    """
    from hanse.daemon.private_files import write_new

    if (request is None) == (key is None):
        raise click.UsageError("give --request, which the auditor has signed, or --key")
    found: Any = client.call(home, "release.show", **release)
    if request is not None:
        with request.open("rb") as file:
            envelope = file.read(64 * 1024).decode(errors="replace").strip()
    else:
        assert key is not None
        federation = client.call(home, "bundle.heads")["federation"]
        envelope = _request(federation, found["release"], field, key)
    args = {"release": found["release"], "field": field, "to": to, "envelope": envelope}
    with next_step("ask the auditor for a new request: hanse audit ask"):
        opening = client.call(home, "audit.reveal", **args)["opening"]
    path = save or Path(f"{field}.opening.json")
    write_new(path, opening.encode())
    click.echo(str(path))
    note(f"next, where the auditor is: hanse audit check-opening {path} EXPORT --trust-root FILE")


@click.command("check-opening")
@click.argument("file", type=_THERE)
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@audit_source.trust_root
@options.output
def check_opening(file: Path, folder: Path, trust_root: Path, form: str) -> None:
    """Check a revealed value against an exported FOLDER, which is verified first.

    Exits with 5 unless the signed release commits to exactly this value.
    """
    from hanse.core.catalog.manifest import parse_manifest
    from hanse.core.catalog.private import parse_opening
    from hanse.daemon.audit_folder import verify
    from hanse.rpc.codec import EventCodec

    with file.open("rb") as stream, next_step(_AGAIN):
        opening = parse_opening(stream.read(64 * 1024))
    with next_step("do not rely on this copy: export another (hanse audit export)"):
        audited = verify(folder, audit_source.bootstrap(trust_root), EventCodec())
    found = audited.catalog.find(opening.release)
    if found is None:
        raise NotFound(f"{folder} has no release {opening.release}", fix="export again")
    manifest = parse_manifest(found[1].manifest)
    with next_step(_AGAIN):
        opening.check(manifest)
    name = f"{manifest.model}@{manifest.version}"
    value = {
        "release": str(opening.release), "name": name,
        "field": opening.field, "value": opening.value,
    }  # fmt: skip
    rows = [("release", name), (opening.field, str(opening.value)), ("stands", "yes")]
    emit(form, "Opening", value, Table((), rows), [str(opening.commitment)])


def _request(federation: str, release: str, field: str, key: Path) -> str:
    from hanse.core.catalog.private import REQUEST_TYPE, request
    from hanse.core.dsse import sign_envelope
    from hanse.core.ids import Digest, segment
    from hanse.core.signing import SigningKey
    from hanse.daemon.private_files import read_seed

    asked = request(segment(federation, "federation"), Digest.parse(release), field)
    return sign_envelope(REQUEST_TYPE, asked, [SigningKey(read_seed(key))]).decode()
