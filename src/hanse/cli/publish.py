"""`hanse release publish`: from files to a signed release, through the daemon at hand.

The bytes go first, the signed record last, so a release that is recorded is also here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli import client, options
from hanse.cli.options import pairs
from hanse.cli.output import Table, emit, note
from hanse.core.catalog.manifest import RELATIONS, Outcome

if TYPE_CHECKING:
    from hanse.cli.manifest_builder import Built, Said


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("-n", "--model", required=True, help="The model's name, such as ocr-rec.")
@click.option("-v", "--version", required=True, help="The version, such as 4.0.0.")
@click.option("--parent", multiple=True, help="Version or digest this one comes from.")
@click.option(
    "--relation",
    type=click.Choice(RELATIONS),
    default="replaces",
    show_default=True,
    help="How it comes from its parents.",
)
@click.option("--golden", type=click.Path(path_type=Path), help="Inputs with expected outputs.")
@click.option("--rtol", type=float, default=1e-3, show_default=True, help="For golden outputs.")
@click.option("--atol", type=float, default=1e-4, show_default=True, help="For golden outputs.")
@click.option(
    "--outcome",
    default="none",
    help="How answers are compared with each other and with late labels: KIND:OUTPUT[,OPTION=N].",
)
@click.option("--label", multiple=True, callback=pairs, help="NAME=VALUE; may be repeated.")
@click.option("--training-data", multiple=True, help="NAME or NAME=sha256:…; may be repeated.")
@click.option("--hyperparameter", multiple=True, callback=pairs, help="NAME=VALUE.")
@click.option("--metric", multiple=True, callback=pairs, help="NAME=VALUE, as evaluated.")
@click.option("--framework", multiple=True, callback=pairs, help='Such as onnxruntime=">=1.17".')
@click.option(
    "--require",
    multiple=True,
    callback=pairs,
    help="What nodes must have: hardware=orin; of one file: big.onnx:mem.ram_mib='>=4000'.",
)
@click.option("--licence", default="", help="The model's licence.")
@click.option("--code", default="", help="Where the training code is, such as a commit.")
@click.option(
    "--private", multiple=True, help="Only commit to this value: training.data, metrics.NAME, …"
)
@click.option("--residency", multiple=True, help="Regions that may hold the files. Default: all.")
@click.option("--dry-run", is_flag=True, help="Print the manifest; send nothing.")
@options.draft
@options.key
@options.home
@options.output
def publish(
    path: Path,
    model: str,
    parent: tuple[str, ...],
    relation: str,
    private: tuple[str, ...],
    dry_run: bool,
    draft: Path | None,
    key: Path | None,
    home: Path,
    form: str,
    **rest: Any,
) -> None:
    """Publish a model file or folder as an immutable, signed release.

    Needs, signature and digests are read from the files. Nothing runs the release before a
    rollout says so.
    """
    from hanse.cli.manifest_builder import build

    parents = _parents(home, model, parent, relation)
    built, openings = _hidden(build(path, _said(model, parents, rest)), private)
    if dry_run:
        _show(built, form)
        return
    if draft is None:
        options.signing_key(home, key)  # before anything is sent
    counter = client.call(home, "release.prepare", model=model)["counter"]
    _hints(built, counter)
    _upload(home, built)
    args = {"manifest": built.manifest.encode().decode(), "counter": counter}
    more = {"openings": openings} if openings else {}
    options.ask(home, "release.publish", args | more, key, draft, form)


def _outcome(text: str) -> Outcome:
    """Such as `label:y`, or `number:y,rtol=0.05`. What it allows is checked with the manifest."""
    kind, _, rest = text.partition(":")
    output, *options = rest.split(",")
    declared: dict[str, Any] = {}
    for option in options:
        key, _, number = option.partition("=")
        if key not in Outcome.__slots__[2:]:
            raise click.BadParameter(f"{key!r} is no option of an outcome", param_hint="--outcome")
        try:
            declared[key] = float(number)
        except ValueError:
            raise click.BadParameter(f"{number!r} is no number", param_hint="--outcome") from None
    return Outcome(kind, output, **declared)


def _said(model: str, parents: tuple[Any, ...], rest: dict[str, Any]) -> Said:
    from hanse.cli.manifest_builder import Said
    from hanse.core.catalog.manifest import DataSet
    from hanse.core.ids import Digest, segment, version

    data = [each.partition("=") for each in rest["training_data"]]
    return Said(
        model=segment(model, "model"),
        version=version(rest["version"]),
        golden=rest["golden"],
        rtol=rest["rtol"],
        atol=rest["atol"],
        outcome=_outcome(rest["outcome"]),
        parents=parents,
        training_data=tuple(DataSet(n, Digest.parse(d) if d else None) for n, _, d in data),
        hyperparameters=rest["hyperparameter"],
        metrics=rest["metric"],
        frameworks=rest["framework"],
        requires=rest["require"],
        labels=rest["label"],
        licence=rest["licence"],
        code=rest["code"],
        residency=rest["residency"] or ("*",),
    )


def _parents(home: Path, model: str, wanted: tuple[str, ...], relation: str) -> tuple[Any, ...]:
    from hanse.core.catalog.manifest import Parent
    from hanse.core.ids import Digest

    def digest(name: str) -> str:
        if name.startswith("sha256:"):
            return name
        return str(client.call(home, "release.show", model=model, version=name)["release"])

    return tuple(Parent(Digest.parse(digest(name)), relation) for name in wanted)


def _hints(built: Built, counter: int) -> None:
    if built.manifest.golden is None:
        note("hint: with --golden every node checks the model before it takes traffic")
    if counter > 1 and not built.manifest.parents:
        note("hint: without --parent a region that leaves this release has nothing to go back to")


def _upload(home: Path, built: Built) -> None:
    for file in built.manifest.files:
        with click.progressbar(
            length=file.size, label=file.name, file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as bar:
            sent = client.put_blob(
                home, built.sources[file.name], str(file.digest), file.size, bar.update
            )
        note(f"{file.name}: {file.size} bytes {'sent' if sent else 'are there already'}")


def _hidden(built: Built, fields: tuple[str, ...]) -> tuple[Built, dict[str, Any]]:
    """The release with these values committed to, and what opens the commitments."""
    import secrets
    from dataclasses import replace

    from hanse.core.catalog.manifest import parse_manifest
    from hanse.core.catalog.private import SALT_BYTES, hide

    manifest, hidden = hide(built.manifest, fields, lambda: secrets.token_bytes(SALT_BYTES))
    openings = {f: {"salt": salt.hex(), "value": value} for f, (salt, value) in hidden.items()}
    return replace(built, manifest=parse_manifest(manifest.encode())), openings


def _show(built: Built, form: str) -> None:
    manifest = built.manifest
    rows = [(f.name, str(f.size), str(f.digest)) for f in manifest.files]
    head = [
        f"{manifest.model}@{manifest.version}",
        *(f"in  {t.name} {t.datatype} {list(t.shape)}" for t in manifest.inputs),
        *(f"out {t.name} {t.datatype} {list(t.shape)}" for t in manifest.outputs),
        *(f"{v.id} needs {k} {r}" for v in manifest.variants for k, r in v.requires.items()),
    ]
    table = Table(("FILE", "BYTES", "DIGEST"), rows, head=head)
    emit(form, "Manifest", manifest.to_mapping(), table, [f.name for f in manifest.files])
