"""`metaopt train`: meta-train a learner from a config."""

from pathlib import Path

import click

from metaopt import api
from metaopt.cli.main import DONE, QUARANTINED, STOPPED
from metaopt.cli.options import cluster_options, machine_options, speech_options
from metaopt.cli.output import ProgressDisplay

__all__ = ["command"]


@click.command("train")
@click.argument("config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--seed", type=int, metavar="S", help="Replaces the config's seed.")
@click.option("--run-dir", type=click.Path(path_type=Path), metavar="DIR", help="Default: runs/NAME-SEED-DATE-TIME.")
@click.option("--resume", is_flag=True, help="Continue from the last commit in --run-dir, or start if there is none.")
@cluster_options
@machine_options
@speech_options
def command(
    config: str,
    overrides: tuple[str, ...],
    seed: int | None,
    run_dir: Path | None,
    resume: bool,
    workers: int,
    address: str | None,
    device: str,
    quiet: bool,
) -> int:
    """Meta-train. CONFIG is the path of a YAML file or a bundled name; KEY=VALUE replaces one of its values (outer.steps=50)."""

    def announce(line: str) -> None:
        click.echo(f"expected: {line}", err=True)

    with ProgressDisplay(quiet) as progress:
        run = api.train(config, overrides, seed, run_dir, workers, address, device, resume, progress, None if quiet else announce)
    if run.stopped:
        click.echo(f"preempted: continue with --resume --run-dir {run.path}", err=True)
        return STOPPED
    if run.quarantined:
        click.echo(f"{run.quarantined} work items were quarantined, see {run.path / 'timing.jsonl'}", err=True)
    for sentence in () if quiet else run.sentences:
        click.echo(sentence, err=True)
    click.echo(str(run.artifact))
    return QUARANTINED if run.quarantined else DONE
