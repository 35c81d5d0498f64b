"""What people sign before a daemon takes it: alone on the spot, or several of them by file.

    hanse release kill ocr@4.0.0 --reason ... --draft kill.json     nobody has signed yet
    hanse statement sign kill.json --key ada.key                    each on a machine of their own
    hanse statement submit kill.json                                to a daemon

The file carries what the daemon will be asked, and signatures. What they stand for is worked
out from the request each time, so nobody is shown one thing and signs another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from hanse.cli import client, options
from hanse.cli.errors import next_step
from hanse.cli.output import emit_change, note, safe
from hanse.core import dsse, limits
from hanse.core.catalog.manifest import parse_manifest
from hanse.core.errors import Conflict, InvalidSpec
from hanse.core.ids import Digest, segment
from hanse.core.reading import Reader, parse_json
from hanse.core.rollout.spec import parse_spec
from hanse.core.trust import statements
from hanse.core.trust.mandate import Mandate

KINDS = {
    "release.publish": "Published",
    "release.kill": "Killed",
    "release.floor": "FloorRaised",
    "release.retire": "Retired",
    "heal.mandate": "Mandated",
    "rollout.start": "RolloutStarted",
    "rollout.approve": "RolloutApproved",
    "rollout.control": "RolloutControlled",
    "unfreeze": "Lifted",
}
FILE_BYTES_MAX = 4 * limits.EVENT_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Statement:
    """`verb` and `args` are what the daemon is asked; `envelope` is DSSE, once somebody signed."""

    verb: str
    args: Mapping[str, Any]
    envelope: bytes = b""

    def signed(self, key: Any) -> Statement:
        mine = dsse.sign_envelope(*self._said(), [key])
        return replace(self, envelope=dsse.join([e for e in (self.envelope, mine) if e]))

    def joined(self, other: Statement) -> Statement:
        if (self.verb, self.args) != (other.verb, other.args):
            raise Conflict("these are copies of two statements", fix="sign copies of one draft")
        envelopes = [each.envelope for each in (self, other) if each.envelope]
        return replace(self, envelope=dsse.join(envelopes) if envelopes else b"")

    def signers(self) -> tuple[str, ...]:
        if not self.envelope:
            return ()
        found = dsse.parse_envelope(self.envelope, limits.EVENT_BYTES_MAX)
        return tuple(keyid for keyid, _ in found.signatures)

    def submit(self, home: Path) -> Any:
        return client.call(home, self.verb, **self.args, envelope=self.envelope.decode())

    def encode(self) -> bytes:
        document = {
            "schema": 1,
            "verb": self.verb,
            "args": self.args,
            "envelope": self.envelope.decode(),
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    def words(self) -> list[str]:
        """What a signature on this says, for whoever is about to give one."""
        args = self.args
        match self.verb:
            case "release.publish":
                raw = str(args["manifest"]).encode()
                made = parse_manifest(raw)
                files = [f"  {f.name} {f.size} bytes {f.digest}" for f in made.files]
                title = f"publish {made.model}@{made.version}, release {args['counter']}"
                return [f"{title} of the model: {Digest.of(raw)}", *files]
            case "release.kill":
                return [f"kill {args['release']} of {args['model']}, for ever"]
            case "release.floor":
                return [f"no release of {args['model']} below counter {args['counter']}, for ever"]
            case "release.retire":
                return [f"call {args['release']} of {args['model']} {args['phase']}, for ever"]
            case "heal.mandate":
                title = f"a daemon may roll out what answers its retraining of {args['model']}"
                plan = json.dumps(json.loads(args["plan"]), indent=1).splitlines()
                return [f"{title}, {args['uses']} times, by this plan:", *(f"  {p}" for p in plan)]
            case "rollout.start":
                plan = json.dumps(json.loads(args["spec"]), indent=1).splitlines()
                return ["start this rollout:", *(f"  {line}" for line in plan)]
            case "rollout.approve":
                what = f"step {args['step'] + 1} of stage {args['stage']} of {args['rollout']}"
                return [f"approve {what}, model {args['model']}, plan {args['spec']}"]
            case "rollout.control":
                where = args["region"] or "every region"
                return [f"{args['action']} {args['rollout']} of {args['model']} in {where}"]
            case _:
                return [f"lift hold {args['hold']} on {args['model']}"]

    def _said(self) -> tuple[str, bytes]:
        """What is signed: type and payload, from what the daemon will be asked."""
        args, control = self.args, statements.control_statement
        match self.verb:
            case "release.publish":
                raw = str(args["manifest"]).encode()
                made = parse_manifest(raw)
                name = f"{made.model}@{made.version}"
                payload = statements.release_statement(name, Digest.of(raw), args["counter"])
                return statements.RELEASE_TYPE, payload
            case "release.kill":
                payload = control("kill", args["model"], release=args["release"])
            case "release.floor":
                payload = control("floor", args["model"], counter=args["counter"])
            case "release.retire":
                scope = {"release": args["release"], "phase": args["phase"]}
                payload = control("retire", args["model"], **scope)
            case "heal.mandate":
                plan = Digest.of(str(args["plan"]).encode())
                payload = Mandate(segment(args["model"], "model"), plan, args["uses"]).encode()
            case "rollout.start":
                raw = str(args["spec"]).encode()
                payload = statements.rollout_statement(parse_spec(json.loads(raw)).model, raw)
            case "rollout.approve":
                named = (args["model"], args["spec"], args["stage"], args["step"])
                payload = statements.approval_statement(*named)
            case "rollout.control":
                where = {"rollout": args["rollout"], "region": args["region"]}
                payload = control(args["action"], args["model"], **where)
            case _:
                payload = control("lift", args["model"], hold=args["hold"])
        return statements.CONTROL_TYPE, payload


def ask(
    home: Path, verb: str, args: Mapping[str, Any], key: Path | None, draft: Path | None, form: str
) -> None:
    """Sign with the key at hand and tell the daemon; or leave a draft for several to sign."""
    statement = Statement(verb, args)
    if draft is None:
        signed = statement.signed(options.signing_key(home, key))
        emit_change(form, KINDS[verb], signed.submit(home))
        return
    from hanse.daemon.private_files import write_new

    write_new(draft, statement.encode())
    note(f"{draft} is not signed yet; each signer: hanse statement sign {draft} --key KEY")
    note(f"then: hanse statement submit {draft}")


@next_step("name a draft as --draft FILE has written it, or draft it anew")
def read(path: Path) -> Statement:
    """Raises `InvalidSpec` for what is no statement."""
    with path.open("rb") as file:
        raw = file.read(FILE_BYTES_MAX + 1)
    with Reader(parse_json(raw, "statement", bytes_max=FILE_BYTES_MAX), "statement") as reader:
        reader.integer("schema", low=1, high=1)
        verb, args = reader.raw("verb"), reader.raw("args")
        envelope = reader.raw("envelope")
    if verb not in KINDS or not isinstance(args, dict) or not isinstance(envelope, str):
        raise InvalidSpec(f"{path} is no statement")
    found = Statement(verb, args, envelope.encode())
    try:
        kind, payload = found._said()
        found.words()
        signed = dsse.parse_envelope(found.envelope, limits.EVENT_BYTES_MAX) if envelope else None
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidSpec(f"{path} lacks something: {error}") from None
    if signed is not None and (signed.payload_type, signed.payload) != (kind, payload):
        raise Conflict(f"the signatures in {path} are on something else")
    return found


FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def statement() -> None:
    """Sign together what a role needs several people for."""


@statement.command()
@click.argument("file", type=FILE)
def show(file: Path) -> None:
    """Say what a draft says and who has signed it."""
    _show(read(file))


@statement.command()
@click.argument("file", type=FILE)
@options.yes
@options.key
@options.home
def sign(file: Path, yes: bool, key: Path | None, home: Path) -> None:
    """Add your signature to a draft, in its file."""
    from hanse.daemon.private_files import replace_private

    found = read(file)
    _show(found)
    options.confirm(yes, "yes", "this is what you sign")
    whole = found.signed(options.signing_key(home, key))
    replace_private(file, whole.encode())
    note(f"{len(whole.signers())} signed it; when enough have: hanse statement submit {file}")


@statement.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@options.home
@options.output
def submit(files: Sequence[Path], home: Path, form: str) -> None:
    """Hand a signed draft to the daemon. Copies that were signed apart are put together."""
    whole = read(files[0])
    for path in files[1:]:
        whole = whole.joined(read(path))
    emit_change(form, KINDS[whole.verb], whole.submit(home))


def _show(found: Statement) -> None:
    for line in found.words():
        click.echo(safe(line))
    if found.args.get("reason"):
        click.echo(safe(f"reason given, not signed: {found.args['reason']}"))
    click.echo(safe(f"signed by: {', '.join(found.signers()) or 'nobody yet'}"))
