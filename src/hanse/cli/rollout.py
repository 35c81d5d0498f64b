"""`hanse rollout`: start, watch and steer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanse.cli import client, options
from hanse.cli.errors import ERROR, INCONCLUSIVE, OK, UNHEALTHY
from hanse.cli.options import Signing
from hanse.cli.output import Table, age, emit, emit_change, nodes
from hanse.core.errors import NotFound, Rejected

if TYPE_CHECKING:
    from hanse.cli.rollout_shapes import RolloutPlanned
    from hanse.cli.shapes import Approvable, Linted, RolloutPrepared, RolloutStatus, RolloutStatuses
    from hanse.core.rollout.plan import RolloutSpec

BAD = ("rolled-back", "held", "aborted")
MOVING = ("running", "paused", "held")
GONE = ("rollingBack", "rolledBack", "quarantined")


@click.group()
def rollout() -> None:
    """Start, watch and steer rollouts."""


@rollout.command()
@click.argument("name", metavar="MODEL@VERSION", callback=options.exact_release)
@click.option("--plan", type=click.Path(path_type=Path), help="A .yaml, .toml or .json file.")
@click.option("--regions", help="Without --plan: these, the first one alone before the others.")
@click.option("--name", "called", help="What to call the rollout. Default: r-GENERATION.")
@click.option("--supersede", is_flag=True, help="Cancel the rollout that is under way.")
@click.option("--dry-run", is_flag=True, help="Print the complete plan; start nothing.")
@options.signed
def start(
    name: dict[str, str],
    plan: Path | None,
    regions: str | None,
    called: str | None,
    supersede: bool,
    dry_run: bool,
    signing: Signing,
) -> None:
    """Start a rollout of a release, by a plan that you sign.

    Without a plan: a tenth, a half, all of the traffic, errors proven not to have doubled.
    """
    from hanse.core.rollout.spec import canonical, to_mapping

    spec = _complete(signing.home, name, plan, regions, called, supersede)
    if dry_run:
        _show_plan(to_mapping(spec), signing.form)
        return
    signing.ask("rollout.start", {"spec": canonical(spec).decode()})


@rollout.command("plan")
@click.argument("what", metavar="FILE | MODEL@VERSION")
@click.option("--plan", type=click.Path(path_type=Path), help="A .yaml, .toml or .json file.")
@click.option("--regions", help="Without a plan: these, the first one alone before the others.")
@click.option("--supersede", is_flag=True, help="As if the rollout under way were cancelled.")
@options.home
@options.output
def plan_(
    what: str, plan: Path | None, regions: str | None, supersede: bool, home: Path, form: str
) -> int:
    """Show what a rollout would do: what runs where, what is fetched, who cannot run it.

    Nothing is signed or started. A FILE names model and release itself. Exits with 3 if starting
    it now would be refused.
    """
    from hanse.cli import plan_file
    from hanse.cli.plan_shown import table
    from hanse.core.rollout.spec import canonical

    if "@" in what:
        ctx = click.get_current_context()
        named = options.exact_release(ctx, ctx.command.params[0], what)
    else:
        plan = plan or Path(what)
        named = plan_file.named(plan_file.read(plan), plan)
    spec = _complete(home, named, plan, regions, None, supersede)
    found: RolloutPlanned = client.call(home, "rollout.plan", spec=canonical(spec).decode())
    emit(form, "RolloutPlan", dict(found), table(found), [found["rollout"]])
    return UNHEALTHY if found["objections"] else OK


def _complete(
    home: Path,
    name: dict[str, str],
    plan: Path | None,
    regions: str | None,
    called: str | None,
    supersede: bool,
) -> RolloutSpec:
    """The whole plan, with what only the daemon knows."""
    from hanse.cli import plan_file
    from hanse.core.rollout.spec import parse_spec

    def prepare(covered: list[str]) -> RolloutPrepared:
        asked = {**name, "regions": ",".join(covered)} if covered else name
        found: RolloutPrepared = client.call(home, "rollout.prepare", **asked)
        return found

    if plan is not None:
        document = plan_file.read(plan)
        prepared = prepare(plan_file.covered(document, prepare([])["labels"]))
    else:
        chosen = regions.split(",") if regions else []
        prepared = prepare(chosen)
        first = prepared["predecessor"] is None
        document = plan_file.default_plan(chosen or prepared["regions"], first_release=first)
    whole = plan_file.complete(document, name["model"], prepared, called)
    if supersede and prepared["under_way"]:
        spec = whole["spec"]
        spec["supersedes"] = sorted({*spec.get("supersedes", ()), prepared["under_way"]})
    return plan_file.parsed(plan, whole) if plan else parse_spec(whole)


@rollout.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.output
def lint(files: tuple[Path, ...], form: str) -> int:
    """Check plans without a daemon; a complaint names file, line and what to write there.

    Exits with 1 if any of them would be refused.
    """
    from hanse.cli import plan_file

    found = [_linted(plan_file.lint, path) for path in files]
    rows = [(each["file"], each["problem"] or f"ok, {each['stages']} stages") for each in found]
    emit(form, "PlanList", {"plans": found}, Table(("PLAN", "FOUND"), rows), [])
    return ERROR if any(each["problem"] for each in found) else OK


def _linted(check: Callable[[Path], RolloutSpec], path: Path) -> Linted:
    try:
        plan = check(path)
    except Rejected as error:
        return {"file": str(path), "stages": 0, "problem": str(error)}
    return {"file": str(path), "stages": len(plan.stages), "problem": None}


@rollout.command()
def schema() -> None:
    """Print the JSON schema of plans, for editors that check and complete while one writes."""
    import json

    from hanse.cli.plan_schema import schema as made

    print(json.dumps(made(), indent=2))


@rollout.command()
@click.argument("model", required=False)
@click.argument("name", required=False)
@click.option("-w", "--watch", is_flag=True, help="Wait until it is healthy or has failed.")
@options.timeout
@options.home
@options.output
def status(
    model: str | None, name: str | None, watch: bool, timeout: float, home: Path, form: str
) -> int:
    """Show rollouts: where each region stands, and on what numbers.

    Exits with 3 if one was held, aborted or rolled back; with --watch 4 if time runs out.
    """
    asked = {k: v for k, v in (("model", model), ("rollout", name)) if v}

    def ask() -> RolloutStatuses:
        found: RolloutStatuses = client.call(home, "rollout.status", **asked)
        return found

    found = _watched(ask, timeout) if watch else ask()
    rows = [row for each in found["rollouts"] for row in _rows(each)]
    table = Table(
        ("MODEL", "ROLLOUT", "REGION", "STAGE", "STATE", "STEP", "NODES", "VERDICT", "AGE"),
        rows,
        head=[_sentence(each) for each in found["rollouts"]],
        foot=[line for each in found["rollouts"] for line in _reasons(each)],
    )
    emit(form, "RolloutList", dict(found), table, [r["rollout"] for r in found["rollouts"]])
    states = {each["state"] for each in found["rollouts"]}
    return UNHEALTHY if states & set(BAD) else INCONCLUSIVE if watch and "paused" in states else OK


@rollout.command()
@click.argument("name", metavar="ROLLOUT")
@click.option("--model", help="If rollouts of several models have that name.")
@click.option("--region", help="Only there. Default: in every region.")
@options.home
@options.output
def explain(name: str, model: str | None, region: str | None, home: Path, form: str) -> int:
    """Say why a rollout stands where it stands: what is missing, on what evidence, what is next.

    Exits with 3 if a region shows harm or has gone back.
    """
    from hanse.cli.plan_shown import explained
    from hanse.cli.rollout_shapes import RolloutExplained

    asked = {"rollout": name, "model": model, "region": region}
    found: RolloutExplained = client.call(
        home, "rollout.explain", **{key: value for key, value in asked.items() if value}
    )
    emit(form, "RolloutExplained", dict(found), explained(found), [found["rollout"]])
    gone = any(r["verdict"] == "harm" or r["state"] in GONE for r in found["regions"])
    return UNHEALTHY if gone else OK


@rollout.command()
@click.argument("model")
@click.argument("name", required=False)
@click.option("--region", default="", help="Only there. Default: everywhere.")
@click.option("--reason", default="", help="Why, for the record.")
@options.home
@options.output
def pause(model: str, name: str | None, region: str, reason: str, home: Path, form: str) -> None:
    """Stop a rollout where it stands; harm still rolls it back."""
    called = name or _current(home, model)
    _control(home, form, _control_args("pause", model, called, region, reason))


@rollout.command()
@click.argument("model")
@click.argument("name", required=False)
@click.option("--region", default="", help="Only there. Default: everywhere.")
@click.option("--reason", default="", help="Why, for the record.")
@options.signed
def resume(
    model: str,
    name: str | None,
    region: str,
    reason: str,
    signing: Signing,
) -> None:
    """Let a paused or held rollout go on, signed with your key."""
    called = name or _current(signing.home, model)
    signing.ask("rollout.control", _control_args("resume", model, called, region, reason))


@rollout.command()
@click.argument("model")
@click.argument("name", required=False)
@click.option("--stage", default="", help="Of that stage. Default: the first that waits.")
@options.yes
@options.signed
def approve(
    model: str,
    name: str | None,
    stage: str,
    yes: bool,
    signing: Signing,
) -> None:
    """Let a rollout pass its next approve step, signed with your key.

    Where a plan asks for several people, each signs a draft: --draft FILE.
    """
    asked = {"model": model, "stage": stage} | ({"rollout": name} if name else {})
    found: Approvable = client.call(signing.home, "rollout.awaiting", **asked)
    where = f"stage {found['stage']}, step {found['step'] + 1} of {found['rollout']}"
    options.confirm(yes, model, f"will let {where} go on; {found['count']} {found['role']} sign")
    signing.ask("rollout.approve", found)


@rollout.command()
@click.argument("model")
@click.argument("name", required=False)
@click.option("--region", default="", help="Only there. Default: everywhere.")
@options.reason
@options.yes
@options.signed
def abort(
    model: str,
    name: str | None,
    region: str,
    reason: str | None,
    yes: bool,
    signing: Signing,
) -> None:
    """End a rollout for good; regions where it is under way go back.

    In the daemon's own --region its word is enough; elsewhere it is signed with your key.
    """
    said = options.ask_reason(reason)
    called = name or _current(signing.home, model)
    options.confirm(yes, model, f"will end rollout {called} in {region or 'every region'}")
    args = _control_args("abort", model, called, region, said)
    if region and signing.key is None and signing.draft is None:
        return _control(signing.home, signing.form, args)
    return signing.ask("rollout.control", args)


def _control(home: Path, form: str, args: dict[str, str]) -> None:
    emit_change(form, "RolloutControlled", client.call(home, "rollout.control", **args))


def _control_args(action: str, model: str, name: str, region: str, reason: str) -> dict[str, str]:
    said = {"action": action, "model": model, "rollout": name}
    return {**said, "region": region, "reason": reason}


def _current(home: Path, model: str) -> str:
    found: RolloutStatuses = client.call(home, "rollout.status", model=model)
    if not found["rollouts"]:
        raise NotFound(f"{model} has no rollout", fix="start one with hanse rollout start")
    return found["rollouts"][0]["rollout"]


def _watched(ask: Any, timeout_s: float) -> RolloutStatuses:
    from hanse.cli.waiting import until

    def settled(found: RolloutStatuses) -> bool:
        return not any(each["state"] in MOVING for each in found["rollouts"])

    def describe(found: RolloutStatuses) -> str:
        return "; ".join(_sentence(each) for each in found["rollouts"])

    done: RolloutStatuses = until(ask, done=settled, describe=describe, timeout_s=timeout_s)
    return done


def _sentence(found: RolloutStatus) -> str:
    parts = ", ".join(
        f"{r['region']} {r['state']}" + (f" {r['weight']} %" if r["weight"] else "")
        for r in found["regions"]
    )
    return f"{found['model']} {found['release']['version']} {found['state']}: {parts}"


def _rows(found: RolloutStatus) -> list[tuple[str, ...]]:
    return [
        (
            found["model"],
            found["rollout"],
            each["region"],
            each["stage"],
            each["state"],
            each["step"] or "-",
            nodes(each["nodes"]),
            each["verdict"] or "-",
            age(each["age_s"]),
        )
        for each in found["regions"]
    ]


def _reasons(found: RolloutStatus) -> list[str]:
    lines = []
    for each in found["regions"]:
        if each["reason"]:
            lines.append(f"{each['region']}: {each['reason']}")
        lines += [f"  {metric['text']}" for metric in each["metrics"]]
    return lines


def _show_plan(plan: dict[str, object], form: str) -> None:
    if form in ("table", "name"):
        form = "yaml"
    emit(form, "Rollout", plan, Table((), []))
