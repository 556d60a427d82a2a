"""Bias, variance and cost of estimators at equal compute, on influence balancing and on a small real task.

Legend: T horizon, G groups (independent estimators with other seeds), P meta-parameters.

A group estimates the derivative of an episode's mean loss by the mean over the windows of one episode, at a fixed theta. Its mean error is
the bias, its spread over groups the noise; both are relative to the length of the exact derivative. Compute is counted in plain inner
steps: the floating-point operations of an estimate's matrix products (torch's own counter) over those of one inner step of one run, so that
backward passes, repeated forward passes and tangents count for what they are. Elementwise work is not counted.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from metaopt import learners, tasks
from metaopt.estimators import ESTIMATORS, NRES, FullBackprop, Recipe, TruncatedBackprop, flatten
from metaopt.inner.particles import Episodes, Pairs
from metaopt.learners import Learner, StepRecord
from metaopt.learners.update_rules import Theta
from metaopt.tasks.source import TaskSource
from metaopt.tasks.task import Batch, Numbers, Params, Task

__all__ = ["Row", "Subject", "balancing", "digits", "error_at", "exact", "figure", "measure", "stability", "table"]

_NORMAL_95 = 1.96
_SHOWN_AS_EXACT = 1e-3
# Solid below dashed below dotted, so that lines that coincide are all seen.
_STYLES = (
    *(("#0072B2", "-"), ("#D55E00", (0, (5, 4))), ("#009E73", "-"), ("#CC79A7", (0, (5, 4))), ("#E69F00", "-"), ("#56B4E9", (0, (2, 3)))),
    *(("#000000", (0, (5, 4))), ("#8C6BB1", "-"), ("#8C564B", (0, (5, 4))), ("#7F7F7F", (0, (1, 2))), ("#B22222", "-.")),
)
_N, _P = 23, 10


@dataclass(frozen=True)
class Subject:
    """What estimators are compared on.

    Attributes:
        title: of the panel.
        learner, theta, episodes: as an estimator takes them; all runs have horizon T and begin together.
        horizon: T.
        pairs: antithetic pairs of a group.
        groups: G.
        options: options of every evolution strategy.
        estimators: name -> further options; names may carry a remark after a space.
    """

    title: str
    learner: Learner
    theta: Theta
    episodes: Episodes
    horizon: int
    pairs: int
    groups: int
    options: Mapping[str, Any]
    estimators: Mapping[str, Mapping[str, Any]]

    def recipe(self, label: str) -> Recipe:
        """Return the recipe behind a label."""
        kind = ESTIMATORS[label.split()[0]]
        accepted = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # recipes are dataclasses
        given = {name: value for name, value in self.options.items() if name in accepted}
        return kind(**{**given, **self.estimators[label]})


@dataclass(frozen=True)
class Row:
    """One estimator on one subject; lengths are in units of the exact derivative's.

    Attributes:
        bias, bias_high: length of the mean error with its sampling noise taken off, and the upper end of a 95 % interval.
        noise: standard deviation of one group (root of the summed variances).
        total: plain inner steps of one group for one episode.
        sequential: plain inner steps that one estimate makes one after the other.
        waits: inner steps between two outer steps.
    """

    label: str
    bias: float
    bias_high: float
    noise: float
    total: float
    sequential: float
    waits: int


def _episode(recipe: Recipe, subject: Subject, pairs: int, seed: int) -> tuple[Tensor, int, int]:
    """Return the mean estimate [P] over one episode, the number of estimates, and the sequential steps of one."""
    estimator = recipe.build(subject.learner, subject.episodes, pairs, seed)
    grads: list[Tensor] = []
    done = 0
    while done < subject.horizon:
        got = estimator.estimate(subject.theta, len(grads))
        grads.append(flatten(got.grad).double())
        done += got.sequential_steps
    return torch.stack(grads).mean(0), len(grads), got.sequential_steps


def _flops_of_a_step(subject: Subject) -> float:
    """Return the operations of one inner step of one run."""
    pairs = Pairs(subject.learner, subject.episodes, 1, members=1)
    rows = {name: value.unsqueeze(0) for name, value in subject.theta.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        pairs.advance(rows, 4)
    return float(counter.get_total_flops()) / 4


def exact(subject: Subject) -> Tensor:
    """Return the exact derivative [P] by backpropagation through the whole episode of every run."""
    return _episode(FullBackprop(), subject, max(1, subject.pairs // 2), 0)[0]


def measure(label: str, subject: Subject, truth: Tensor) -> Row:
    """Return the row of one estimator; deterministic, seeds are 0 to G - 1."""
    recipe = subject.recipe(label)
    # Single particles come two to a pair, so that half as many of those are the same runs.
    pairs = subject.pairs if hasattr(recipe, "sigma") else max(1, subject.pairs // 2)
    drawn = hasattr(recipe, "sigma") or getattr(recipe, "tangents", 0) > 0 or recipe.name == "uoro"
    found = torch.stack([_episode(recipe, subject, pairs, seed)[0] for seed in range(subject.groups if drawn else 1)])
    with FlopCounterMode(display=False) as counter:
        _, estimates, steps = _episode(recipe, subject, pairs, 0)
    total = counter.get_total_flops() / _flops_of_a_step(subject)
    length = float(truth.norm())
    error_P = found.mean(0) - truth
    variance_P = found.var(0) if drawn else torch.zeros_like(truth)
    sampling = float(variance_P.sum()) / len(found)
    bias = math.sqrt(max(0.0, float(error_P.square().sum()) - sampling))
    high = float(error_P.norm()) + _NORMAL_95 * math.sqrt(sampling)
    members = 2 * pairs
    return Row(label, bias / length, high / length, float(variance_P.sum()) ** 0.5 / length, total, total / members / estimates, steps)


def error_at(row: Row, budget: float) -> float:
    """Return the relative error (root mean square) of as many groups as `budget` plain inner steps pay for.

    A bias below what was resolved counts as none.
    """
    bias = row.bias if row.bias > _NORMAL_95 / 2 * (row.bias_high - row.bias) else 0.0
    return math.sqrt(bias**2 + row.noise**2 * row.total / budget)


def table(rows: Sequence[Row], budget: float) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| estimator | bias (95 % below) | noise | steps | sequential | error |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = (f"{row.bias:.2g} ({row.bias_high:.2g})", f"{row.noise:.2g}", f"{row.total:,.0f}", f"{row.sequential:,.0f}")
        lines.append(f"| `{row.label}` | {' | '.join(cells)} | {error_at(row, budget):.2g} |")
    return "\n".join(lines)


def figure(panels: Sequence[tuple[Subject, Sequence[Row]]], budget: float) -> bytes:
    """Return a figure: relative error over compute, one panel a subject, logarithmic axes, as PNG."""
    import io

    from matplotlib.figure import Figure

    drawing = Figure(figsize=(10.5, 5.2), layout="constrained", dpi=110)
    grid = drawing.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    labels = list(dict.fromkeys(row.label for _, rows in panels for row in rows))
    style = {label: _STYLES[i % len(_STYLES)] for i, label in enumerate(labels)}
    budgets = torch.logspace(2.5, 7.0, 60).tolist()
    for axes, (subject, rows) in zip(grid, panels, strict=True):
        exact_ones = [row.label for row in rows if row.noise == 0.0 and error_at(row, 1.0) < _SHOWN_AS_EXACT]
        for row in rows:
            spent = [x for x in budgets if x >= row.total / (2 * subject.pairs)]  # at least one run of one member
            shown = [error_at(row, x) for x in spent]
            if row.label in exact_ones:  # from the first run on; one above the other
                spent = [row.total / (2 * subject.pairs), budgets[-1]]
                shown = [1.2e-3 * 1.3 ** exact_ones.index(row.label)] * 2
            colour, dash = style[row.label]
            axes.loglog(spent, shown, color=colour, linestyle=dash, linewidth=2.0, label=row.label)
        if exact_ones:
            axes.text(budgets[-1] / 1.2, 1.2e-3 * 1.35 ** len(exact_ones), "exact", ha="right", fontsize=9)
        axes.axvline(budget, color="#999999", linewidth=0.8, linestyle=":")
        axes.axhline(1.0, color="#999999", linewidth=0.8)
        axes.set(xlabel="compute (plain inner steps)", title=subject.title, ylim=(1e-3, 30.0), xlim=(budgets[0], budgets[-1]))
        axes.grid(alpha=0.25)
    grid[0].set_ylabel("error / length of the exact derivative")
    handles = {label: h for axes in grid for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    drawing.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def stability(rates: Sequence[float] = (1e-3, 1e-2, 0.05, 0.2, 0.5), groups: int = 8) -> str:
    """Return a Markdown table of the derivative for the log step size of Adam on digits, where runs are stable and where they are not.

    Columns: the meta-loss, its slope between 0.8 and 1.25 times the step size, and the estimates of backpropagation through the whole run,
    of truncated backpropagation, and of NRES with sigma 0.1 (mean and standard error over groups).
    """
    subject = digits()
    nres = NRES(window=10, sigma=0.1)
    lines = ["| step size | loss | slope | `full_backprop` | `truncated_backprop` | `nres` |", "|---|---|---|---|---|---|"]
    for rate in rates:

        def at(factor: float, rate: float = rate) -> Subject:
            return dataclasses.replace(subject, theta={**subject.theta, "log_lr": torch.tensor(math.log(rate * factor))})

        def loss(factor: float) -> float:
            here = at(factor)
            return FullBackprop().build(here.learner, here.episodes, here.pairs // 2, 0).estimate(here.theta, 0).loss

        slope = (loss(1.25) - loss(0.8)) / math.log(1.25 / 0.8)
        short, _, _ = _episode(TruncatedBackprop(window=10), at(1.0), subject.pairs // 2, 0)
        smooth = torch.stack([_episode(nres, at(1.0), subject.pairs, seed)[0][0] for seed in range(groups)])
        cells = (f"{rate:g}", f"{loss(1.0):.3f}", f"{slope:.2g}", f"{float(exact(at(1.0))[0]):.2g}", f"{float(short[0]):.2g}")
        lines.append(f"| {' | '.join(cells)} | {float(smooth.mean()):.2g} ± {float(smooth.std()) / groups**0.5:.1g} |")
    return "\n".join(lines)


# Influence balancing --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _NoData:
    """A task without content: the learner is the whole system."""

    cap: float = 1e12

    def shared(self) -> Batch:
        return {}

    def init(self, numbers: Numbers, key: Tensor) -> Params:
        return {}

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        return {}

    heldout = batch

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        return numbers["horizon"] * 0.0

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        return raw


@dataclass(frozen=True)
class _Balancing:
    """s' = A s + theta b, loss 0.5 (s_1 - 1)^2: the derivative of a short window has the wrong sign.

    Source: Tallec, Ollivier, 2017, "Unbiased online recurrent optimization", section 5; n = 23, p = 10, theta = 0.5.
    """

    def init_theta(self, seed: int) -> Theta:
        return {"theta": torch.tensor(0.5, dtype=torch.float64)}

    def init(self, theta: Theta, task: Task, key: Tensor) -> Params:
        return {"s": theta["theta"].new_ones(_N)}

    def advance(self, theta: Theta, task: Task, carry: Params, batch: Batch) -> tuple[Params, StepRecord]:
        s = carry["s"]
        matrix = 0.5 * (torch.eye(_N, dtype=s.dtype) + torch.diag(s.new_ones(_N - 1), 1))
        moved = matrix @ s + theta["theta"] * torch.cat([s.new_ones(_P), -s.new_ones(_N - _P)])
        return {"s": moved}, StepRecord(0.5 * (moved[0] - 1.0) ** 2)


@dataclass(frozen=True)
class _Endless:
    horizon: int

    def task(self, particle: int, episode: int, stage: int = 0) -> Task:
        return Task(_NoData(), {"horizon": torch.tensor(float(self.horizon), dtype=torch.float64)}, {})

    def run_seed(self, particle: int, episode: int) -> int:
        return particle

    def stagger(self, particle: int) -> float:
        return 0.0


@dataclass(frozen=True)
class _SameRuns:
    """The same few runs again and again, so that an estimator's own noise is all there is."""

    source: TaskSource
    runs: int

    def task(self, particle: int, episode: int, stage: int = 0) -> Task:
        return self.source.task(particle % self.runs, 0)

    def run_seed(self, particle: int, episode: int) -> int:
        return self.source.run_seed(particle % self.runs, 0)

    def stagger(self, particle: int) -> float:
        return 0.0


def _compared(window: int, reuse: int, tangents: int) -> dict[str, dict[str, Any]]:
    return {
        "nres": {"window": window},
        "es_single": {"window": window},
        f"gpes reuse {reuse}": {"window": window, "reuse_steps": reuse},
        "pes": {"window": window},
        "truncated_es": {"window": window},
        "full_es": {},
        "truncated_backprop": {"window": window},
        "full_backprop": {},
        "forward_mode": {"window": window},
        f"forward_mode tangents {tangents}": {"window": window, "tangents": tangents},
        "uoro": {"window": window},
    }


def balancing(groups: int = 40, pairs: int = 100) -> Subject:
    """Return influence balancing with T = 100, W = 10, sigma 0.1."""
    learner, compared = _Balancing(), _compared(10, 50, 1)
    return Subject(
        "influence balancing, W = 10", learner, learner.init_theta(0), _Endless(100), 100, pairs, groups, {"sigma": 0.1}, compared
    )


def digits(groups: int = 40, pairs: int = 8) -> Subject:
    """Return an MLP on digits under Adam with learned hyperparameters (P = 4, step size 0.01), T = 100, W = 10, sigma 0.01."""
    learner = learners.get("learnable_adam")
    theta = {**learner.init_theta(0), "log_lr": torch.tensor(math.log(0.01))}
    source = TaskSource(tasks.get("digits_mlp"), "16x16-tanh-b64", (100, 100), seed=3)
    compared = _compared(10, 50, 1)
    return Subject(
        "digits MLP, learnable Adam, W = 10", learner, theta, _SameRuns(source, pairs), 100, pairs, groups, {"sigma": 0.01}, compared
    )
