"""What `hanse release show` says of a release: all that its signed manifest does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hanse.cli.output import at, size
from hanse.core.catalog.manifest import Manifest, Tensor, parse_manifest

if TYPE_CHECKING:
    from hanse.cli.shapes import ReleaseShown

Row = tuple[str, str]


def rows(found: ReleaseShown) -> list[Row]:
    manifest = parse_manifest(found["manifest"].encode())
    count = len(manifest.files)
    return [
        ("name", f"{manifest.model}@{manifest.version}"),
        ("release", found["release"]),
        ("state", found["state"]),
        ("signed by", found["by"]),
        ("recorded", f"{found['event']} by {found['recorded_by']} at {at(found['at_ms'])}"),
        ("active in", ", ".join(found["active"]) or "-"),
        ("proven in", ", ".join(found["proven"]) or "-"),
        *([("held in", ", ".join(found["held"]))] if found["held"] else []),
        *_origin(manifest, found["parent_versions"]),
        ("size", f"{size(found['size'])} in {count} file{'s' * (count != 1)}"),
        *_files(manifest),
        *_promises(manifest),
        ("files may lie in", _regions(manifest.residency)),
        ("files are here", "yes" if found["local"] else "no"),
    ]


def _regions(residency: tuple[str, ...]) -> str:
    return "every region" if "*" in residency else ", ".join(residency)


def _origin(manifest: Manifest, versions: Mapping[str, str]) -> Iterator[Row]:
    """What it was made from, and how."""
    for parent in manifest.parents:
        name = versions[str(parent.release)] or "not known here"
        yield "parent", f"{name} ({parent.relation}) {parent.release}"
    for data in manifest.training_data:
        yield "trained on", f"{data.name} {data.digest or 'without a digest'}"
    for what, pairs in (
        ("hyperparameter", manifest.hyperparameters),
        ("metric", manifest.metrics),
        ("framework", manifest.frameworks),
        ("label", manifest.labels),
    ):
        yield from ((what, f"{name} {value}") for name, value in pairs.items())
    for what, text in (("code", manifest.code), ("licence", manifest.licence)):
        if text:
            yield what, text
    for field, commitment in manifest.private.items():
        yield "private", f"{field} {commitment}"


def _files(manifest: Manifest) -> Iterator[Row]:
    for file in manifest.files:
        yield "file", f"{file.name} {file.size} {file.digest}"
    for number, variant in enumerate(manifest.variants, start=1):
        yield f"variant {number}", f"{variant.id}: {variant.format}, {variant.file}"
        yield from (("needs", f"{variant.id}: {key} {n}") for key, n in variant.requires.items())


def _promises(manifest: Manifest) -> Iterator[Row]:
    """What is checked of it: its signature, golden answers, how answers compare, its reference."""
    yield from (("input", _tensor(each)) for each in manifest.inputs)
    yield from (("output", _tensor(each)) for each in manifest.outputs)
    if manifest.golden is not None:
        golden = manifest.golden
        yield "golden", f"{golden.file}, within rtol {golden.rtol:g} and atol {golden.atol:g}"
    outcome = manifest.outcome.to_mapping()
    said = [f"{key} {value:g}" for key, value in outcome.items() if isinstance(value, float)]
    if manifest.outcome.kind != "none":
        yield "outcome", ", ".join([f"{manifest.outcome.kind} of {manifest.outcome.output}", *said])
    for series in manifest.profile:
        yield "reference", f"{series.name}: {sum(series.counts)} in {len(series.counts)} bins"


def _tensor(tensor: Tensor) -> str:
    return f"{tensor.name} {tensor.datatype} {list(tensor.shape)}"
