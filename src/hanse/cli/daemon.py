"""`hanse daemon`: found a federation, join one, run a region's daemon."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import click

from hanse.cli import client, enrolling, options
from hanse.cli.errors import next_step
from hanse.cli.output import Table, emit, note
from hanse.core.errors import Conflict, NotFound


@click.group()
def daemon() -> None:
    """Found a federation, join one, run a region's daemon."""


@daemon.command()
@click.option("--federation", required=True, help="Its name, such as acme. Never changes.")
@click.option("--region", required=True, help="This daemon's region, such as eu-north.")
@click.option("--listen", default="127.0.0.1:7420", show_default=True, help="HOST:PORT to serve.")
@click.option("--advertise", default="", help="HOST:PORT for peers. Default: as --listen.")
@options.home
def init(federation: str, region: str, listen: str, advertise: str, home: Path) -> None:
    """Found a federation: its root key and its first daemon."""
    from hanse.daemon.ceremony import init as found

    made = found(home, federation, region, listen, advertise, _now())
    click.echo(f"federation {federation} founded; daemon {made.member} of {region} in {home}")
    click.echo(f"root key      {made.root_key}")
    click.echo("              it decides who belongs: move it off this machine and keep a copy")
    click.echo(f"operator key  {made.operator_key}")
    click.echo("              signs releases, rollouts and lifted holds; --key or HANSE_KEY")
    note(f"next: hanse daemon run --home {home}")


@daemon.command()
@click.option("--region", help="This daemon's region, such as us-east. A token names it itself.")
@click.option(
    "--via",
    type=click.Path(path_type=Path, exists=True),
    help="A member's folder, or a copy of its trust files: joins without a network.",
)
@enrolling.with_token
@click.option("--listen", default="127.0.0.1:7420", show_default=True, help="HOST:PORT to serve.")
@click.option("--advertise", default="", help="HOST:PORT for peers. Default: as --listen.")
@click.option(
    "--edge-ca",
    type=click.Path(path_type=Path, exists=True),
    help="For a region that exists: the folder of a daemon of it. Default: --via, if it is one.",
)
@options.home
def join(
    region: str | None,
    via: Path | None,
    token_text: str | None,
    listen: str,
    advertise: str,
    edge_ca: Path | None,
    home: Path,
) -> None:
    """Make a new daemon and ask to join.

    With --token the request goes to the daemon that made the token, and waits there to be
    admitted. Where --via has the root key, the daemon is admitted on the spot; otherwise the
    request is written, for the holder of the root key to admit.
    """
    if token_text:
        token = enrolling.read_token(token_text, "daemon")
        shared = _edge_ca_of(edge_ca, token.region, required=True) if edge_ca else None
        enrolling.join(home, token, listen, advertise, shared)
        click.echo(f"daemon of {token.region} made in {home}; its request waits to be admitted")
        note(f"next: hanse daemon run --home {home}, which waits for that too")
        return
    if region is None or via is None:
        raise click.UsageError("give --token, or --region and --via")
    from hanse.daemon import ceremony
    from hanse.daemon.trust_folder import chain_beside

    files = chain_beside(via)
    shared = _edge_ca_of(edge_ca or via, region, required=edge_ca is not None)
    request = ceremony.join(home, files, region, listen, advertise, _now(), shared)
    click.echo(f"daemon of {region} made in {home}")
    if (via / "keys/root.key").exists():
        _admit(request, via, [via / "keys/root.key"])
        _install(home, via)
        note(f"next: hanse daemon run --home {home}")
    else:
        click.echo(f"request       {home / ceremony.REQUEST_FILE}")
        note(
            "next, where the root key is: hanse daemon admit "
            f"{home / ceremony.REQUEST_FILE} --home FOUNDER"
        )


@daemon.command()
@click.argument("request", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--root-key",
    type=click.Path(path_type=Path),
    multiple=True,
    help="May be repeated.  [default: keys/root.key in the daemon's folder]",
)
@click.option(
    "--draft",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the next trust version there unsigned, for hanse trust sign.",
)
@options.home
@next_step("name a request as hanse daemon join, or hanse daemon pending --save, writes it")
def admit(request: Path, root_key: tuple[Path, ...], draft: Path | None, home: Path) -> None:
    """Admit a daemon that asks: sign the next members file."""
    with request.open("rb") as file:
        raw = file.read(64 * 1024 + 1)
    if draft is not None:
        from hanse.cli.trust import write_draft
        from hanse.daemon.ceremony import admitted

        write_draft(lambda members: admitted(raw, members), home, draft, dry_run=False)
        return
    path = _admit(raw, home, list(root_key) or [home / "keys/root.key"])
    note(f"next: copy {path.parent}/*.json into the trust folder of the new daemon and run it")


@daemon.command()
@click.option("--region", required=True, help="The region that the new daemon will speak for.")
@enrolling.ttl
@options.home
@options.output
def token(region: str, ttl_s: float, home: Path, form: str) -> None:
    """Make a token with which one machine may ask to join as a daemon of a region.

    The token alone is printed. Whoever has it can do no more than ask.
    """
    answer = client.call(home, "daemon.token", region=region, ttl_s=ttl_s)
    enrolling.show_token(form, answer)
    note("next, on the new machine: hanse daemon join --token - --listen HOST:PORT --home HOME")


@daemon.command()
@click.option(
    "--save",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write each request there as MEMBER.json, for hanse daemon admit.",
)
@click.option("--refuse", metavar="MEMBER", help="Forget this one's request.")
@options.home
@options.output
def pending(save: Path | None, refuse: str | None, home: Path, form: str) -> None:
    """Show the daemons that ask to join and wait to be admitted."""
    if refuse:
        client.call(home, "daemon.refuse", member=refuse)
    found = client.call(home, "daemon.pending")["pending"]
    if save:
        from hanse.daemon.private_files import write_new

        for each in found:
            path = save / f"{each['member']}.json"
            if not path.exists():
                write_new(path, each["request"].encode())
            note(f"next, where the root key is: hanse daemon admit {path}")
    rows = [(each["member"], each["region"], each["address"]) for each in found]
    table = Table(("MEMBER", "REGION", "ADDRESS"), rows or [("-",) * 3])
    emit(form, "PendingDaemons", {"pending": found}, table, [each["member"] for each in found])


@daemon.command()
@click.option(
    "--accept-own-log",
    is_flag=True,
    help="Write on at once, without asking peers. Only if this disk is neither a copy nor old.",
)
@options.home
def run(accept_own_log: bool, home: Path) -> int:
    """Run the daemon in the foreground until it is told to stop."""
    from hanse.daemon.run import main

    return main(home, accept_own_log=accept_own_log)


@daemon.command()
@options.home
def claim(home: Path) -> None:
    """Let the running daemon write at once, in a new incarnation of its log.

    For a daemon that waits for its peers, or that found another process with its own key. Stop
    that other one first: two daemons of one key take the region from each other.
    """
    done = client.call(home, "claim")
    click.echo(f"the daemon goes on after {done['log']}, in a new incarnation of it")
    if done["was"]:
        note(f"it had stopped writing: {done['was']}")


@daemon.command()
@options.home
def rebuild(home: Path) -> None:
    """Drop every view and fold it again from the events. The daemon must be stopped."""
    import asyncio

    if client.is_running(home):
        raise Conflict(f"the daemon of {home} runs", fix="stop it first")
    from hanse.daemon.config import load
    from hanse.daemon.run import rebuild as fold_again

    count = asyncio.run(fold_again(load(home)))
    click.echo(f"{count} models folded again from their events")


def _admit(request: bytes, home: Path, root_keys: list[Path]) -> Path:
    """Sign, keep, and tell the daemon of this home if it runs."""
    from hanse.cli.trust import install
    from hanse.daemon import ceremony
    from hanse.daemon.trust_folder import chain_beside

    files = chain_beside(home)
    raw = ceremony.admit(request, files, ceremony.root_keys(root_keys), _now())
    return install(home, len(files) + 1, raw)


def _install(home: Path, via: Path) -> None:
    from hanse.daemon.trust_folder import add_file, read_files

    for version, raw in enumerate(read_files(via / "trust"), start=1):
        add_file(home / "trust", version, raw)


def _edge_ca_of(home: Path, region: str, *, required: bool) -> Any:
    """The edge CA to share, if that home is of the same region."""
    from hanse.daemon.ceremony import read_edge_ca
    from hanse.daemon.config import load

    try:
        return read_edge_ca(home) if load(home).region == region else None
    except (NotFound, NotADirectoryError) as error:
        if required:
            raise
        del error
        return None


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
