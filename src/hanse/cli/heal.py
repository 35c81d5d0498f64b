"""`hanse heal`: what a region does by itself when a release becomes worse, and how far it may go.

hanse heal mandate ocr-rec --plan careful.yaml --uses 3 --key release-manager.key
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hanse.cli import client, options
from hanse.cli.errors import OK, UNHEALTHY
from hanse.cli.options import Signing
from hanse.cli.output import Table, at, emit, emit_change

if TYPE_CHECKING:
    from hanse.cli.heal_shapes import Healing, HealModel, HealStatus


@click.group()
def heal() -> None:
    """Let a region retrain what became worse, and say by which plan it may roll that out."""


@heal.command()
@click.argument("model")
@click.option(
    "--plan",
    type=click.Path(path_type=Path),
    required=True,
    help="A .yaml, .toml or .json file, without release, predecessor, name and generation.",
)
@click.option(
    "--uses",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="So many rollouts, until people sign a plan of this model again.",
)
@options.signed
def mandate(model: str, plan: Path, uses: int, signing: Signing) -> None:
    """Sign by which plan this daemon may roll out what answers its retraining.

    The daemon still makes no release: a publisher signs which retraining a release answers. An
    approve step in the plan keeps a person in the loop.
    """
    from hanse.cli import plan_file
    from hanse.core.rollout.spec import to_mapping
    from hanse.core.trust.mandate import template_of

    template = template_of(to_mapping(plan_file.template(plan, model)))
    signing.ask("heal.mandate", {"model": model, "plan": template.decode(), "uses": uses})


@heal.command()
@click.argument("model")
@options.home
@options.output
def revoke(model: str, home: Path, form: str) -> None:
    """Take the mandate away from this daemon: from now on a person starts each rollout."""
    emit_change(form, "MandateRevoked", client.call(home, "heal.revoke", model=model))


@heal.command()
@click.argument("model", required=False)
@options.home
@options.output
def status(model: str | None, home: Path, form: str) -> int:
    """What was asked for, what came of it, and what waits for whom.

    Exits with 3 while something waits for a person.
    """
    found: HealStatus = client.call(home, "heal.status", **({"model": model} if model else {}))
    models = [m for m in found["models"] if model or m["declared"] or m["healings"]]
    table = Table(
        ("MODEL", "REGION", "AT", "WORSE", "CAUSE", "OUTCOME", "ANSWER", "ROLLOUT"),
        [_row(m, each) for m in models for each in m["healings"]],
        head=[_sentence(m) for m in models],
        foot=[
            f"{m['model']} {w['release']['version']}: {w['why']}"
            + (" (waits for a person)" if w["person"] else "")
            for m in models
            for w in m["waits"]
            if w["release"]
        ],
    )
    emit(form, "HealingList", {"models": models}, table, [m["model"] for m in models])
    return UNHEALTHY if any(w["person"] for m in models for w in m["waits"]) else OK


def _sentence(model: HealModel) -> str:
    if not model["declared"]:
        return f"{model['model']}: nothing retrains it here"
    if not model["mandate"]:
        return f"{model['model']}: a person starts the rollout of what comes back"
    return f"{model['model']}: under a mandate, {model['uses_left']} uses left"


def _row(model: HealModel, healing: Healing) -> tuple[str, ...]:
    return (
        model["model"],
        healing["region"],
        at(healing["at_ms"]),
        healing["release"]["version"] if healing["release"] else "-",
        healing["cause"],
        healing["outcome"] or "under way",
        healing["child"]["version"] if healing["child"] else "-",
        healing["rollout"] or "-",
    )
