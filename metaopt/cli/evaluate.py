"""`metaopt evaluate`: the meta-generalization report of one or more learners."""

from pathlib import Path

import click

from metaopt import api
from metaopt.cli.main import DONE, QUARANTINED
from metaopt.cli.options import cluster_options, json_option, machine_options, speech_options
from metaopt.cli.output import ProgressDisplay

__all__ = ["command"]


@click.command("evaluate")
@click.argument("learners", nargs=-1, required=True, metavar="LEARNER...")
@click.option("--suite", default="quick", show_default=True, metavar="NAME", help="A bundled suite, or the path of a YAML file.")
@click.option("--baselines", metavar="NAMES", help="Separated by commas. Default: the suite's own.")
@click.option("--seeds", type=click.IntRange(min=1), metavar="N", help="Inner runs a task. Default: the suite's own.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the report. Default: reports/SUITE-DATE-TIME.")
@cluster_options
@machine_options
@json_option
@speech_options
def command(
    learners: tuple[str, ...],
    suite: str,
    baselines: str | None,
    seeds: int | None,
    out: Path | None,
    workers: int,
    address: str | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> int:
    """Evaluate. LEARNER is an artifact (path or name), a baseline's name, or a preset without weights.

    NAME=PATH,PATH,... makes one line of several meta-trainings of one method.
    """
    names = None if baselines is None else [name.strip() for name in baselines.split(",") if name.strip()]
    with ProgressDisplay(quiet) as progress:
        report = api.evaluate(learners, suite, names, seeds, out, workers, address, device, progress)
    click.echo(report.to_json() if as_json else report.text())
    if not as_json:
        click.echo(f"report: {report.path / 'report.html'}")
    return QUARANTINED if report.quarantined else DONE
