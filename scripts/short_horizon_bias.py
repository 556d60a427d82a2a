"""Show what looking ahead too short costs: on the noisy quadratic, exactly, and on a small network.

python scripts/short_horizon_bias.py [--quick] [--json FILE] [--figures docs/images]
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from metaopt.errors import MetaoptError
from metaopt.estimators.short_horizon import network_task, offline, online
from metaopt.evaluation import short_horizon as shown
from metaopt.tasks.oracles.horizon_bias import rules, spectrum_rows

STEPS, LOOK_AHEADS, SETTINGS, SEEDS = 2_000, (50, 150, 500, 2_000), 64, 5
ONLINE_STEPS, ADAPT_EVERY = 8_000, 40


def main() -> int:
    """Print the tables, and write what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the problem of a hundred directions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="write short-horizon-*.png and .svg")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = rules()
    print(f"NQM-100: expected loss after {len(found[0].rates)} steps, {found[0].losses[0]:.6f} before them\n\n{shown.rules_table(found)}")
    pictures = {"rules": shown.bias_figure, "horizon": shown.horizon_figure}
    drawn = {name: draw(found) for name, draw in pictures.items()} if arguments.figures else {}
    everything = shown.as_json(found)
    if not arguments.quick:
        spectra = spectrum_rows()
        print(f"\n1,000 directions\n\n{shown.spectra_table(spectra)}", flush=True)
        try:
            task = network_task()
        except MetaoptError as error:
            print(error, file=sys.stderr)
            return 2
        tuned = offline(task, STEPS, LOOK_AHEADS, SETTINGS, range(SEEDS))
        adapted = online(task, ONLINE_STEPS, ADAPT_EVERY, range(SEEDS))
        print(f"\nnetwork, {SEEDS} seeds\n\n{shown.network_table(tuned, adapted)}")
        everything = shown.as_json(found, spectra, tuned, adapted)
        if arguments.figures:
            drawn["network"] = shown.network_figure(tuned, adapted)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(everything, indent=1) + "\n")
    for name, formats in drawn.items():
        arguments.figures.mkdir(parents=True, exist_ok=True)
        for ending, content in formats.items():
            (arguments.figures / f"short-horizon-{name}.{ending}").write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
