"""Options that several verbs share, and their common meaning."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["cluster_options", "json_option", "machine_options", "speech_options"]

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Add `--json`: the same table for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")(command)


def speech_options(command: F) -> F:
    """Add `-q`, and `-v`, which `metaopt.cli.main` reads."""
    command = click.option("-v", "--verbose", is_flag=True, expose_value=False, help="Show where an error came from.")(command)
    return click.option("-q", "--quiet", is_flag=True, help="Only the result, without progress or headers.")(command)


def cluster_options(command: F) -> F:
    """Add `--workers` and `--address`."""
    command = click.option("--address", metavar="ADDR", help="A running Ray cluster, host:port or auto.")(command)
    return click.option(
        "--workers", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="0: in this process; N: Ray workers."
    )(command)


def machine_options(command: F) -> F:
    """Add `--device`."""
    return click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda, cuda:i or mps.")(command)
