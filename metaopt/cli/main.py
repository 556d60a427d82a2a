"""Entry point of the `metaopt` command: the group of verbs, one-line errors, exit statuses."""

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from metaopt.errors import CheckpointError, ConfigError, MetaoptError, UnsafeArtifactError
from metaopt.names import nearest
from metaopt.version import __version__

__all__ = ["BAD_INPUT", "DONE", "FAILED", "QUARANTINED", "STOPPED", "cli", "main"]

DONE, BAD_INPUT, QUARANTINED, FAILED, STOPPED = 0, 2, 3, 4, 75

_VERBS = {
    "train": "Meta-train a learner; ends with RUN_DIR/artifact.",
    "evaluate": "Measure learners on tasks that they have not met.",
    "list": "What there is, a line each.",
    "show": "A run's progress and plots, or an artifact's card.",
    "doctor": "Versions, devices, compilers, and what is missing.",
}


class _Verbs(click.Group):
    """Imports a verb when it is asked for, and turns every error into one line and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = import_module(f"metaopt.cli.{cmd_name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _VERBS:
            raise click.UsageError(f"command {args[0]!r} is unknown{nearest(args[0], _VERBS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        extra.pop("standalone_mode", None)
        arguments = list(sys.argv[1:] if args is None else args)
        verbose = any(word in ("-v", "--verbose") for word in arguments)
        try:
            status = super().main(arguments, prog_name or "metaopt", standalone_mode=False, **extra)
        except BaseException as error:
            if isinstance(error, SystemExit | GeneratorExit):
                raise
            if isinstance(error, click.exceptions.NoArgsIsHelpError):
                error.show()
                sys.exit(BAD_INPUT)
            if verbose and not isinstance(error, click.ClickException):
                traceback.print_exc()
            status, message = _verdict(error)
            click.echo(f"metaopt: {' '.join(message.split())}", err=True)
        sys.exit(status if isinstance(status, int) else DONE)


def _verdict(error: BaseException) -> tuple[int, str]:
    """Return the exit status and the line for an error."""
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):
        return STOPPED, "stopped by a signal"
    if isinstance(error, click.ClickException):
        return BAD_INPUT, error.format_message()
    if isinstance(error, ConfigError | UnsafeArtifactError | CheckpointError):
        return BAD_INPUT, str(error)
    if isinstance(error, MetaoptError):
        return FAILED, str(error)
    return FAILED, f"failed with {type(error).__name__}: {error} (-v shows where)"


@click.group("metaopt", cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="metaopt %(version)s")
def cli() -> None:
    """Meta-train learned optimizers, measure them on tasks that they have not met, use them in PyTorch."""


def main() -> NoReturn:
    """Run the `metaopt` command and exit with its status."""
    cli.main()
