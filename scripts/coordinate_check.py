"""Draw how far five steps move each layer, against width, in both parametrisations; exit code 1 unless the maximal update one is flat.

python scripts/coordinate_check.py --out docs/images/coordinate_check.png
"""

import argparse
import sys
from pathlib import Path

from metaopt import learners
from metaopt.errors import MetaoptError
from metaopt.evaluation.coordinate_check import WIDTHS, CoordinateCheck, check_coordinates, draw_checks

FLAT = 0.15  # largest slope of log change against log width that counts as flat
MU = "maximal update parametrisation"
# Panel -> parametrisation, epsilon of small_fc's feature normalisation.
PANELS = {
    "standard parametrisation": ("standard", 1e-12),
    MU: ("mu", 1e-12),
    "maximal update, normaliser's epsilon 1e-5": ("mu", 1e-5),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="adam", choices=["adam", "random"], help="of small_fc; nothing is trained")
    parser.add_argument("--step-mult", type=float, default=1e-3)
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/images/coordinate_check.png"))
    args = parser.parse_args()
    checks: dict[str, CoordinateCheck] = {}
    try:
        for panel, (parametrisation, eps) in PANELS.items():
            learner = learners.get("small_fc", start=args.start, hidden=[32, 32], step_mult=args.step_mult, norm_eps=eps)
            theta = learner.init_theta(0)
            checks[panel] = check_coordinates(learner, theta, parametrisation, args.widths, range(args.seeds), args.steps)
            print(f"{panel}: slopes from input to output layer", " ".join(f"{slope:+.3f}" for slope in checks[panel].slopes.tolist()))
    except MetaoptError as error:
        print(error, file=sys.stderr)
        return 2
    draw_checks(checks, f"small_fc from its start {args.start!r}, {args.steps} steps on digits, {args.seeds} seeds", args.out)
    print("figure:", args.out)
    return 0 if float(checks[MU].slopes.abs().max()) <= FLAT else 1


if __name__ == "__main__":
    sys.exit(main())
