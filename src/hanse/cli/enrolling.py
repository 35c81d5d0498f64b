"""Enrolling with a token: what a machine does before it is a node or a member.

A key is made first and stays whatever happens then: a token is spent on one key, so whoever
lost the answer has to come back with the same.
"""

from __future__ import annotations

import datetime
import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli import options
from hanse.core.errors import Conflict, InvalidProof, NotPermitted

if TYPE_CHECKING:
    from hanse.core.token import Token


ttl = click.option(
    "--ttl",
    "ttl_s",
    callback=options.duration_s,
    default="15m",
    metavar="DURATION",
    show_default=True,
    help="How long the token may be used; at most 15m.",
)
with_token = click.option(
    "--token",
    "token_text",
    envvar="HANSE_TOKEN",
    show_envvar=True,
    help="The token; - reads it from standard input, where no list of processes shows it.",
)


def read_token(text: str, kind: str) -> Token:
    """The token, if it is of this kind and not too old by this machine's clock."""
    from hanse.core.token import parse

    token = parse(sys.stdin.read() if text == "-" else text)
    if token.kind != kind:
        other = "hanse daemon join" if token.kind == "daemon" else "hanse agent enroll"
        raise Conflict(f"this token is for {other}", fix="ask for the other kind of token")
    if token.expires_ms <= time.time() * 1000:
        raise NotPermitted(
            "the token has expired", fix="ask for a new one, or set this machine's clock"
        )
    return token


def show_token(form: str, answer: Mapping[str, Any]) -> None:
    """The token alone on standard output, in one line: it is copied or piped."""
    from hanse.cli.output import Table, emit

    if form == "table":
        click.echo(answer["token"])
    else:
        emit(form, "Token", answer, Table((), ()), [answer["token"]])


def enroll(home: Path, token: Token, settings: dict[str, str], labels: dict[str, str]) -> None:
    """Make the folder of a node, or give the one that is there a new certificate.

    Raises `Conflict` if the folder is another node's, and what the daemon raises.
    """
    import asyncio

    from hanse.daemon.private_files import read_private, write_new
    from hanse.edge.config import FILE_NAME
    from hanse.edge.status import replace_file
    from hanse.rpc import certificates, tls

    again = (home / FILE_NAME).exists()
    if again:
        _check_same(home, token)
    key_path = home / "keys/tls.key"
    if not key_path.exists():
        write_new(key_path, certificates.new_key_pem())
    key_pem = read_private(key_path)
    pem = asyncio.run(_enrolled(token, certificates.request(key_pem)))
    peer = tls.peer_of_certificate(pem)
    if (peer.region, peer.kind, peer.name) != (token.region, "edge", token.node):
        raise InvalidProof(
            "the daemon has issued a certificate for somebody else", fix="ask for a new token"
        )
    replace_file(home / "keys/tls.crt", pem, durable=True)
    authority_pem = certificates.to_pem(token.authority_der)
    replace_file(home / "keys/daemon.crt", authority_pem, durable=True)
    if not again:  # last: a folder without it is unfinished, and may be tried again
        write_new(home / FILE_NAME, _settings(token, settings, labels))


async def _enrolled(token: Token, request: bytes) -> bytes:
    from hanse.rpc import enrol_client

    async with enrol_client.token_channel(token) as channel:
        return await enrol_client.enroll(channel, request)


def _settings(token: Token, chosen: dict[str, str], labels: dict[str, str]) -> bytes:
    from hanse.core.encoding import to_base64
    from hanse.edge.config import render

    values = {
        "node": token.node,
        "federation": token.federation,
        "region": token.region,
        "daemon": token.address,
        "daemon_key": to_base64(token.daemon_key),
        **chosen,
    }
    return render(values, labels).encode()


def _check_same(home: Path, token: Token) -> None:
    """Before the token is spent: it must be for this node, and from the daemon it obeys."""
    from hanse.core.encoding import to_base64
    from hanse.edge.config import FILE_NAME, load

    config = load(home / FILE_NAME)
    if (config.federation, config.region, config.node) != (
        token.federation,
        token.region,
        token.node,
    ):
        raise Conflict(
            f"{home} is the folder of node {config.node} of {config.federation}/{config.region}",
            fix=f"ask for a token for that node, or name another --home for {token.node}",
        )
    if (config.daemon, config.daemon_key) != (token.address, token.daemon_key):
        raise Conflict(
            f"{home / FILE_NAME} names another daemon than the token",
            fix=f'if that is right, set daemon = "{token.address}" and '
            f'daemon_key = "{to_base64(token.daemon_key)}" there, then enrol again',
        )


def join(home: Path, token: Token, listen: str, advertise: str, edge_ca: Any) -> None:
    """Make a daemon's folder and leave its request with the daemon that made the token.

    May be done again, with the same folder, if it broke off.
    """
    import asyncio

    asyncio.run(_join(home, token, listen, advertise, edge_ca))


async def _join(home: Path, token: Token, listen: str, advertise: str, edge_ca: Any) -> None:
    from hanse.daemon import ceremony
    from hanse.daemon.trust_folder import add_file
    from hanse.rpc import enrol_client

    request = home / ceremony.REQUEST_FILE
    async with enrol_client.token_channel(token) as channel:
        files = await enrol_client.trust_files(channel)
        _check_first(files, token)
        if not request.exists():
            now = datetime.datetime.now(datetime.UTC)
            ceremony.join(home, files, token.region, listen, advertise, now, edge_ca)
        for version, raw in enumerate(files, start=1):
            add_file(home / "trust", version, raw)
        await enrol_client.join(channel, request.read_bytes())


def _check_first(files: Sequence[bytes], token: Token) -> None:
    """The first file is what everything else rests on; the token names it by its hash."""
    if not files or hashlib.sha256(files[0]).digest() != token.trust:
        raise InvalidProof(
            "the daemon sends another first trust file than the token names",
            fix="ask for a new token; if that does not help, somebody has forged one",
        )
