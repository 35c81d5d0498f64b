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
    from hanse.cli.release_file import Written

FILE = "A .yaml, .toml or .json file that says what options do, and the order of variants"


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--from", "file", type=click.Path(path_type=Path), help=f"{FILE}.")
@click.option("-n", "--model", help="The model's name, such as ocr-rec.")
@click.option("-v", "--version", help="The version, such as 4.0.0.")
@click.option("--parent", multiple=True, help="Version or digest this one comes from.")
@click.option(
    "--relation",
    type=click.Choice(RELATIONS),
    default="replaces",
    show_default=True,
    help="How it comes from its parents.",
)
@click.option("--golden", type=click.Path(path_type=Path), help="Inputs with expected outputs.")
@click.option("--rtol", type=float, help="For golden outputs.  [default: 0.001]")
@click.option("--atol", type=float, help="For golden outputs.  [default: 0.0001]")
@click.option(
    "--outcome",
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
@click.option("--licence", help="The model's licence.")
@click.option("--code", help="Where the training code is, such as a commit.")
@click.option(
    "--profile",
    type=click.Path(path_type=Path),
    help="Reference histograms, the base of drift: a file of profile: and a list.",
)
@click.option(
    "--private", multiple=True, help="Only commit to this value: training.data, metrics.NAME, …"
)
@click.option("--residency", multiple=True, help="Regions that may hold the files. Default: all.")
@click.option("--dry-run", is_flag=True, help="Print the manifest; send nothing.")
@options.signed
def publish(path: Path, dry_run: bool, signing: options.Signing, **rest: Any) -> None:
    """Publish a model file or folder as an immutable, signed release.

    Needs, signature and digests are read from the files. What only people know is said by options
    or written down in a file (--from). Nothing runs the release before a rollout says so.
    """
    from hanse.cli.manifest_builder import build
    from hanse.cli.release_file import read

    written = read(rest["file"])
    model = rest["model"] or written.model
    if not model or not (rest["version"] or written.version):
        raise click.UsageError("which model and version? say --model and --version, or --from")
    parents = _parents(signing.home, model, rest, written)
    private = rest["private"] or written.private
    built, openings = _hidden(build(path, _said(model, parents, rest, written)), private)
    if dry_run:
        _show(built, signing.form)
        return
    if signing.draft is None:
        options.signing_key(signing.home, signing.key)  # before anything is sent
    counter = client.call(signing.home, "release.prepare", model=model)["counter"]
    _hints(built, counter)
    _upload(signing.home, built)
    args = {"manifest": built.manifest.encode().decode(), "counter": counter}
    more = {"openings": openings} if openings else {}
    signing.ask("release.publish", args | more)


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


def _said(model: str, parents: tuple[Any, ...], rest: dict[str, Any], written: Written) -> Said:
    """Options first, then what stands in the file."""
    from hanse.cli.manifest_builder import Said
    from hanse.cli.release_file import read_profile
    from hanse.core.catalog.manifest import DataSet
    from hanse.core.ids import Digest, segment, version

    def first(*values: Any) -> Any:
        return next((value for value in values if value is not None), values[-1])

    data = [each.partition("=") for each in rest["training_data"]]
    return Said(
        model=segment(model, "model"),
        version=version(rest["version"] or written.version),
        golden=rest["golden"] or written.golden,
        rtol=first(rest["rtol"], written.rtol, 1e-3),
        atol=first(rest["atol"], written.atol, 1e-4),
        outcome=_outcome(rest["outcome"]) if rest["outcome"] else written.outcome or Outcome(),
        parents=parents,
        training_data=tuple(DataSet(n, Digest.parse(d) if d else None) for n, _, d in data)
        or written.training_data,
        hyperparameters={**written.hyperparameters, **rest["hyperparameter"]},
        metrics={**written.metrics, **rest["metric"]},
        frameworks={**written.frameworks, **rest["framework"]},
        requires=rest["require"],
        labels={**written.labels, **rest["label"]},
        licence=first(rest["licence"], written.licence),
        code=first(rest["code"], written.code),
        residency=rest["residency"] or written.residency or ("*",),
        variants=written.variants,
        written=rest["file"].absolute() if rest["file"] else None,
        profile=read_profile(rest["profile"]) if rest["profile"] else written.profile,
        inputs=written.inputs,
        outputs=written.outputs,
    )


def _parents(home: Path, model: str, rest: dict[str, Any], written: Written) -> tuple[Any, ...]:
    from hanse.core.catalog.manifest import Parent
    from hanse.core.ids import Digest

    def digest(name: str) -> str:
        if name.startswith("sha256:"):
            return name
        return str(client.call(home, "release.show", model=model, version=name)["release"])

    said = [(name, rest["relation"]) for name in rest["parent"]] or written.parents
    return tuple(Parent(Digest.parse(digest(name)), relation) for name, relation in said)


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
