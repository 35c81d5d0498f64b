"""This node's certificate: read from the disk, renewed in time, replaced whole.

The key stays: a renewal certifies the same one, so that whoever steals a connection cannot move
to a key of its own. A certificate that has ended stops nothing here but talk with daemons.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable

from hanse.core.errors import InvalidProof
from hanse.edge.config import Config
from hanse.edge.status import replace_file
from hanse.rpc import certificates, enrol_client, tls
from hanse.rpc.certificates import Identity
from hanse.rpc.channels import Channel
from hanse.rpc.doorkeeper import utc_now
from hanse.rpc.renewal import renewal_due
from hanse.transfer.threads import finished


class OwnCertificate:
    """Owned by the agent. `spread` from 0 to 1 says when in its turn the renewal comes."""

    def __init__(
        self,
        config: Config,
        *,
        now: Callable[[], datetime.datetime] = utc_now,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._config, self._now, self._spread = config, now, spread
        self._key_pem = config.tls_key.read_bytes()
        self._take(config.tls_cert.read_bytes())

    def _take(self, pem: bytes) -> None:
        self.identity = Identity(pem, self._key_pem)
        span = certificates.span_of(pem)
        self.until = span[1]
        self._due = renewal_due(span, self._spread())

    def check(self) -> None:
        """Raises `NotPermitted` if it is out of date."""
        tls.check_dates(self.identity.cert_pem, now=self._now())

    def reread(self) -> bool:
        """Take another certificate that somebody has put in its place, say by enrolling again."""
        try:
            found = self._config.tls_cert.read_bytes()
        except FileNotFoundError:  # what we have in memory is good for as long as it lasts
            return False
        if found == self.identity.cert_pem:
            return False
        self._check_same(found)
        self._take(found)
        return True

    async def renew_if_due(self, channel: Channel) -> bool:
        """Ask the daemon for the next one if it is time. Raises `Rejected`, `Unavailable`.

        What has ended cannot be renewed, as it opens no connection: a person has to enrol the
        node again.
        """
        if not self._due <= self._now() <= self.until:
            return False
        pem = await enrol_client.renew(channel, certificates.request(self._key_pem))
        self._check_same(pem)
        await finished(lambda: replace_file(self._config.tls_cert, pem, durable=True))
        self._take(pem)
        return True

    def _check_same(self, pem: bytes) -> None:
        ours, theirs = (tls.peer_of_certificate(p) for p in (self.identity.cert_pem, pem))
        if (theirs.spki, theirs.kind, theirs.name, theirs.region) != (
            ours.spki,
            ours.kind,
            ours.name,
            ours.region,
        ):
            raise InvalidProof(
                "the new certificate is not for this node and its key", fix="enrol the node again"
            )
