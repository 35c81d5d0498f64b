"""`hanse audit`: proof for people who trust nobody, from files alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli import audit_source, options
from hanse.cli.audit_private import ask, check_opening, reveal
from hanse.cli.audit_shown import audit_table, compared_table, proof_table
from hanse.cli.errors import OK, UNVERIFIED, next_step
from hanse.cli.output import emit, note

if TYPE_CHECKING:
    from hanse.core.audit.compare import Difference
    from hanse.core.audit.replay import Audit, Read

_PATH = click.Path(path_type=Path)
ELSEWHERE = "do not rely on this copy: export another, hanse audit export --url asks another daemon"


@click.group()
def audit() -> None:
    """Export the logs, verify them offline, compare what different places show."""


for _command in (ask, reveal, check_opening):
    audit.add_command(_command)


def url(command: Any) -> Any:
    return click.option(
        "--url", help="Read from this door, such as http://10.0.0.1:7480.  [default: the daemon]"
    )(command)


@audit.command()
@click.argument("folder", type=_PATH)
@click.option("--origin", multiple=True, help="Only this log; may be repeated. Default: all.")
@url
@options.home
@options.output
def export(folder: Path, origin: tuple[str, ...], url: str | None, home: Path, form: str) -> None:
    """Write all logs, the trust chain and every proof into FOLDER.

    FOLDER is complete: it verifies offline, and any file server over it is a door.
    """
    from hanse.core.ids import Origin
    from hanse.daemon.audit_folder import save
    from hanse.rpc.codec import EventCodec

    with next_step("leave --origin out for all logs"):
        origins = [Origin.parse(each) for each in origin]
    with _bar() as told, next_step(ELSEWHERE):
        found = save(_source(url, home), folder, origins, EventCodec(), told)
    value, table = audit_table(found)
    emit(form, "Audit", value, table, [found.state_digest.hex()])
    note(f"next: hanse audit verify {folder} --trust-root FILE")


@audit.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@audit_source.trust_root
@click.option(
    "--trust",
    type=click.Path(path_type=Path, exists=True),
    help="For a .tlog-proof: the whole trust chain.  [default: that of --trust-root]",
)
@click.option(
    "--events", is_flag=True, help="List every event, who signed it and whether it counts."
)
@options.output
def verify(path: Path, trust_root: Path, trust: Path | None, events: bool, form: str) -> None:
    """Verify an exported folder, or a .tlog-proof file, with no daemon and no network.

    Prints which release ran where, when, and who approved it. Exits with 5, naming the file
    and the place, if anything does not stand.
    """
    from hanse.daemon import audit_folder
    from hanse.rpc.codec import EventCodec

    root = audit_source.bootstrap(trust_root)
    if path.is_dir():
        with next_step(ELSEWHERE):
            found = audit_folder.verify(path, root, EventCodec())
        value, table = audit_table(found, events=events)
        emit(form, "Audit", value, table, [value["state_digest"]])
    else:
        with next_step("do not rely on it: ask for it anew, as hanse audit proof EVENT writes it"):
            value, table = proof_table(_proven(path, root, trust or trust_root))
        emit(form, "Proof", value, table, [value["event"]])


@audit.command()
@click.argument("places", nargs=-1, required=True, metavar="FOLDER|URL...")
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    help="Of every fork, write the two proofs that contradict each other into this folder.",
)
@audit_source.trust_root
@options.output
def compare(places: tuple[str, ...], save: Path | None, trust_root: Path, form: str) -> int:
    """Verify several exports or doors and say whether they show the same logs.

    A log that is shorter in one place is behind. Two histories of one log, or two states from
    the same logs, end with 5.
    """
    from hanse.core.audit.compare import FORK, compare, states_contradict

    if len(places) < 2:
        raise click.UsageError("name at least two folders or doors")
    root = audit_source.bootstrap(trust_root)
    found = {place: _audited(place, root) for place in places}
    first, *others = places
    pairs = [(o, compare(found[first], found[o])) for o in others]
    contradict = [o for o in others if states_contradict(found[first], found[o])]
    value, table = compared_table(found, pairs, contradict)
    emit(form, "Comparison", value, table)
    forks = [(place, d) for place, differences in pairs for d in differences if d.kind == FORK]
    if save is not None:
        for place, fork in forks:
            _save_fork(save, (first, place), fork)
    elif forks:
        note("next: once more with --save DIR; the two proofs there convince anybody")
    if contradict:
        note("next: run the same version of hanse on both daemons, then export and compare again")
    return UNVERIFIED if forks or contradict else OK


def _save_fork(folder: Path, places: tuple[str, str], fork: Difference) -> None:
    """Two proofs of two events at one index of one log: nobody needs more to see the lie."""
    from hanse.core.audit.proof import prove
    from hanse.daemon.private_files import write_new

    assert fork.fork_at is not None
    for number, place in enumerate(places, start=1):
        made = prove(_reader(place), fork.origin, fork.fork_at)
        name = f"{str(fork.origin).replace('/', '-')}-{fork.fork_at}-{number}.tlog-proof"
        write_new(folder / name, made.render(), mode=0o644)
        note(f"wrote {folder / name}: what {place} shows")


@audit.command()
@click.argument("event")
@click.option("--save", type=_PATH, help="Where to.  [default: EVENT.tlog-proof]")
@click.option("--folder", type=click.Path(path_type=Path, exists=True), help="Read an export.")
@url
@options.home
def proof(event: str, save: Path | None, folder: Path | None, url: str | None, home: Path) -> None:
    """Write the proof of one EVENT, which others verify with nothing else.

    EVENT is an id as every command prints it, or its 64 hex digits.
    """
    from hanse.core.audit.proof import find, prove
    from hanse.daemon.audit_folder import reader
    from hanse.daemon.private_files import write_new

    read = reader(folder) if folder else _source(url, home)
    with next_step(ELSEWHERE):
        made = prove(read, *find(read, event))
    path = save or Path(f"{event}.tlog-proof")
    write_new(path, made.render(), mode=0o644)
    click.echo(str(path))
    note(f"next: hanse audit verify {path} --trust-root FILE")


def _source(url: str | None, home: Path) -> Read:
    return audit_source.of_url(url) if url else audit_source.of_daemon(home)


def _reader(place: str) -> Read:
    from hanse.daemon.audit_folder import reader

    return audit_source.of_url(place) if audit_source.is_url(place) else reader(Path(place))


def _audited(place: str, root: bytes) -> Audit:
    with next_step(f"{place} does not stand, so leave it out, or export it anew"):
        return _replayed(place, root)


def _replayed(place: str, root: bytes) -> Audit:
    from hanse.core.audit.replay import audit as replay
    from hanse.daemon import audit_folder
    from hanse.rpc.codec import EventCodec

    if audit_source.is_url(place):
        return replay(audit_source.of_url(place), root, EventCodec())
    return audit_folder.verify(Path(place), root, EventCodec())


def _proven(path: Path, root: bytes, trust: Path) -> Any:
    from hanse.core.audit.proof import verify_proof
    from hanse.core.log.tlog_proof import PROOF_BYTES_MAX
    from hanse.daemon.trust_folder import chain_beside
    from hanse.rpc.codec import EventCodec

    files = chain_beside(trust) if trust.is_dir() else (root,)
    with path.open("rb") as file:
        raw = file.read(PROOF_BYTES_MAX + 1)
    return verify_proof(raw, root, files, EventCodec())


def _bar() -> Any:
    from hanse.cli.progress import files_bar

    return files_bar("export")
