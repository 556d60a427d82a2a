"""Coordinate check: do a few steps change a network's layers by the same amount whatever its width?

Under maximal update parametrisation they do, and a step size found at one width holds at others; under the standard one the change grows
with the width.

Legend: P parametrisations, W widths, S seeds, L layers.

Source: Yang et al., 2022, "Tensor Programs V", appendix D.1; Therien et al., 2024, "muLO", figure 2.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.learners import Learner
from metaopt.learners.update_rules import Theta
from metaopt.tasks.data.digits import DIGITS
from metaopt.tasks.families.supervised import Supervised
from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.streams import Examples
from metaopt.tasks.task import Task

__all__ = ["WIDTHS", "CoordinateCheck", "check_coordinates", "draw_checks"]

WIDTHS = (64, 128, 256, 512, 1024, 2048)
_HIDDEN, _BATCH = 3, 64
_INIT, _TRAIN = 0, 1  # branches of a seed's key


@dataclass(frozen=True)
class CoordinateCheck:
    """What the steps did to each layer.

    Attributes:
        parametrisation: of the networks.
        widths: of their hidden layers, W.
        change: root mean square over examples and units of the change of pre-activations, [W, S, L], float64.
    """

    parametrisation: str
    widths: tuple[int, ...]
    change: Tensor

    @property
    def slopes(self) -> Tensor:
        """For each layer [L], the slope of log change (mean over seeds) against log width: 0 is flat, 1 grows in proportion."""
        x = torch.log(torch.tensor(self.widths, dtype=torch.float64))
        y = torch.log(self.change).mean(1)
        x = x - x.mean()
        return (x.unsqueeze(1) * y).sum(0) / (x * x).sum()


def check_coordinates(
    learner: Learner,
    theta: Theta,
    parametrisation: str,
    widths: Sequence[int] = WIDTHS,
    inner_seeds: Sequence[int] = (0, 1, 2),
    steps: int = 5,
) -> CoordinateCheck:
    """Return how far `steps` inner steps move the pre-activations of networks of three hidden layers on held-out digits.

    Args:
        learner: any whose carry has `params`: that of a rule, with a schedule.
        theta: its meta-parameters.
        parametrisation: "standard" or "mu".
        widths: of the hidden layers, at least two different ones.
        inner_seeds: of initial weights and batches; at least one.
        steps: >= 1.

    Raises:
        ConfigError: fewer than two widths, no seed, or no step.
    """
    if len(set(widths)) < 2 or not inner_seeds or steps < 1:
        raise ConfigError(f"a coordinate check needs two widths, a seed and a step, got {widths}, {inner_seeds} and {steps}")
    rows = [torch.stack([_change(learner, theta, _model(parametrisation, width), seed, steps) for seed in inner_seeds]) for width in widths]
    return CoordinateCheck(parametrisation, tuple(widths), torch.stack(rows))


def _model(parametrisation: str, width: int) -> MLP:
    return MLP((math.prod(DIGITS.shape), *[width] * _HIDDEN, DIGITS.classes), "relu", parametrisation=parametrisation)


@torch.no_grad()
def _change(learner: Learner, theta: Theta, model: MLP, seed: int, steps: int) -> Tensor:
    """Return [L] for one network."""
    program = Supervised(Examples(DIGITS, DIGITS.shape, _BATCH), model)
    values = {"init_scale": 1.0, "reference": math.log(DIGITS.classes), "floor": 0.0, "horizon": float(steps)}
    task = Task(program, {name: torch.tensor(value) for name, value in values.items()}, program.shared())
    key = seeds.key("coordinate_check", seed)
    carry = learner.init(theta, task, seeds.fold_in(key, _INIT))
    inputs = task.heldout(key, torch.tensor(0))["x"]
    before = model.preactivations(carry["params"], inputs)
    for t in range(steps):
        carry, _ = learner.advance(theta, task, carry, task.batch(seeds.fold_in(key, _TRAIN), torch.tensor(t)))
    after = model.preactivations(carry["params"], inputs)
    return torch.stack([(b - a).double().square().mean().sqrt() for a, b in zip(before, after, strict=True)])


def draw_checks(checks: Mapping[str, CoordinateCheck], title: str, path: Path) -> None:
    """Write a PNG with a panel for each check, by its title: change against width, logarithmic, a line a layer, a dot a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(checks), 4.2), layout="constrained")
    panels = figure.subplots(1, len(checks), sharey=True, squeeze=False)[0]
    figure.suptitle(title)
    for axes, (name, check) in zip(panels, checks.items(), strict=True):
        layers = check.change.shape[2]
        for i, slope in enumerate(check.slopes.tolist()):
            layer = "input" if i == 0 else "output" if i == layers - 1 else f"hidden {i}"
            colour, lines = f"C{i}", check.change[:, :, i]
            axes.plot(check.widths, torch.exp(torch.log(lines).mean(1)), color=colour, label=f"{layer} (slope {slope:+.2f})")
            axes.plot(check.widths, lines, ".", color=colour, alpha=0.5)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(check.widths, [str(width) for width in check.widths])
        axes.minorticks_off()
        axes.set_title(name)
        axes.set_xlabel("width of the hidden layers")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    panels[0].set_ylabel("RMS change of pre-activations")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
