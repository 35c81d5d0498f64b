"""The command `hanse`: a table of nouns, each imported only when it is asked for.

Help is read from the table, so that `hanse --help` costs no more than click itself.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence

import click

from hanse.core.errors import HanseError

_NOUNS = {
    "status": ("status", "What is broken, since when, and what to go back to. Worst first."),
    "rollback": ("rollback", "Take this region back to a release that was good."),
    "freeze": ("freeze", "Stop forward moves of a model in this region."),
    "unfreeze": ("freeze", "Lift one of this region's holds."),
    "why": ("why", "Say why a release stands where it stands."),
    "release": ("release", "Publish releases, look at them, verify them."),
    "statement": ("statement", "Sign together what a role needs several people for."),
    "rollout": ("rollout", "Start, watch and steer rollouts."),
    "heal": ("heal", "Let a region retrain what became worse, and say by which plan."),
    "lineage": ("lineage", "What descends from what, and where it runs."),
    "audit": ("audit", "Export the logs, verify them offline, compare what different places show."),
    "bundle": ("bundle", "Carry logs, trust and model files to a daemon that has no network."),
    "trust": ("trust", "Say who belongs and who may sign what, with keys that stay offline."),
    "daemon": ("daemon", "Found a federation, join one, run a region's daemon."),
    "agent": ("agent", "Enrol an edge node and run it."),
    "gc": ("gc", "Remove the model files that nothing in this region reaches."),
    "sim": ("sim", "Play a whole federation on one seed and print its history."),
    "explain": ("explain", "Explain an error code."),
}


class LazyGroup(click.Group):
    """Knows its subcommands by name; `lazy` maps each to (module of hanse.cli, help)."""

    def __init__(
        self, *args: object, lazy: Mapping[str, tuple[str, str]] | None = None, **kwargs: object
    ) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
        self._lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return None
        module = importlib.import_module(f"hanse.cli.{self._lazy[cmd_name][0]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._lazy.items()])


@click.group(
    cls=LazyGroup,
    lazy=_NOUNS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="hanse")
def hanse() -> None:
    """A federated model registry for edge AI.

    Which version broke, where, and how fast can we roll it back?
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code, see `errors`."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = hanse.main(args=args, prog_name="hanse", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("stopped; nothing more was done", err=True)
        return 1
    except HanseError as error:
        from hanse.cli.errors import report

        return report(error)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hanse"):
            raise  # a defect of ours, not an extra that was left out
        from hanse.cli.errors import PackageMissing, report

        extra = "edge" if args[:1] == ["agent"] else "daemon"
        needed = PackageMissing(f"this needs {error.name}", fix=f"install hanse[{extra}]")
        return report(needed)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; that is no error of ours
        return 1
    except OSError as error:
        if error.filename is None:
            raise  # not about a path that somebody named
        from hanse.cli.errors import report
        from hanse.core.errors import Conflict

        said = f"{error.filename2 or error.filename}: {error.strerror}"
        return report(Conflict(said, fix="check the path, and what this user may do there"))
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
