"""Fixed evaluation particles: the same held-out tasks and seeds before and after meta-training.

They come from the `meta_valid` templates of the families that the run trained on, which neither meta-training nor any suite uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from metaopt import inner, tasks
from metaopt.config.schema import TaskConfig
from metaopt.learners import Learner
from metaopt.learners.update_rules import Theta
from metaopt.seeds import stable_hash

__all__ = ["Change", "meta_loss_change"]

_PARTICLES = 4  # a template
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Change:
    """Meta-loss (mean normalised loss of a run) before and after, and the mean paired difference with its 95 % normal interval.

    The standard error is stratified: particles vary within their template.
    """

    before: float
    after: float
    difference: float
    low: float
    high: float


def meta_loss_change(learner: Learner, before: Theta, after: Theta, families: Sequence[TaskConfig], device: str = "cpu") -> Change:
    """Return how the meta-loss on the fixed particles changed from theta `before` to `after`; a pure function of its arguments."""
    means, variances, levels = [], [], []
    for entry in families:
        family = tasks.get(entry.family)
        for template in family.templates("meta_valid"):
            draws = [stable_hash("validation", entry.family, template, i) for i in range(_PARTICLES)]
            budget = entry.horizon[1]
            batch = [family.build(family.sample(template, draw, (budget, budget))).to(device) for draw in draws]
            both = {name: torch.stack([before[name]] * _PARTICLES + [after[name]] * _PARTICLES).to(device) for name in before}
            with torch.no_grad():
                trace = inner.run(learner, both, batch * 2, draws * 2, budget, theta_stacked=True)
            losses = trace.normalised.double().mean(0).cpu().chunk(2)
            difference = losses[1] - losses[0]
            means.append(float(difference.mean()))
            variances.append(float(difference.var()) / _PARTICLES)
            levels.append([float(loss.mean()) for loss in losses])
    if not means:  # families without a meta_valid template
        nan = float("nan")
        return Change(nan, nan, nan, nan, nan)
    center = sum(means) / len(means)
    half = _NORMAL_95 * sum(variances) ** 0.5 / len(means)
    first, last = (sum(level[i] for level in levels) / len(levels) for i in (0, 1))
    return Change(first, last, center, center - half, center + half)
