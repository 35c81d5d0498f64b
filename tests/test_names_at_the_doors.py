"""T28: a name is a label at every door that takes one; no door makes a path of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core.test_assignment import example
from core.test_names import NAMES
from core.test_ticket import KEY as TICKET_KEY

from hanse.cli.manifest_builder import file_name
from hanse.core import bundle, ticket
from hanse.core.assignment import parse_assignment
from hanse.core.audit import export
from hanse.core.bundle import Held, Part
from hanse.core.catalog.manifest import File, Manifest, Variant, parse_manifest
from hanse.core.errors import InvalidProof, NotFound, Rejected
from hanse.core.ids import Digest, Segment, Version, segment
from hanse.core.reading import canonical_json
from hanse.daemon.audit_folder import verify
from hanse.edge.cache import Cache
from hanse.gateways.log_files import LogFiles
from hanse.rpc.codec import EventCodec
from hanse.storage.blobs import BlobStore
from hanse.storage.memory import MemoryEventStore

WRITABLE = [name for name in NAMES if "\ud800" not in name]
"""Those that can be written as UTF-8 at all; the others no parser lets in."""


def document() -> dict[str, Any]:
    file = File(segment("m.onnx"), Digest.of(b"m"), 1)
    variant = Variant(segment("v"), "onnx", file.name)
    made = Manifest(Segment("m"), Version("1"), (file,), (variant,), (), ())
    return dict(json.loads(made.encode()))


def manifest(*path: str | int) -> Callable[[str], None]:
    """A manifest in which that field has the name."""

    def door(name: str) -> None:
        changed = document()
        changed["golden"] = {"file": "m.onnx", "rtol": 0.0, "atol": 0.0}
        holder: Any = changed
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = name
        parse_manifest(canonical_json(changed))

    return door


def assignment(*path: str | int) -> Callable[[str], None]:
    def door(name: str) -> None:
        changed: Any = json.loads(example().encode())
        holder = changed
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = name
        parse_assignment(canonical_json(changed))

    return door


def of_a_bundle(name: str) -> None:
    held = Held(Segment("f"), Segment("r"), 0, {}, frozenset())
    bundle.parse_held(canonical_json({**held.to_mapping(), "region": name}))


def log_in_a_bundle(name: str) -> None:
    part = Part("final", 1, Digest.of(b"x")).encode()
    bundle._part({**part, "origin": f"f/{name}/{'0' * 32}/i1"}, "part")


def ticket_of_a_node(name: str) -> None:
    said = {
        "digest": str(Digest.of(b"f")), "expires_ms": 1, "node": name,
        "release": str(Digest.of(b"r")), "spki": "0" * 64,
    }  # fmt: skip
    body = canonical_json(said)
    ticket.open_ticket(TICKET_KEY.sign(ticket._DOMAIN + body) + body, TICKET_KEY.public)


DOORS: dict[str, Callable[[str], None]] = {
    "a file of a release": manifest("files", 0, "name"),
    "a variant": manifest("variants", 0, "id"),
    "the file of a variant": manifest("variants", 0, "file"),
    "golden inputs": manifest("golden", "file"),
    "a model": manifest("model"),
    "residency": manifest("residency", 0),
    "a model on a node": assignment("models", 0, "model"),
    "the region of a node": assignment("region"),
    "the region of a source": assignment("sources", 0, "region"),
    "the receiver of a bundle": of_a_bundle,
    "a log in a bundle": log_in_a_bundle,
    "the node of a ticket": ticket_of_a_node,
}


@pytest.mark.parametrize("door", DOORS)
def test_no_door_takes_a_name_that_is_more_than_a_name(door: str) -> None:
    taken = []
    for name in WRITABLE:
        try:
            DOORS[door](name)
        except Rejected:
            continue
        taken.append(name)
    assert taken == []


@pytest.mark.parametrize("door", DOORS)
def test_a_plain_name_is_not_refused_for_its_form(door: str) -> None:
    """Otherwise the doors above could be shut for another reason."""
    try:
        DOORS[door]("eu-north")
        said = ""
    except Rejected as error:
        said = str(error)
    assert "is not a valid name" not in said  # there is no such file, and the like


def test_on_a_publishers_disk_files_may_have_any_name_and_get_a_label() -> None:
    for name in NAMES:
        try:
            label = file_name(Path("folder") / name.replace("\0", "").replace("/", ""))
        except Rejected:
            continue
        assert segment(label) == label


def test_a_blob_is_pinned_by_a_label_or_not_at_all(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "store")
    before = tree(tmp_path)
    for name in WRITABLE:
        with pytest.raises(Rejected):
            store.pin(Digest.of(b"b"), name)
    made = {path for path in tree(tmp_path) - before if not path.is_dir()}
    assert made == set()


async def test_the_auditors_door_opens_files_of_the_log_and_nothing_else() -> None:
    files = LogFiles(MemoryEventStore(), Segment("f"))
    for name in [*NAMES, "log/../logs", "logs/..", "/logs", "trust/00001.json/../../x"]:
        for path in (name, f"log/{name}/checkpoint", f"trust/{name}.json", f"evidence/{name}.json",
                     f"log/f/r/{'0' * 32}/i1/tile/{name}"):  # fmt: skip
            with pytest.raises(NotFound):
                await files.read(path)


def test_a_folder_that_was_exported_elsewhere_names_files_below_it_alone(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x")
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in ("../outside", str(tmp_path / "outside"), "a/../../outside"):
        raw = export.seal({path: Digest.of(b"x")})
        (folder / export.SEAL).write_bytes(raw)
        with pytest.raises(InvalidProof, match="other bytes"):
            verify(folder, b"", EventCodec())
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "folder").symlink_to(tmp_path)
    for path in ("link", "folder/outside"):
        (folder / export.SEAL).write_bytes(export.seal({path: Digest.of(b"x")}))
        with pytest.raises(InvalidProof, match=f"^{path}: there is no file"):
            verify(folder, b"", EventCodec())


def test_a_node_lays_out_what_its_manifest_lists_and_finds_it_by_digest(tmp_path: Path) -> None:
    """Even a name that got past every door opens nothing: files are found by their digest."""
    cache = Cache(tmp_path / "state")
    data = b"model"
    with cache.blobs.writer(len(data), Digest.of(data)) as writer:
        writer.write(data)
        writer.commit()
    file = File(segment("m.onnx"), Digest.of(data), len(data))
    made = parse_manifest(
        Manifest(
            Segment("m"), Version("1"), (file,), (Variant(segment("v"), "onnx", file.name),), (), ()
        ).encode()
    )
    folder = cache.lay_out(Digest.of(b"release"), made)
    assert [each.name for each in folder.iterdir()] == ["m.onnx"]
    missing = replace(made, files=(replace(file, digest=Digest.of(b"elsewhere")),))
    with pytest.raises(NotFound):
        cache.lay_out(Digest.of(b"another"), missing)


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))
