"""The client of python-tuf, as it is, follows our trust from an exported folder and is not fooled.

It shares the parser with us and nothing else: it verifies with its own library, counts its own
thresholds and reads expiry its own way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import hand_federation
import pytest
from audited import door_of, run, stored
from hand_federation import Federation
from lonely import ROOT
from tuf.api.exceptions import DownloadHTTPError, ExpiredMetadataError, RepositoryError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from hanse.core.errors import Rejected
from hanse.core.node import Node
from hanse.core.signing import SigningKey
from hanse.core.step import PutLocal, PutTrust
from hanse.core.trust import chain
from hanse.core.trust.chain import Chain
from hanse.core.trust.freshness import SPACE
from hanse.core.trust.members import Keys, Members, Person
from hanse.core.trust.timestamp import LIFE_S, sign_stamp
from hanse.core.trust.tuf_files import tuf_files
from hanse.core.trust.writing import Expiry
from hanse.daemon.audit_folder import reader, save, verify
from hanse.rpc.codec import EventCodec
from hanse.storage.memory import MemoryEventStore

ONE, TWO, NEW, OFFICER, STAMPS = (SigningKey(bytes([i]) * 32) for i in range(200, 205))
BOARD = Keys((ROOT.public, ONE.public, TWO.public), 2)
EVERYBODY = (ROOT, ONE, TWO, NEW, OFFICER)
NOW_S = int(time.time())
EXPIRY = Expiry.after(NOW_S)


def grown(expiry: Expiry = EXPIRY) -> Chain:
    """Six versions: other people, a region with officers, a floor, a new root, a region gone."""
    first = Federation(edges=0).node("eu-north").book.chain.current
    said = replace(
        first, version=1, root_keys=BOARD.keys, root_threshold=2, targets=BOARD, snapshot=BOARD,
        timestamp=Keys((STAMPS.public,)),
        regions=tuple(replace(r, officers=BOARD) for r in first.regions),
    )  # fmt: skip
    found = chain.replay((chain.sign(said, EVERYBODY, expiry=expiry),))

    def add(**changes: object) -> None:
        nonlocal found
        following = replace(found.current, version=found.current.version + 1, **changes)  # type: ignore[arg-type]
        found = chain.extend(found, chain.sign(following, EVERYBODY, found, expiry))

    eu, *others = said.regions
    ada = Person("ada", ONE.public, ("auditor",), ("*",))
    add(people=(*said.people, ada))
    add(regions=(replace(eu, officers=Keys((OFFICER.public,))), *others))
    add(floors={"ocr-rec": 3})
    add(root_keys=(NEW.public, ONE.public), targets=Keys((NEW.public,)))
    gone = others[-1].name
    add(
        regions=found.current.regions[:-1],
        members=tuple(m for m in said.members if m.region != gone),
    )
    return found


class Folder(FetcherInterface):
    """Answers from files, and remembers what it was asked for."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files, self.asked = files, set[str]()

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = url.removeprefix("hanse://")
        if path not in self.files:
            raise DownloadHTTPError(f"no {path}", 404)
        self.asked.add(path)
        yield self.files[path]


def follow(files: Mapping[str, bytes], home: Path, members: Members) -> Folder:
    """Refresh, and fetch every target that this version has."""
    folder = Folder(files)
    for name in ("metadata", "targets"):
        (home / name).mkdir(parents=True, exist_ok=True)
    updater = Updater(
        str(home / "metadata"), "hanse://tuf/metadata/", str(home / "targets"),
        "hanse://tuf/targets/", folder, bootstrap=files["tuf/metadata/1.root.json"],
    )  # fmt: skip
    updater.refresh()
    regions = [f"{region.name}/region.json" for region in members.regions]
    for path in ("members.json", "witness.policy", "residency.json", "floors.json", *regions):
        found = updater.get_targetinfo(path)
        assert found is not None, path
        updater.download_target(found)
    return folder


def stamped(known: Chain, version: int, now_s: int = NOW_S) -> dict[str, bytes]:
    said = known.versions[version - 1]
    return tuf_files(known.files[:version], sign_stamp(said, STAMPS, now_s + version - 10).raw)


@pytest.fixture(scope="module")
def known() -> Chain:
    return grown()


@pytest.fixture(scope="module")
def export(known: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `hanse audit export` writes of a daemon that has this trust and no logs yet."""
    store = MemoryEventStore()
    stamp = sign_stamp(known.current, STAMPS, NOW_S).raw
    run(store.apply([PutTrust(v, raw) for v, raw in enumerate(known.files, start=1)]))
    run(store.apply([PutLocal(SPACE, "timestamp", stamp)]))
    folder = tmp_path_factory.mktemp("export") / "audit"
    save(door_of(store), folder, (), EventCodec(), lambda *_: None)
    assert verify(folder, known.files[0], EventCodec()).timestamp == stamp
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / "tuf").rglob("*")
        if path.is_file()
    }


def test_a_stock_client_follows_an_export_from_the_first_root_to_the_newest_version(
    export: Path, known: Chain, tmp_path: Path
) -> None:
    asked = follow(files_of(export), tmp_path, known.current).asked
    assert {"tuf/metadata/2.root.json", "tuf/metadata/6.snapshot.json"} <= asked
    got = {p.name: p.read_bytes() for p in (tmp_path / "targets").rglob("*") if p.is_file()}
    assert got["members.json"] == known.tip.files["members.json"]
    assert got["floors.json"] == known.tip.files["floors.json"]
    assert known.tip.files["eu-north/region.json"] in got.values()


def test_a_stock_client_goes_with_us_from_version_to_version_and_never_back(
    known: Chain, tmp_path: Path
) -> None:
    for version, said in enumerate(known.versions, start=1):
        follow(stamped(known, version), tmp_path, said)
    old = stamped(known, 5, NOW_S + 100)
    with pytest.raises(RepositoryError):
        follow(old, tmp_path, known.versions[4])


def test_a_stock_client_refuses_any_file_of_ours_that_was_changed(
    export: Path, known: Chain, tmp_path: Path
) -> None:
    files = files_of(export)
    needed = sorted(follow(files, tmp_path / "whole", known.current).asked)
    assert len(needed) >= 12
    for number, path in enumerate(needed):
        middle = files[path].find(b'"signed"')  # of metadata: inside what is signed
        place = middle + 12 if middle > 0 else len(files[path]) // 2
        raw = bytearray(files[path])
        raw[place] ^= 1
        with pytest.raises(RepositoryError):
            follow({**files, path: bytes(raw)}, tmp_path / str(number), known.current)


def gossiped(node: Node) -> dict[str, bytes]:
    """The repository that a daemon has of what peers told it, and of nothing else."""
    stamp = node.sync.trust.freshness.stamp
    return tuf_files(node.book.chain.files, stamp.raw if stamp else None)


def test_a_stock_client_fed_by_gossip_follows_what_reached_the_daemon_and_no_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fetcher reads from a daemon that heard the new trust and its timestamp from peers."""
    monkeypatch.setattr(hand_federation, "START_MS", NOW_S * 1000)
    town = Federation(edges=0)
    here, there = town.node("eu-north"), town.node("ap-south")
    town.run(5)
    follow(gossiped(there), tmp_path, there.book.chain.current)
    following = replace(here.book.chain.current, version=2, floors={"ocr-rec": 3})
    here.extend_trust(chain.sign(following, (town.root,), here.book.chain))
    town.run(5)
    assert there.book.chain.current.version == 2
    asked = follow(gossiped(there), tmp_path, there.book.chain.current).asked
    assert "tuf/metadata/2.snapshot.json" in asked
    with pytest.raises(RepositoryError):
        follow({**gossiped(there), "tuf/metadata/timestamp.json": b"{}"}, tmp_path, following)


def test_a_stock_client_and_we_refuse_what_too_few_have_signed(
    known: Chain, tmp_path: Path
) -> None:
    following = replace(known.current, version=7, ring_seed="mine")
    raw = chain.sign(following, (TWO, OFFICER), known, EXPIRY)
    with pytest.raises(Rejected):
        chain.extend(known, raw)
    stamp = sign_stamp(replace(following, digest=bytes(32)), STAMPS, NOW_S).raw
    with pytest.raises(RepositoryError):
        follow(tuf_files((*known.files, raw), stamp), tmp_path, following)


def test_expired_trust_stops_a_stock_client_and_never_our_start(tmp_path: Path) -> None:
    """F19: we load it, serve and roll back; only forward moves stop (`trust.freshness`)."""
    old = grown(Expiry.after(NOW_S - 400 * 86_400))
    with pytest.raises(ExpiredMetadataError):
        follow(stamped(old, 6), tmp_path, old.current)
    assert chain.replay(old.files).current == old.current
    fresh = grown()
    with pytest.raises(ExpiredMetadataError):
        follow(stamped(fresh, 6, NOW_S - LIFE_S - 60), tmp_path / "late", fresh.current)


def test_an_export_with_a_timestamp_that_nobody_signed_is_refused(
    export: Path, known: Chain, tmp_path: Path
) -> None:
    read, forged = reader(export), sign_stamp(known.current, ONE, NOW_S).raw

    def lying(path: str) -> bytes:
        return forged if path == "trust/timestamp.json" else read(path)

    with pytest.raises(Rejected, match=r"trust/timestamp\.json"):
        save(lying, tmp_path / "copy", (), EventCodec(), lambda *_: None)


def test_a_door_without_a_timestamp_says_so() -> None:
    assert b'"timestamp":false' in door_of(stored(Federation(edges=0)))("logs")
