"""`hanse release`: publish, fetch, list, show, verify, kill."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hanse.cli import client, options
from hanse.cli.errors import OK, UNHEALTHY
from hanse.cli.fetch import fetch
from hanse.cli.output import Table, age, at, emit, emit_change, note, size
from hanse.cli.publish import publish
from hanse.cli.verify import verify
from hanse.core.errors import Conflict

if TYPE_CHECKING:
    from hanse.cli.heal_shapes import Uses
    from hanse.cli.shapes import ReleaseList, ReleaseRow, ReleaseShown


@click.group()
def release() -> None:
    """Publish releases, look at them, verify them."""


release.add_command(fetch)
release.add_command(publish)
release.add_command(verify)


@release.command("list")
@click.argument("model", required=False)
@options.home
@options.output
def list_releases(model: str | None, home: Path, form: str) -> None:
    """List releases, newest first."""
    found: ReleaseList = client.call(home, "release.list", **({"model": model} if model else {}))
    table = Table(
        ("MODEL", "VERSION", "RELEASE", "STATE", "ACTIVE IN", "PROVEN IN", "SIZE", "BY", "AT"),
        [_row(each) for each in found["releases"]],
    )
    names = [f"{r['model']}@{r['version']}" for r in found["releases"]]
    emit(form, "ReleaseList", dict(found), table, names)


@release.command()
@click.argument("name", metavar="MODEL@VERSION", callback=options.exact_release)
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write manifest.json and envelope.json into this folder, for hanse release verify.",
)
@options.home
@options.output
def show(name: dict[str, str], save: Path | None, home: Path, form: str) -> None:
    """Show one release: all that its manifest says, who signed it, and where it is."""
    from hanse.cli.release_shown import rows

    found: ReleaseShown = client.call(home, "release.show", **name)
    if save is not None:
        _save(found, save)
    shown = Table((), rows(found))
    emit(form, "Release", dict(found), shown, [f"{found['model']}@{found['version']}"])


@release.command()
@click.argument("name", metavar="MODEL@VERSION", callback=options.exact_release)
@options.reason
@options.yes
@options.signed
def kill(name: dict[str, str], reason: str | None, yes: bool, signing: options.Signing) -> None:
    """Kill a release for ever, and every other one with the same model files.

    No region starts it, keeps it or goes back to it. Killing needs no fresh trust and no other
    daemon; it does need as many release managers as the trust file says.
    """
    found: ReleaseShown = client.call(signing.home, "release.show", **name)
    args = {"model": found["model"], "release": found["release"]}
    called = f"{found['model']}@{found['version']}"
    where = ", ".join(found["active"]) or "no region"
    args["reason"] = options.ask_reason(reason)
    options.confirm(yes, called, f"will kill {called} for ever; it is active in {where}")
    signing.ask("release.kill", args)


@release.command()
@click.argument("name", metavar="MODEL@VERSION", callback=options.exact_release)
@options.reason
@options.yes
@options.signed
def floor(name: dict[str, str], reason: str | None, yes: bool, signing: options.Signing) -> None:
    """Bar every release of a model that is older than this one, also from rollbacks.

    Only the root keys lower it again: hanse trust floor --lower.
    """
    found: ReleaseShown = client.call(signing.home, "release.show", **name)
    args = {"model": found["model"], "counter": found["counter"]}
    called = f"{found['model']}@{found['version']}"
    said = options.ask_reason(reason)
    options.confirm(yes, called, f"will bar every release of {found['model']} before {called}")
    signing.ask("release.floor", {**args, "reason": said})


@release.command()
@click.argument("name", metavar="MODEL@VERSION", callback=options.exact_release)
@options.home
@options.output
def uses(name: dict[str, str], home: Path, form: str) -> int:
    """Who still runs a release, and what stands against retiring it.

    Exits with 3 while something does.
    """
    found: Uses = client.call(home, "release.uses", **name)
    emit(form, "ReleaseUses", dict(found), _uses(found), [u["region"] for u in found["regions"]])
    return UNHEALTHY if found["blocks"] else OK


@release.command()
@click.argument("name", metavar="MODEL@VERSION", callback=options.exact_release)
@options.reason
@options.signed
def deprecate(name: dict[str, str], reason: str | None, signing: options.Signing) -> None:
    """Tell people that a release will be retired. It can still be started and gone back to."""
    found: Uses = client.call(signing.home, "release.uses", **name)
    args = {"model": found["model"], "release": found["release"], "phase": "deprecated"}
    args["reason"] = options.ask_reason(reason)
    signing.ask("release.retire", args)


@release.command()
@click.argument("name", metavar="MODEL@VERSION", callback=options.exact_release)
@options.reason
@options.yes
@options.signed
def retire(name: dict[str, str], reason: str | None, yes: bool, signing: options.Signing) -> None:
    """Retire a release for ever: nobody starts it or goes back to it any more.

    Refused while a region runs it, would go back to it, or rolls it out. Unlike a kill it takes
    nothing away: whoever runs it all the same goes on.
    """
    found: Uses = client.call(signing.home, "release.uses", **name)
    called = f"{found['model']}@{found['version']}"
    if found["blocks"]:
        raise Conflict(
            f"{called} cannot be retired: {'; '.join(found['blocks'])}",
            fix="roll out its successor there first, and one more that falls back to that",
        )
    args = {"model": found["model"], "release": found["release"], "phase": "retired"}
    args["reason"] = options.ask_reason(reason)
    ready = sum(not node["runs"] for node in found["nodes"])
    options.confirm(yes, called, f"will retire {called} for ever; {ready} nodes keep it ready")
    signing.ask("release.retire", args)


@release.command()
@click.argument("name", metavar="MODEL@VERSION", callback=options.exact_release)
@options.reason
@options.home
@options.output
def pin(name: dict[str, str], reason: str | None, home: Path, form: str) -> None:
    """Keep a release on this daemon's disk, whatever hanse gc finds: for an audit, say."""
    import time

    found: ReleaseShown = client.call(home, "release.show", **name)
    args = {"model": found["model"], "release": found["release"], "by": options.operator()}
    said = {"reason": options.ask_reason(reason), "at_ms": int(time.time() * 1000)}
    emit_change(form, "ReleasePin", client.call(home, "release.pin", **args, **said))


@release.command()
@click.argument("name", metavar="MODEL@VERSION", callback=options.exact_release)
@options.home
@options.output
def unpin(name: dict[str, str], home: Path, form: str) -> None:
    """Let hanse gc judge a pinned release as any other."""
    found: ReleaseShown = client.call(home, "release.show", **name)
    args = {"model": found["model"], "release": found["release"]}
    emit_change(form, "ReleasePin", client.call(home, "release.unpin", **args))


@release.command("sign-bundle")
@click.argument("name", metavar="MODEL@VERSION", callback=options.exact_release)
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="An EC private key as PEM (P-256, P-384 or P-521).",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Write the bundle there, say model.sig.",
)
@options.home
@options.output
def sign_bundle(name: dict[str, str], key: Path, save: Path, home: Path, form: str) -> None:
    """Sign a release's files as an OpenSSF model signing bundle.

    The digests come from its signed manifest, so no file need be here. Checked by hanse release
    verify --bundle, and by model_signing verify key.
    """
    from hanse.core import model_signing
    from hanse.core.catalog.manifest import parse_manifest
    from hanse.daemon.private_files import read_private, write_new

    signer = model_signing.private_key(read_private(key))
    found: ReleaseShown = client.call(home, "release.show", **name)
    manifest = parse_manifest(found["manifest"].encode())
    files = {str(file.name): file.digest for file in manifest.files}
    write_new(save, model_signing.sign_bundle(manifest.model, files, signer), mode=0o644)
    listed = {path: str(digest) for path, digest in files.items()}
    hint = model_signing.hint_of(signer.public_key())
    value = {"bundle": str(save), "key": hint, "files": listed}
    rows = [("bundle", str(save)), ("key", hint), *listed.items()]
    emit(form, "ModelSignature", value, Table((), rows), [str(save)])


def _uses(found: Uses) -> Table:
    rows = [(r["region"], "active", at(r["since_ms"]), age(r["heard_s"])) for r in found["regions"]]
    rows += [
        (n["node"], "runs it" if n["runs"] else "keeps it ready", "-", age(n["seen_s"]))
        for n in found["nodes"]
    ]
    return Table(
        ("WHERE", "HOW", "SINCE", "LAST SEEN"),
        rows,
        head=[f"{found['model']}@{found['version']} is {found['state']}"],
        foot=[f"in the way of retiring it: {each}" for each in found["blocks"]],
    )


def _row(row: ReleaseRow) -> tuple[str, ...]:
    return (
        row["model"],
        row["version"],
        row["release"][:19],
        row["state"],
        ", ".join(row["active"]) or "-",
        ", ".join(row["proven"]) or "-",
        size(row["size"]),
        row["by"],
        at(row["at_ms"]),
    )


def _save(found: ReleaseShown, folder: Path) -> None:
    from hanse.daemon.private_files import write_new

    for name in ("manifest", "envelope"):
        text = found["manifest"] if name == "manifest" else found["envelope"]
        write_new(folder / f"{name}.json", text.encode(), mode=0o644)
    note(f"wrote manifest.json and envelope.json into {folder}")
