"""T35, T36: the gate of a daemon that holds files, with its real rules; TLS is tested elsewhere."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lonely import chain, lonely
from structlog.testing import capture_logs
from test_architecture import imports

from hanse.core.errors import NotPermitted
from hanse.core.ids import Digest, Segment
from hanse.core.transfer.wanted import File
from hanse.daemon import gate as gates
from hanse.daemon.gate import Gate
from hanse.rpc.tls import Peer
from hanse.v1 import blob_pb2

HERE, THERE, FAR = map(Segment, ("eu-north", "us-east", "ap-south"))
FILE = bytes(range(256)) * 8
BLOB = Digest.of(FILE)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose certificates are right; held against the trust in `rpc.tls`."""
    monkeypatch.setattr(gates.tls, "check_known", lambda peer, _: None)


def peer(region: str, kind: str = "daemon") -> Peer:
    return Peer(Segment("hansa"), Segment(region), kind, "somebody", b"spki")


class Counted:
    """A store of which one can see whether anybody looked."""

    def __init__(self, blobs: Any) -> None:
        self._blobs, self.looks = blobs, 0

    def __getattr__(self, name: str) -> Any:
        self.looks += 1
        return getattr(self._blobs, name)


async def test_the_direct_peer_is_judged_whoever_it_asks_for() -> None:
    async with lonely(HERE, chain()) as daemon:
        release = await daemon.publish("1.0.0", FILE, residency=(HERE, THERE))
        gate = Gate(daemon.node, daemon.blobs)
        for kind in ("daemon", "edge"):
            assert gate.may_fetch(peer(HERE, kind), File(BLOB, release))
            assert gate.may_fetch(peer(THERE, kind), File(BLOB, release))
            assert not gate.may_fetch(peer(FAR, kind), File(BLOB, release))


@pytest.mark.parametrize("rule", ["residency of the federation", "residency of the region"])
async def test_what_trust_keeps_in_a_region_is_given_to_nobody_outside(rule: str) -> None:
    known = chain()
    if rule.endswith("federation"):
        known = chain(residency={HERE: (THERE,)})
    else:
        own = tuple(
            replace(r, residency=(THERE,)) if r.name == HERE else r for r in known.current.regions
        )
        known = chain(regions=own)
    async with lonely(HERE, known) as daemon:
        release = await daemon.publish("1.0.0", FILE)
        gate = Gate(daemon.node, daemon.blobs)
        assert gate.may_fetch(peer(THERE), File(BLOB, release))
        assert not gate.may_fetch(peer(FAR), File(BLOB, release))


async def test_another_release_with_the_same_name_opens_no_file_of_this_one() -> None:
    async with lonely(HERE, chain()) as daemon:
        await daemon.publish("1.0.0", FILE, residency=(HERE,))
        free = await daemon.publish("2.0.0", b"free")
        gate = Gate(daemon.node, daemon.blobs)
        assert gate.may_fetch(peer(FAR), File(Digest.of(b"free"), free))
        assert not gate.may_fetch(peer(FAR), File(BLOB, free))


async def test_whoever_is_denied_cannot_find_out_what_is_here() -> None:
    """The same answer, and the same work: the store is not asked before residency is."""
    async with lonely(HERE, chain()) as daemon:
        release = await daemon.publish("1.0.0", FILE, residency=(HERE,))
        counted = Counted(daemon.blobs)
        gate = Gate(daemon.node, counted)
        before = counted.looks
        held = gate.may_fetch(peer(FAR), File(BLOB, release))
        for pin in daemon.blobs.pins(BLOB):
            daemon.blobs.unpin(BLOB, pin)
        daemon.blobs.delete(BLOB)
        gone = gate.may_fetch(peer(FAR), File(BLOB, release))
        unknown = gate.may_fetch(peer(FAR), File(Digest.of(b"nothing"), Digest.of(b"no release")))
        assert (held, gone, unknown) == (False, False, False)
        assert counted.looks == before


async def test_a_denial_is_logged_counted_and_put_on_record() -> None:
    async with lonely(HERE, chain()) as daemon:
        release = await daemon.publish("1.0.0", FILE, residency=(HERE,))
        gate, told = Gate(daemon.node, daemon.blobs), list[tuple[Peer, Digest]]()
        gate.on_denied = lambda *denied: told.append(denied)
        with capture_logs() as lines:
            assert not gate.may_fetch(peer(FAR), File(BLOB, release))
            assert gate.may_fetch(peer(HERE), File(BLOB, release))
        (line,) = [each for each in lines if each["event"] == "fetch_denied"]
        assert (line["peer"], line["region"]) == ("somebody", FAR)
        assert told == [(peer(FAR), release)]
        assert daemon.node.counters["fetches_denied"] == 1


async def test_a_stranger_is_refused_before_any_release_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with lonely(HERE, chain()) as daemon:
        release = await daemon.publish("1.0.0", FILE)
        gate = Gate(daemon.node, daemon.blobs)

        def stranger(_: Peer, __: Any) -> None:
            raise NotPermitted("a stranger")

        monkeypatch.setattr(gates.tls, "check_known", stranger)
        monkeypatch.setattr(daemon.node.catalog, "release", lambda _: 1 / 0)
        with pytest.raises(NotPermitted):
            gate.may_fetch(peer(HERE), File(BLOB, release))


def test_whoever_serves_files_has_no_way_to_ask_others_for_any() -> None:
    """No call fetches on behalf of another: who serves knows no client, and no request names
    anybody but what is wanted."""
    source = Path(gates.__file__).parents[1]
    for name in ("daemon/gate.py", "rpc/blob_service.py", "edge/sharing.py"):
        modules = {m for m, _ in imports(ast.parse((source / name).read_text()))}
        asking = ("blob_client", ".transfers", ".link", "transfer.fetch", "transfer.wish")
        assert not {m for m in modules if m.endswith(asking)}, name
    asked = {
        field.name
        for message in ("FetchRequest", "RecipeRequest", "PartsRequest")
        for field in blob_pb2.DESCRIPTOR.message_types_by_name[message].fields
    }
    assert asked == {
        "digest", "release", "offset", "recipe", "parts", "base", "base_release", "packed",
        "insist", "ticket",
    }  # fmt: skip
