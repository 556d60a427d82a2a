"""How much a first learning rate matters: the same training from eight decades of it, with a plain optimizer and under towers.

Legend: R first rates, N seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from metaopt import inner, tasks
from metaopt.errors import ConfigError
from metaopt.evaluation.reporting.canvas import canvas, picture
from metaopt.learners import GradientLearner, Learner
from metaopt.learners.hypergradients import PRESETS, HypergradientLearner, default_rate
from metaopt.learners.hypergradients.towers import UPDATES, Update
from metaopt.names import nearest
from metaopt.tasks.families.supervised import Supervised
from metaopt.tasks.task import Task, TaskSpec

__all__ = ["RATES", "RateSweep", "digits_task", "draw_sweeps", "sweep_rates", "sweeps_table", "tower_of"]

RATES = tuple(10.0**power for power in range(-6, 2))
_COLOURS = ("#6f6f6f", "#0072B2", "#009E73", "#CC79A7", "#D55E00")


@dataclass(frozen=True)
class RateSweep:
    """What training came to from each first rate.

    Attributes:
        rates: R first rates.
        error: misclassified share of held-out examples [R, N]; 1 where the weights are not finite.
        learned: rates at the end [R, N]; the first ones for an optimizer that learns none.
        finite: whether all weights and rates are finite numbers [R, N].
    """

    rates: tuple[float, ...]
    error: Tensor
    learned: Tensor
    finite: Tensor

    def interval(self, draws: int = 2000) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean error over seeds [R] and the ends of its 95 % bootstrap interval."""
        seeds = self.error.shape[1]
        picks = torch.randint(seeds, (draws, seeds), generator=torch.Generator().manual_seed(0))
        low, high = torch.quantile(self.error[:, picks].mean(-1), torch.tensor([0.025, 0.975], dtype=self.error.dtype), dim=1)
        return self.error.mean(1), low, high


def digits_task(steps: int, width: int = 128) -> Task:
    """Return the digits with one hidden layer of tanh and batches of 64, as in published towers; its test images are other writers'."""
    template = f"96-relu-b64+activation=tanh+width={width}"
    return tasks.get("digits_mlp").build(TaskSpec("digits_mlp", template, "meta_valid", {"init_scale": 1.0}, steps))


def tower_of(base: str, height: int, link: str = "log", update: Update = "additive") -> Learner:
    """Return a base optimizer under `height` equal gradient steps with their default rate; the plain optimizer for height 0.

    Raises:
        ConfigError: unknown base, link or update, or a negative height.
    """
    name = f"hypergradient_{base}"
    if name not in PRESETS:
        raise ConfigError(f"base {base!r} is unknown{nearest(base, [key.removeprefix('hypergradient_') for key in PRESETS])}")
    if height < 0:
        raise ConfigError(f"height must be >= 0, got {height}")
    rate = default_rate(PRESETS[name].base, update) if update in UPDATES else 0.0
    preset = PRESETS[name](hyper=("sgd",) * height, hyper_lr=rate, link=link, moves=update)
    return preset if height else GradientLearner(preset.optimizer)


def sweep_rates(learner: Learner, task: Task, rates: Sequence[float], seeds: Sequence[int]) -> RateSweep:
    """Train from every rate and seed, all in one vectorised run, and return what came of it.

    Args:
        learner: takes its first rate from theta's entry `lr`.
        task: of labels, for as many steps as its horizon.
        rates: R first rates.
        seeds: N seeds of initial weights and batches.
    """
    count = len(seeds)
    theta = {"lr": torch.tensor(rates, dtype=torch.float64).repeat_interleave(count).to(task.horizon.dtype)}
    particles = len(rates) * count
    trace = inner.run(learner, theta, [task] * particles, list(seeds) * len(rates), int(task.horizon), theta_stacked=True)
    params = trace.carry["params"]
    heldout = task.heldout(torch.tensor(0), torch.tensor(0))
    program = task.program
    assert isinstance(program, Supervised)
    predicted = vmap(lambda one: program.model.apply(one, heldout["x"]))(params).argmax(-1)
    finite = torch.stack([torch.isfinite(value).flatten(1).all(1) for value in params.values()]).all(0)
    learned = theta["lr"].double()
    if isinstance(learner, HypergradientLearner):
        learned = learner.tower.values(trace.carry["state"]["tower"])["lr"][:, 0]
    error = torch.where(finite, (predicted != heldout["y"]).double().mean(-1), 1.0)
    shape = (len(rates), count)
    return RateSweep(tuple(rates), error.reshape(shape), learned.reshape(shape), (finite & torch.isfinite(learned)).reshape(shape))


def sweeps_table(sweeps: Mapping[str, RateSweep]) -> str:
    """Return mean errors in per cent with their intervals as Markdown, a row a first rate."""
    names = list(sweeps)
    lines = [f"| first rate | {' | '.join(names)} |", f"|---:|{'---:|' * len(names)}"]
    found = {name: sweep.interval() for name, sweep in sweeps.items()}
    for i, rate in enumerate(sweeps[names[0]].rates):
        cells = [" ".join((f"{100 * mean[i]:.1f}", f"[{100 * low[i]:.1f}, {100 * high[i]:.1f}]")) for mean, low, high in found.values()]
        lines.append(f"| {rate:.0e} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_sweeps(panels: Mapping[str, Mapping[str, RateSweep]]) -> dict[str, bytes]:
    """Return a figure as `png` and `svg` bytes: a row a panel, error and final rate against the first rate, with 95 % intervals."""
    with canvas(3.0 * len(panels) + 0.4, 8.4) as figure:
        from matplotlib.ticker import NullLocator

        axes = figure.subplots(len(panels), 2, squeeze=False)
        for row, (panel, sweeps) in enumerate(panels.items()):
            for (name, sweep), colour in zip(sweeps.items(), _COLOURS, strict=False):
                mean, low, high = (100 * part for part in sweep.interval())
                style = {"color": colour, "marker": "o", "markersize": 3.5, "linewidth": 1.6}
                axes[row, 0].plot(sweep.rates, mean, label=name, **style)
                axes[row, 0].fill_between(sweep.rates, low, high, color=colour, alpha=0.2, linewidth=0)
                axes[row, 1].plot(sweep.rates, sweep.learned.clamp(min=1e-12).log().mean(1).exp(), **style)
            axes[row, 0].set(xscale="log", ylim=(0, 100), xlabel="first learning rate", ylabel="test error, %", title=panel)
            axes[row, 1].set(xscale="log", yscale="log", xlabel="first learning rate", ylabel="rate at the end")
            for axis in (axes[row, 0].xaxis, axes[row, 1].xaxis, axes[row, 1].yaxis):
                axis.set_ticks(RATES[::2], [f"{rate:g}" for rate in RATES[::2]])  # the canvas draws no exponents
                axis.set_minor_locator(NullLocator())
        handles, names = axes[0, 0].get_legend_handles_labels()
        axes[0, 1].legend(handles, names)
        return picture(figure, ("png", "svg"))
