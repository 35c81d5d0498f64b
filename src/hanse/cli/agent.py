"""`hanse agent`: enrol an edge node, run it, see what it does."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli import client, enrolling, options
from hanse.cli.errors import OK, UNHEALTHY
from hanse.cli.options import pairs
from hanse.cli.output import Table, age, at, emit, fetching, note, size
from hanse.core.errors import Conflict, InvalidSpec, NotFound

if TYPE_CHECKING:
    from hanse.daemon.enrolment import Enrolment


@click.group()
def agent() -> None:
    """Enrol an edge node and run it."""


@agent.command()
@click.option(
    "--via",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Instead of a token: the folder of the region's daemon, where the edge CA is.",
)
@click.option("--node", help="With --via: the node's name. A token names it itself.")
@enrolling.with_token
@click.option("--listen", default="127.0.0.1:8001", show_default=True, help="Inference HOST:PORT.")
@click.option("--share-listen", default="", help="HOST:PORT for nodes of the same region.")
@click.option("--label", multiple=True, callback=pairs, help="NAME=VALUE; may be repeated.")
@options.agent_home
def enroll(
    via: Path | None,
    node: str | None,
    token_text: str | None,
    listen: str,
    share_listen: str,
    label: dict[str, str],
    home: Path,
) -> None:
    """Make an edge node's folder: key, certificate for 7 days, agent.toml.

    With --token it runs on the node: the key is made here and stays here. A folder that is
    there already keeps its key and settings and gets a new certificate. With --via it runs where
    the daemon is, without a network; copy the folder to the node, over a channel that you trust.

    With --share-listen it gives model files to the other nodes of its region, over mutual TLS and
    only to whom the daemon permits it; 0.0.0.0:PORT is fine.
    """
    from hanse.core.ids import check_address
    from hanse.edge.listening import check_listen, check_reach

    check_reach(check_listen(listen), None, None, without_tls=False)
    settings = {"listen": listen}
    if share_listen:
        settings["share_listen"] = check_address(share_listen, "share_listen")
    if token_text:
        token = enrolling.read_token(token_text, "edge")
        enrolling.enroll(home, token, settings, label)
        click.echo(f"node {token.node} of {token.region} enrolled in {home}")
        note(f"next: hanse agent run --home {home}")
        return
    if via is None or node is None:
        raise click.UsageError("give --token, or --via and --node")
    from hanse.daemon.config import load
    from hanse.daemon.enrolment import enrol

    for name in ("agent.toml", "keys"):
        if (home / name).exists():
            raise Conflict(
                f"{home} holds a {name} already, and keys are never overwritten",
                fix="name another --home",
            )
    made = enrol(load(via), node, datetime.datetime.now(datetime.UTC))
    _write(home, made, settings, label)
    click.echo(f"node {made.node} of {made.region} enrolled in {home}, until {made.until:%Y-%m-%d}")
    note(f"next: hanse agent run --home {home}")


@agent.command()
@click.option("--node", required=True, help="The node's name in its region.")
@enrolling.ttl
@options.home
@options.output
def token(node: str, ttl_s: float, home: Path, form: str) -> None:
    """Make a token with which one machine becomes this node. Asks the region's daemon.

    The token alone is printed. It is good for one key, until it expires.
    """
    answer = client.call(home, "agent.token", node=node, ttl_s=ttl_s)
    enrolling.show_token(form, answer)
    note("next, on the node: hanse agent enroll --token - --home HOME")


@agent.command()
@click.argument("node")
@options.reason
@options.yes
@options.home
def revoke(node: str, reason: str | None, yes: bool, home: Path) -> None:
    """Cut a node off from the region's daemon, at once. A new token may bring it back.

    Other daemons learn of it only from a trust file.
    """
    reason = options.ask_reason(reason)
    options.confirm(
        yes, node, f"{node} will hear nothing more from this daemon and tell it nothing."
    )
    client.call(home, "agent.revoke", node=node, reason=reason)
    click.echo(f"node {node} is revoked at this daemon")
    note("elsewhere it is refused once the region's officers list it in a trust file")


@agent.command()
@options.agent_home
def run(home: Path) -> int:
    """Run the edge node in the foreground until it is told to stop."""
    from hanse.edge.run import main

    return main(home / "agent.toml")


@agent.command()
@options.agent_home
@options.output
def status(home: Path, form: str) -> int:
    """Show what this node runs. Needs no network and no daemon.

    Exits with 3 if the agent does not run, a release failed here or an interim one answers.
    """
    import time

    from hanse.edge.config import load
    from hanse.edge.status import runs

    path = load(home / "agent.toml").state / "status.json"
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        age_s = max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        raise NotFound(
            f"{path} is missing: this node has not run yet", fix=f"hanse agent run --home {home}"
        ) from None
    except ValueError:
        raise InvalidSpec(f"{path} cannot be read", fix="start the agent again") from None
    models, alive = found["models"], runs(path.parent)
    table = Table(
        ("MODEL", "RUNS", "CANARY", "BACK TO", "READY", "FAILED"),
        [_row(each) for each in models] or [("-",) * 6],
        head=[_doing(found) if alive else _dead(found, home), *map(fetching, found["fetching"])],
        foot=[
            f"unchanged for {age(age_s)}",
            *_sharing(found["sharing"]),
            _certificate(found["certificate_until"]),
        ],
    )
    value = {**found, "alive": alive, "unchanged_s": age_s}
    emit(form, "NodeStatus", value, table, [each["model"] for each in models])
    bad = any(each["failed"] or each["interim"] for each in models)
    return UNHEALTHY if bad or not alive else OK


@agent.command()
@click.argument("model")
@options.reason
@options.agent_home
def off(model: str, reason: str | None, home: Path) -> None:
    """Leave the canary of MODEL on this machine, or the release itself if there is none.

    Needs no network and no daemon. It holds for this generation of the rollout, and the region
    sees it. To stop a rollout in the whole region: hanse rollout abort.
    """
    from hanse.edge.config import load
    from hanse.edge.switch import leave

    state = load(home / "agent.toml").state
    try:
        found = json.loads((state / "status.json").read_bytes())["models"]
    except (FileNotFoundError, ValueError, KeyError):
        found = []
    here = next((each for each in found if each["model"] == model), None)
    release = here and (here["candidate"] or here["running"])
    if not release:
        raise NotFound(f"nothing of {model} runs here", fix=f"hanse agent status --home {home}")
    leave(state, model, release, options.ask_reason(reason))
    click.echo(f"{model}: {release[:19]} is left within a second, if another release can answer")
    note(f"see: hanse agent status --home {home}")


def _doing(found: dict[str, Any]) -> str:
    daemon = found["daemon"]
    how = "connected" if daemon["connected"] else "OUT OF REACH: the node goes on with what it has"
    lost = found.get("windows_lost")
    return (
        f"{found['node']} of {found['region']} answers on {found['listen']}; "
        f"daemon {daemon['address']} {how}"
        + (f"; {lost} windows of counts were too old to wait for it" if lost else "")
    )


def _dead(found: dict[str, Any], home: Path) -> str:
    return (
        f"{found['node']} of {found['region']} DOES NOT RUN, and did this last; "
        f"start it: hanse agent run --home {home}"
    )


def _sharing(found: dict[str, Any]) -> list[str]:
    if not found["address"]:
        return []
    return [f"gives to neighbours on {found['address']}: {size(found['bytes_given'])} so far"]


def _certificate(until: str) -> str:
    ends = datetime.datetime.fromisoformat(until)
    shown = at(int(ends.timestamp() * 1000))
    if ends > datetime.datetime.now(datetime.UTC):
        return f"certificate until {shown}; it renews itself"
    return f"certificate ended {shown}: get a token from the daemon, then hanse agent enroll"


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    def named(release: str | None) -> str:
        versions = model.get("versions", {})  # an older agent wrote none
        return versions.get(release, release[:19]) if release else "-"

    shares = {"": model["weight_bp"], "shadow ": model["shadow_bp"]}
    canary = [f"{kind}{share / 100:g} %" for kind, share in shares.items() if share]
    return (
        model["model"],
        named(model["running"]) + (" (interim)" if model["interim"] else ""),
        " ".join([named(model["candidate"]), ", ".join(canary)]).strip(),
        named(model["warm_fallback"]),
        ", ".join(map(named, model["ready"])) or "-",
        "; ".join(f"{named(each)}: {why}" for each, why in model["failed"].items()) or "-",
    )


def _write(home: Path, made: Enrolment, settings: dict[str, str], labels: dict[str, str]) -> None:
    from hanse.daemon.private_files import write_new
    from hanse.edge.config import render

    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_new(home / "keys/tls.key", made.identity.key_pem)
    write_new(home / "keys/tls.crt", made.identity.cert_pem, mode=0o644)
    write_new(home / "keys/daemon.crt", made.daemon_cert_pem, mode=0o644)
    values = {
        "node": made.node,
        "federation": made.federation,
        "region": made.region,
        "daemon": made.daemon_address,
        "daemon_key": made.daemon_key,
        **settings,
    }
    write_new(home / "agent.toml", render(values, labels).encode())
