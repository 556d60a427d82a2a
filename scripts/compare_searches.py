"""Are the baselines' search spaces good enough? Compares them with grids of learning rates at equal cost, on `meta_valid` templates only.

python scripts/compare_searches.py [--baselines A,B] [--task FAMILY:TEMPLATE ...] [--horizon T]

Fifteen trials of the search, and fifteen rates with everything else at its default, are chosen from on three seeds and compared on three
others. Where the best rate lies says whether a range is too narrow: 0 and 1 are its ends.
"""

import argparse
import math
import sys

import numpy as np
import torch

from metaopt import baselines, tasks
from metaopt.baselines import CurveKey, Trial, run_job
from metaopt.errors import MetaoptError

TASKS = (
    "digits_mlp:96-relu-b64",
    "digits_mlp:40x40-tanh-b32",
    "mnist_conv:side8-width15-depth2-gelu-normal-batch_norm-stride2-max-batch20",
    "text_gru:gru-embedding12-hidden16-layers1-length8-batch28",
)
CHOOSE, SCORE = (1, 2, 3), (4, 5, 6)


def main(arguments: list[str] | None = None) -> int:
    """Print one line a baseline and task, and a summary; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [baselines.get(name) for name in baselines.names()]
    parser.add_argument("--baselines", default=",".join(one.name for one in known if one.stored and not one.full_batch))
    parser.add_argument("--task", action="append", metavar="FAMILY:TEMPLATE", help="of split meta_valid; may be given again")
    parser.add_argument("--horizon", type=int, default=150, help="inner steps; default: 150")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        places = [_task(place, given.horizon) for place in given.task or TASKS]
        chosen = [baselines.get(name.strip()) for name in given.baselines.split(",")]
    except MetaoptError as error:
        print(f"compare_searches: {error}", file=sys.stderr)
        return 2
    print(f"{'baseline':20} {'task':34} {'default':>8} {'search':>8} {'rates':>8}  rate of search, of rates (0 to 1)")
    for baseline in chosen:
        losses, (first, last) = [], (math.log(baseline.rates(15)[i]) for i in (0, -1))
        for spec in places:
            designs = baseline.trials(15), baseline.rate_trials()
            (default, search), (_, rates) = (_result(spec, baseline, design) for design in designs)
            at = [(math.log(trial.rate) - first) / (last - first) for _, trial in (search, rates)]
            name = f"{spec.family}:{spec.template}"[:34]
            print(f"{baseline.name:20} {name:34} {default:8.4f} {search[0]:8.4f} {rates[0]:8.4f}  {at[0]:.2f} {at[1]:.2f}", flush=True)
            losses.append((default, search[0], rates[0]))
        print(f"{baseline.name:20} {'mean':34} " + " ".join(f"{mean:8.4f}" for mean in np.mean(losses, axis=0)), flush=True)
    return 0


def _task(place: str, horizon: int) -> tasks.TaskSpec:
    family, _, template = place.partition(":")
    spec = tasks.get(family).sample(template, 0, (horizon, horizon))
    if spec.split != "meta_valid":
        raise MetaoptError(f"task {place!r} is in {spec.split}: search spaces may only look at meta_valid")
    return spec


def _result(spec: tasks.TaskSpec, baseline: baselines.Baseline, trials: tuple[Trial, ...]) -> tuple[float, tuple[float, Trial]]:
    """Return the first trial's final held-out loss on seeds for scores, and that of the best trial on the other seeds, with the trial."""
    key = CurveKey(spec, baseline, trials, CHOOSE + SCORE, keep="finals")
    curves, cap = run_job(key.job()), tasks.build(spec).program.cap
    finals = np.where(curves.diverged, cap, curves.heldout[-1]).reshape(len(trials), -1)
    best = int(finals[:, : len(CHOOSE)].mean(axis=1).argmin())
    scores = finals[:, len(CHOOSE) :].mean(axis=1)
    return float(scores[0]), (float(scores[best]), trials[best])


if __name__ == "__main__":
    sys.exit(main())
