"""`hanse release verify`: from files alone, with no daemon and no network.

the chain of members files    each version signed by the thresholds before and of itself
manifest.json                 its SHA-256 is the release
envelope.json                 a publisher of that trust version signed exactly this release
the model's files             size and SHA-256, each
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli import options
from hanse.cli.errors import OK, UNVERIFIED, next_step
from hanse.cli.output import Table, emit, note
from hanse.core.errors import InvalidSpec, NotFound, Rejected

if TYPE_CHECKING:
    from hanse.core.catalog.manifest import Manifest
    from hanse.core.trust.members import Members


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    ok: bool
    detail: str


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--manifest", type=click.Path(path_type=Path), help="Default: beside the files.")
@click.option("--envelope", type=click.Path(path_type=Path), help="Default: beside the files.")
@click.option(
    "--trust",
    type=click.Path(path_type=Path, exists=True),
    help="The chain of members files.  [default: trust in the daemon's folder]",
)
@click.option("--trust-version", type=int, help="Judge by this version. Default: the newest.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Judge by this OpenSSF model signature instead, with --public-key.",
)
@click.option(
    "--public-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Whose signature the bundle has to carry: an EC key as PEM.",
)
@options.home
@options.output
def verify(
    path: Path,
    manifest: Path | None,
    envelope: Path | None,
    trust: Path | None,
    trust_version: int | None,
    bundle: Path | None,
    public_key: Path | None,
    home: Path,
    form: str,
) -> int:
    """Verify a release from files alone: chain, signature and every digest.

    Take manifest.json and envelope.json from hanse release show --save. Exits with 5 if
    anything does not stand.

    With --bundle and --public-key, what any tool for OpenSSF model signing has signed.
    """
    if (bundle is None) != (public_key is None):
        raise click.UsageError("--bundle and --public-key go together")
    folder = path if path.is_dir() else path.parent
    if bundle is not None and public_key is not None:
        from hanse.cli.bundle_check import check_bundle

        apart = tuple(folder / f"{name}.json" for name in ("manifest", "envelope"))
        found = [Check(*each) for each in check_bundle(path, bundle, public_key, apart)]
        return _said(found, form, "ask whoever signed it for files, bundle and key")
    members = _members(trust or home / "trust", trust_version)
    raw = _read(manifest or folder / "manifest.json")
    signed = _read(envelope or folder / "envelope.json")
    checks = [*_check_release(raw, signed, members), *_check_files(raw, path)]
    anew = "hanse release fetch for the model's files, hanse release show --save for the others"
    return _said(checks, form, anew)


def _said(checks: Sequence[Check], form: str, anew: str) -> int:
    verified = all(check.ok for check in checks)
    value = {"verified": verified, "checks": [asdict(check) for check in checks]}
    rows = [(c.what, "ok" if c.ok else "FAILED", c.detail) for c in checks]
    emit(form, "Verification", value, Table(("CHECK", "RESULT", "DETAIL"), rows))
    if not verified:
        note(f"next: do not use what is marked FAILED; get it anew: {anew}")
    return OK if verified else UNVERIFIED


def _members(folder: Path, version: int | None) -> Members:
    from hanse.core.trust.chain import replay
    from hanse.daemon.trust_folder import chain_beside

    with next_step("copy the trust folder of a daemon again"):
        chain = replay(chain_beside(folder))
    members = chain.current if version is None else chain.at(version)
    if members is None:
        raise NotFound(
            f"there is no trust version {version}", fix=f"1 to {chain.current.version} are there"
        )
    return members


def _check_release(raw: bytes, signed: bytes, members: Members) -> Iterator[Check]:
    from hanse.core.catalog.manifest import parse_manifest
    from hanse.core.ids import Digest

    yield Check("trust", True, f"{members.federation}, version {members.version}")
    release = Digest.of(raw)
    try:
        manifest = parse_manifest(raw)
        yield Check("manifest", True, f"{manifest.model}@{manifest.version} is {release}")
    except Rejected as error:
        yield Check("manifest", False, str(error))
        return
    try:
        yield _signature(manifest, release, signed, members)
    except Rejected as error:
        yield Check("signature", False, str(error))


def _signature(manifest: Manifest, release: Any, signed: bytes, members: Members) -> Check:
    from hanse.core import limits
    from hanse.core.dsse import parse_envelope
    from hanse.core.reading import parse_json
    from hanse.core.trust.authority import of_role
    from hanse.core.trust.statements import RELEASE_TYPE, release_statement

    payload = parse_envelope(signed, limits.EVENT_BYTES_MAX).payload
    said = parse_json(payload, "statement", bytes_max=limits.EVENT_BYTES_MAX)
    counter = said.get("predicate", {}).get("counter") if isinstance(said, dict) else None
    if type(counter) is not int:
        raise InvalidSpec("it holds no release statement")
    expected = release_statement(f"{manifest.model}@{manifest.version}", release, counter)
    asked = of_role("publisher", members, expected, RELEASE_TYPE)
    missing = asked.unmet([signed], members)
    names = sorted({members.name_of(member) for member in asked.signers([signed])})
    detail = f"{missing}, by trust version {members.version}" if missing else ", ".join(names)
    return Check("signature", not missing, detail)


def _check_files(raw: bytes, path: Path) -> Iterator[Check]:
    from hanse.cli.manifest_builder import digest_of, file_name
    from hanse.core.catalog.manifest import parse_manifest
    from hanse.core.errors import InvalidName

    try:
        files = parse_manifest(raw).files
    except Rejected:
        return  # said already
    here: dict[str, Path] = {}
    for each in path.iterdir() if path.is_dir() else (*path.parent.iterdir(), path):
        if each.is_file():
            try:
                here[file_name(each)] = each
            except InvalidName:
                continue  # a name that no release can list
    if path.is_file() and path not in [here.get(file.name) for file in files]:
        yield Check(path.name, False, "is no file of this release")
    for file in files:
        found = here.get(file.name)
        if found is None:
            yield Check(file.name, False, "missing")
        elif found.stat().st_size != file.size or digest_of(found) != file.digest:
            yield Check(file.name, False, f"has other bytes than {file.digest}")
        else:
            yield Check(file.name, True, str(file.digest))


def _read(path: Path) -> bytes:
    from hanse.core.limits import NOTE_BYTES_MAX

    try:
        with path.open("rb") as file:
            return file.read(NOTE_BYTES_MAX)
    except OSError:
        raise NotFound(
            f"cannot read {path}", fix="write it with hanse release show MODEL@VERSION --save DIR"
        ) from None
