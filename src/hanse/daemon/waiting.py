"""A daemon that no trust file lists yet: it asks the members until one of them has a file that
does.

Nobody lets it in before that, not even to ask: its authority opens a TLS connection only to
daemons that know it as a member. So a refused handshake is the usual answer, and no news.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from hanse.core.errors import HanseError, Rejected
from hanse.core.ids import MemberId
from hanse.core.trust.chain import Chain, replay
from hanse.core.trust.members import Member
from hanse.daemon.trust_folder import add_file
from hanse.rpc import enrol_client, tls
from hanse.rpc.certificates import Identity

ASK_S = 2.0
log = structlog.get_logger("hanse.daemon")


async def until_admitted(
    me: MemberId, identity: Identity, chain: Chain, folder: Path, *, ask_s: float = ASK_S
) -> None:
    """Returns once `folder` holds a chain that lists us. Says in the log that it waits."""
    if chain.current.member(me) is not None:
        return
    log.warning(
        "waits_to_be_admitted",
        member=me,
        trust_version=chain.current.version,
        fix="hanse daemon pending and admit, where the root key is",
    )
    while chain.current.member(me) is None:
        for member in chain.current.members:
            chain = await _newer(chain, member, identity)
        if chain.current.member(me) is None:
            await asyncio.sleep(ask_s)
    for version, raw in enumerate(chain.files, start=1):
        add_file(folder, version, raw)
    log.info("admitted", member=me, trust_version=chain.current.version)


async def _newer(chain: Chain, member: Member, identity: Identity) -> Chain:
    """The member's chain if it goes on from ours, else ours."""
    async with tls.open_channel(member.address, identity, member.tls_cert_pem.encode()) as channel:
        try:
            files = tuple(await enrol_client.trust_files(channel))
        except HanseError as error:
            log.debug("asked_in_vain", peer=member.id, why=str(error))
            return chain
    if files[: len(chain.files)] != chain.files:
        return chain
    try:
        return replay(files)
    except Rejected as error:
        log.warning("trust_refused", peer=member.id, why=str(error))
        return chain
