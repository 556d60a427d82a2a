"""`metaopt show`: a run's progress and plots, or an artifact's card."""

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metaopt.cli.options import json_option, speech_options
from metaopt.cli.output import json_text, print_rows
from metaopt.errors import ConfigError

if TYPE_CHECKING:
    from metaopt.artifacts import Artifact

__all__ = ["command"]

_SHOWN_STEPS = 12
_SHOWN_ITEMS = 8  # of a longer list; --json has all
_BAR, _DECADE = 24, math.log(10.0)  # characters of the longest bar, less one; the least that a whole bar stands for
_SHOWN_COLUMNS = ("step", "loss", "loss_se", "grad_norm", "lr", "diverged", "skipped", "quarantined")  # 80 characters; --json has all
_POLICY_COLUMNS = ("step", "reward", "reward_se", "entropy", "kl", "explained_variance", "diverged", "stage", "quarantined")
_VALIDATION_COLUMNS = ("step", "kind", "loss", "loss_se", "change", "change_se", "best_step", "waiting")


@click.command("show")
@click.argument("path_or_name")
@json_option
@speech_options
def command(path_or_name: str, as_json: bool, quiet: bool) -> None:
    """Show a run directory's progress and plots, or the card of an artifact (path or name)."""
    path = Path(path_or_name)
    if os.path.isfile(path / "config.yaml"):  # unlike Path.is_file, no error for a name that is too long
        _show_run(path, as_json, quiet)
    elif os.path.isdir(path) and not (path / "card.json").exists():
        raise ConfigError(f"{path_or_name!r} is neither a run directory (config.yaml) nor an artifact (card.json)")
    else:
        _show_card(path_or_name, as_json, quiet)


def _show_run(path: Path, as_json: bool, quiet: bool) -> None:
    from metaopt.config import PolicyConfig, load_config

    config = load_config(path / "config.yaml")
    written = _read_rows(path / "metrics.jsonl")
    rows = [row for row in written if "validation" not in row]
    validations = [{"step": row["step"], **row["validation"]} for row in written if "validation" in row]
    commits = sorted(folder.name for folder in (path / "checkpoints").glob("step-*"))
    summary = {
        "run": str(path),
        "config": config.name,
        "seed": config.seed,
        "outer_steps": f"{len(rows)} of {config.outer.steps}",
        "last_commit": commits[-1] if commits else "none",
        "artifact": str(path / "artifact") if (path / "artifact").is_dir() else "none yet",
        "plots": [str(plot) for plot in sorted((path / "plots").glob("*.png"))],
    }
    if as_json:
        click.echo(json_text({**summary, "metrics": rows, "validations": validations}))
        return
    _print_pairs(summary)
    if rows and not quiet:
        _print_some(rows, _POLICY_COLUMNS if isinstance(config, PolicyConfig) else _SHOWN_COLUMNS)
    if validations and not quiet:
        _print_some(validations, _VALIDATION_COLUMNS)


def _print_some(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    last = len(rows) - 1
    chosen = sorted({round(i * last / (_SHOWN_STEPS - 1)) for i in range(_SHOWN_STEPS)})
    click.echo()
    print_rows([{key: rows[i].get(key, "") for key in columns} for i in chosen], as_json=False)


def _show_card(name: str, as_json: bool, quiet: bool) -> None:
    from metaopt.artifacts import load
    from metaopt.artifacts.schedule import is_schedule

    artifact = load(name)
    card = artifact.card
    rows = _schedule_rows(artifact) if is_schedule(artifact) else []
    if as_json:
        click.echo(json_text({**card, "schedule": rows} if rows else card))
        return
    _print_pairs({key: card[key] for key in ("name", "kind", "rule")} if quiet else card)
    if rows and not quiet:
        click.echo()
        lowest, highest = (math.log(pick(row["lr"] for row in rows)) for pick in (min, max))
        bars = [round(_BAR * (math.log(row["lr"]) - lowest) / max(highest - lowest, _DECADE)) for row in rows]
        print_rows([{**row, "log lr": "#" * (1 + bar)} for row, bar in zip(rows, bars, strict=True)], as_json=False)


def _schedule_rows(artifact: "Artifact") -> list[dict[str, float]]:
    """Return the values of a learned schedule where its numbers are: at its knots, or where its segments begin."""
    import torch

    from metaopt.artifacts.schedule import learned_schedule
    from metaopt.learners.hypergradients.schedule import hyperparameters_at

    learner, theta = learned_schedule(artifact)
    intervals = learner.values if learner.shape == "constant" else max(1, learner.values - 1)
    end = torch.tensor(float(intervals), dtype=torch.float64)
    exact = {name: value.double() for name, value in theta.items()}
    found = [hyperparameters_at(exact, learner.shape, torch.tensor(i), end) for i in range(learner.values)]
    return [{"of horizon": i / intervals, **{name: float(value) for name, value in row.items()}} for i, row in enumerate(found)]


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a run that may be writing right now."""
    from metaopt.outer.metrics import read_rows

    try:
        return read_rows(path) if path.is_file() else []
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} is damaged: {error}") from error


def _print_pairs(values: dict[str, Any]) -> None:
    """Print a nested mapping, one dotted key a line."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, child in value.items():
                walk(f"{prefix}.{key}" if prefix else key, child)
        else:
            flat[prefix] = value if isinstance(value, str) and value else _one_line(value)

    walk("", values)
    width = max(map(len, flat))
    for key, text in flat.items():
        click.echo(f"{key.ljust(width)}  {text}")


def _one_line(value: Any) -> str:
    """Return a value as JSON; of a long list its beginning, and how many there are."""
    if isinstance(value, list) and len(value) > 2 * _SHOWN_ITEMS:
        return f"{json.dumps(value[:_SHOWN_ITEMS])[:-1]}, ... {len(value)} in all]"
    return json.dumps(value)
