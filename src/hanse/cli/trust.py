"""`hanse trust`: ceremonies for keys that stay offline; every step works from files.

    hanse trust add-person ada KEY --role publisher --home COPY --out v7.json
    hanse trust sign v7.json --home COPY --key root-1.key        each key holder, on a machine apart
    hanse trust submit v7.json --home DAEMON                     to a daemon; its peers get it too

`COPY` is any folder with the trust files so far. What a signer is shown is read from the files
that are signed, by the checks that every daemon makes.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from hanse.cli import client, options
from hanse.cli.errors import next_step
from hanse.cli.options import pairs
from hanse.cli.output import Table, emit, note, safe
from hanse.core import limits
from hanse.core.encoding import to_base64
from hanse.core.errors import Conflict
from hanse.core.ids import member_id, segment
from hanse.core.signing import SigningKey
from hanse.core.trust import ceremonies, chain, signatures, writing
from hanse.core.trust.bundle import Bundle, parse_bundle
from hanse.core.trust.documents import parse_key
from hanse.core.trust.facts import changes, facts
from hanse.core.trust.members import ROLES, Keys, Members, Person
from hanse.core.trust.repository import Repository, advance
from hanse.core.trust.writing import Expiry
from hanse.daemon.private_files import read_seed, replace_private, write_new, write_seed
from hanse.daemon.trust_folder import add_file, chain_beside

F = TypeVar("F", bound=Callable[..., Any])
Change = Callable[[Members], Members]
_DRAFT = "name a draft as the other commands of hanse trust write it, or draft it anew"
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


class PublicKey(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click only
    name = "key"

    def convert(self, value: Any, *_: Any) -> bytes:
        with next_step("give the line that hanse trust key has printed"):
            return value if isinstance(value, bytes) else parse_key(value, "the key")


@click.group()
def trust() -> None:
    """Say who belongs and who may sign what, with keys that stay offline.

    A KEY is a public key as hanse trust key prints it.
    """


def drafting(command: F) -> F:
    """Options of every command that writes a draft."""
    for option in (
        options.home,
        click.option("--dry-run", is_flag=True, help="Say what would change; write nothing."),
        click.option(
            "--out",
            type=click.Path(path_type=Path, dir_okay=False),
            help="The draft.  [default: trust-N.json here]",
        ),
    ):
        command = option(command)
    return command


signers = click.option("--key", "keys", type=PublicKey(), multiple=True, help="May be repeated.")
threshold = click.option(
    "--threshold", type=click.IntRange(1, 16), default=1, show_default=True, help="How many sign."
)


# -- looking -----------------------------------------------------------------------


@trust.command()
@options.home
@options.output
def show(home: Path, form: str) -> None:
    """Show what the newest trust version in a folder says, and until when."""
    tip = chain.replay(chain_beside(home)).tip
    said = facts(tip)
    head = f"trust version {tip.members.version}, digest {tip.members.digest.hex()}"
    emit(
        form,
        "Trust",
        {
            "version": tip.members.version,
            "digest": tip.members.digest.hex(),
            "facts": [{"about": about, "says": says} for about, says in said.items()],
        },
        Table((), list(said.items()), head=[head]),
        [str(tip.members.version)],
    )


@trust.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def key(file: Path) -> None:
    """Make a key in a new file for its owner alone; print its public half."""
    made = SigningKey(secrets.token_bytes(32))
    write_seed(file, made.seed)
    note(f"key {member_id(made.public)} in {file}; what is printed is its public half")
    click.echo(to_base64(made.public))


# -- drafts ------------------------------------------------------------------------


@trust.command()
@click.option("--federation", required=True, help="Its name, such as acme. Never changes.")
@signers
@threshold
@click.option("--timestamp-key", type=PublicKey(), required=True, help="That of a daemon.")
@drafting
def init(
    federation: str,
    keys: tuple[bytes, ...],
    threshold: int,
    timestamp_key: bytes,
    home: Path,
    out: Path | None,
    dry_run: bool,
) -> None:
    """Draft trust version 1 of a new federation, from the public keys of its root.

    Daemons join it afterwards, see hanse daemon join --via. One machine that may hold the root
    key is founded with hanse daemon init instead.
    """
    if any((folder / "00001.json").exists() for folder in (home, home / "trust")):
        raise Conflict(f"{home} has a federation already", fix="name another --home")
    first = Members(
        federation=segment(federation, "federation"),
        version=1,
        root_keys=keys,
        root_threshold=threshold,
        ring_seed=secrets.token_hex(16),
        regions=(),
        members=(),
        people=(),
        timestamp=Keys((timestamp_key,)),
    )
    _write(None, writing.draft(None, first, _expiry()), out, dry_run)


@trust.command("add-person")
@click.argument("name")
@click.argument("public", metavar="KEY", type=PublicKey())
@click.option(
    "--role", type=click.Choice(ROLES), multiple=True, required=True, help="May be repeated."
)
@click.option(
    "--region", multiple=True, default=["*"], help="Where it counts. Default: everywhere."
)
@drafting
def add_person(
    name: str, public: bytes, role: Sequence[str], region: Sequence[str], **rest: Any
) -> None:
    """Give a person or CI job, by its key, roles that it may sign in."""
    person = Person(name, public, tuple(role), tuple(region))
    write_draft(lambda m: ceremonies.add_person(m, person), **rest)


@trust.command("remove-person")
@click.argument("name")
@drafting
def remove_person(name: str, **rest: Any) -> None:
    """Take every role from a person; what they have signed stays signed."""
    write_draft(lambda m: ceremonies.remove_person(m, name), **rest)


@trust.command("set-threshold")
@click.argument("role", type=click.Choice(ROLES))
@click.argument("count", type=click.IntRange(0, 16))
@drafting
def set_threshold(role: str, count: int, **rest: Any) -> None:
    """Ask for that many people wherever somebody of a role has to sign."""
    write_draft(lambda m: ceremonies.set_threshold(m, role, count), **rest)


@trust.command("add-region")
@click.argument("region")
@click.option("--edge-ca", type=FILE, required=True, help="Certificate that its nodes' ones name.")
@click.option("--label", multiple=True, callback=pairs, help="NAME=VALUE; plans select by it.")
@signers
@threshold
@drafting
def add_region(
    region: str,
    edge_ca: Path,
    label: dict[str, str],
    keys: tuple[bytes, ...],
    threshold: int,
    **rest: Any,
) -> None:
    """Add a region whose officers, by their keys, admit its daemons. Without keys: the root.

    A region that needs no officers of its own comes with its first daemon: hanse daemon admit.
    """
    officers = Keys(keys, threshold) if keys else None
    pem = edge_ca.read_text()
    write_draft(lambda m: ceremonies.add_region(m, region, pem, officers, label), **rest)


@trust.command("set-labels")
@click.argument("region")
@click.argument("labels", nargs=-1, callback=pairs, metavar="[NAME=VALUE]...")
@drafting
def set_labels(region: str, labels: dict[str, str], **rest: Any) -> None:
    """Give a region exactly these labels, by which plans select it; without any, none.

    Rollouts that were started before keep the regions that they have.
    """
    write_draft(lambda m: ceremonies.set_labels(m, region, labels), **rest)


@trust.command("remove-region")
@click.argument("region")
@drafting
def remove_region(region: str, **rest: Any) -> None:
    """Remove a region whose daemons have been removed, with the cuts of their logs."""
    write_draft(lambda m: ceremonies.remove_region(m, region), **rest)


@trust.command()
@click.argument("role")
@signers
@threshold
@drafting
def rotate(role: str, keys: tuple[bytes, ...], threshold: int, **rest: Any) -> None:
    """Give root, targets, snapshot, timestamp or a region's officers other keys.

    New root keys need the signatures of the old and of the new ones. Roles that the old root
    keys held go to the new ones.
    """
    write_draft(lambda m: ceremonies.rotate(m, role, Keys(keys, threshold)), **rest)


@trust.command()
@click.argument("checkpoint", type=FILE)
@click.option(
    "--void-from", type=click.IntRange(0), help="First event that is void. Default: all later ones."
)
@click.option("--remove-member", is_flag=True, help="The daemon belongs to it no more.")
@drafting
@next_step("name a checkpoint as hanse audit export writes one for each log")
def cut(checkpoint: Path, void_from: int | None, remove_member: bool, **rest: Any) -> None:
    """End a log for ever, at a signed head of it: a stolen key, a lost disk.

    CHECKPOINT is as a door or hanse audit export gives it. Events from --void-from on are void
    everywhere, also those that were final. Signed by the root.
    """
    raw = checkpoint.read_bytes()
    write_draft(lambda m: ceremonies.cut(m, raw, void_from, remove_member=remove_member), **rest)


@trust.command()
@click.argument("model")
@click.argument("counter", type=click.IntRange(0))
@click.option(
    "--lower", is_flag=True, help="Also take back what events raised. Signed by the root."
)
@drafting
def floor(model: str, counter: int, lower: bool, **rest: Any) -> None:
    """Bar the releases of a model below a counter."""
    write_draft(lambda m: ceremonies.set_floor(m, model, counter, lower=lower), **rest)


@trust.command()
@click.argument("file", type=FILE, required=False)
@drafting
def policy(file: Path | None, **rest: Any) -> None:
    """Set the witness policy: a C2SP tlog-policy, or by default a quorum of all regions."""
    text = file.read_text() if file else None

    def change(members: Members) -> Members:
        if text is not None:
            return replace(members, witness_policy=text)
        return ceremonies.witnessed_by_all(members)

    write_draft(change, **rest)


@trust.command()
@drafting
def renew(**rest: Any) -> None:
    """Date every file anew, before it expires: a year for the root, 90 days for the others."""
    write_draft(lambda m: m, renew=True, **rest)


# -- signing -----------------------------------------------------------------------


@trust.command()
@click.argument("file", type=FILE)
@options.yes
@click.option("--key", "paths", type=FILE, multiple=True, required=True, help="May be repeated.")
@options.home
@next_step(_DRAFT)
def sign(file: Path, yes: bool, paths: tuple[Path, ...], home: Path) -> None:
    """Add your signature to a draft, in its file, after showing what it changes."""
    bundle = _read(file)
    before = _before(bundle, home)
    keys = [SigningKey(read_seed(path)) for path in paths]
    asked = {keyid for need in signatures.needs(bundle, before) for keyid in need.keys.by_id}
    if strangers := [k for k in keys if member_id(k.public) not in asked]:
        raise Conflict(
            f"nothing in this draft is for key {member_id(strangers[0].public)} to sign",
            fix="see hanse trust show for who signs what",
        )
    _show(before, bundle)
    options.confirm(yes, "yes", "this is what you sign")
    whole = signatures.sign(bundle, before, keys)
    replace_private(file, whole.encode())
    _tell_needs(whole, before)


@trust.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--dry-run", is_flag=True, help="Check it and say what changes; submit nothing.")
@options.home
@next_step(_DRAFT)
def submit(files: tuple[Path, ...], dry_run: bool, home: Path) -> None:
    """Make a signed draft the next trust version, of a daemon or of a folder of trust files.

    Copies that were signed apart are put together.
    """
    bundles = [_read(path) for path in files]
    whole = signatures.merge(bundles[0], bundles[1:])
    before = _before(whole, home)
    if dry_run:
        _show(before, whole)
        return
    advance(before, whole)
    install(home, whole.version, whole.encode())


def install(home: Path, version: int, raw: bytes) -> Path:
    """Keep a verified version, and tell the daemon of this home if it runs."""
    path = add_file(home / "trust", version, raw)
    click.echo(f"members file  {path}")
    try:
        client.call(home, "trust.extend", file=raw.decode())
        note("the running daemon has it and tells its peers")
    except client.DaemonDown:
        note("the daemon reads it when it starts")
    return path


# -- parts -------------------------------------------------------------------------


def write_draft(
    change: Change, home: Path, out: Path | None, dry_run: bool, *, renew: bool = False
) -> None:
    known = chain.replay(chain_beside(home))
    following = replace(change(known.current), version=known.current.version + 1)
    again = known.tip.signed if renew else ()
    _write(known.tip, writing.draft(known.tip, following, _expiry(), again), out, dry_run)


def _write(before: Repository | None, bundle: Bundle, out: Path | None, dry_run: bool) -> None:
    _show(before, bundle)
    if dry_run:
        note("dry run: nothing was written")
        return
    path = out or Path(f"trust-{bundle.version}.json")
    write_new(path, bundle.encode(), mode=0o644)
    note(f"draft: {path}; next, each key holder: hanse trust sign {path} --key KEY")


def _show(before: Repository | None, bundle: Bundle) -> None:
    """What it changes, as every daemon will read it; then whose signatures are missing."""
    after = advance(before, bundle, draft=True)
    click.echo(f"trust version {bundle.version} of {safe(after.members.federation)}")
    lines = changes(facts(before) if before else {}, facts(after))
    for line in lines or ["changes nothing"]:
        click.echo(safe(f"  {line}"))
    _tell_needs(bundle, before)


def _tell_needs(bundle: Bundle, before: Repository | None) -> None:
    for need in signatures.needs(bundle, before):
        have = f"{len(need.signed)} of {need.keys.threshold}"
        open_ = [k for k in need.keys.by_id if k not in need.signed] if need.missing else []
        note(
            f"{need.file}: {have} of {need.role} signed"
            + f"; open: {', '.join(open_)}" * bool(open_)
        )


def _before(bundle: Bundle, home: Path) -> Repository | None:
    """The version that a draft follows, from the trust files of `home`."""
    if bundle.version == 1:
        return None
    files = chain_beside(home)[: bundle.version - 1]
    return chain.replay(files).tip


@next_step(_DRAFT)
def _read(path: Path) -> Bundle:
    with path.open("rb") as file:
        return parse_bundle(file.read(limits.TRUST_BUNDLE_BYTES_MAX + 1))


def _expiry() -> Expiry:
    return Expiry.after(int(datetime.datetime.now(datetime.UTC).timestamp()))
