"""From the shards' meta-gradients to the next theta: balance, average, clip, one step of the outer optimizer."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metaopt.config.schema import OptimizerConfig
from metaopt.estimators import flatten, unflatten
from metaopt.learners.update_rules import Theta

__all__ = ["OuterUpdate", "outer_lr"]

_ENERGY_DECAY = 0.9
_OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


def outer_lr(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return the step size of outer step `step` in [0, steps): linear warm-up, then cosine to `final_lr_frac` of `lr`."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.lr * (config.final_lr_frac + (1 - config.final_lr_frac) * 0.5 * (1 + math.cos(math.pi * progress)))


class OuterUpdate:
    """Owns theta (as one vector) and the outer optimizer's state.

    The gradient of each shard is divided by the running root mean square of its norm before the mean over shards, so that no task family
    dominates by the scale of its losses.
    """

    def __init__(self, theta: Theta, config: OptimizerConfig, steps: int) -> None:
        self._config, self._steps, self._like = config, steps, theta
        self._vector = torch.nn.Parameter(flatten(theta).clone())
        options = {} if config.name == "sgd" else {"betas": config.betas}
        self._optimizer = _OPTIMIZERS[config.name]([self._vector], lr=config.lr, weight_decay=config.weight_decay, **options)
        self._energy: dict[str, list[float]] = {}  # shard -> [decayed sum of squared norms, decayed count]

    @property
    def theta(self) -> Theta:
        """The current meta-parameters, a copy."""
        return {name: value.clone() for name, value in unflatten(self._vector.detach(), self._like).items()}

    def _balanced(self, shard: int, grad: Tensor) -> Tensor:
        total, count = self._energy.get(str(shard), [0.0, 0.0])
        total, count = _ENERGY_DECAY * total + float(grad.square().sum()), _ENERGY_DECAY * count + 1.0
        self._energy[str(shard)] = [total, count]
        return grad / math.sqrt(total / count) if total > 0 else grad

    def apply(self, step: int, gradients: Mapping[int, Theta]) -> dict[str, float]:
        """Update theta with the mean of the shards' gradients, in the order of their numbers.

        Returns:
            `grad_norm` (of the balanced mean, before clipping), `clipped_frac` (entries clipped by value, or 1 if the norm was), `lr`.
        """
        total = torch.zeros_like(self._vector)
        for shard in sorted(gradients):
            total = total + self._balanced(shard, flatten(gradients[shard]))
        mean = total / len(gradients)
        norm, clipped = float(mean.norm()), 0.0
        if (limit := self._config.clip_value) is not None:
            clipped = float((mean.abs() > limit).double().mean())
            mean = mean.clamp(-limit, limit)
        if (limit := self._config.clip_norm) is not None and (length := float(mean.norm())) > limit:
            clipped, mean = 1.0, mean * (limit / length)
        lr = outer_lr(self._config, step, self._steps)
        self._optimizer.param_groups[0]["lr"] = lr
        self._vector.grad = mean
        self._optimizer.step()
        return {"grad_norm": norm, "clipped_frac": clipped, "lr": lr}

    def state(self) -> dict[str, Any]:
        """Return the optimizer's state and the running norms; theta is kept apart."""
        return {"optimizer": self._optimizer.state_dict(), "energy": self._energy}

    def load(self, theta: Theta, state: dict[str, Any]) -> None:
        """Continue from a theta and what `state` returned."""
        with torch.no_grad():
            self._vector.copy_(flatten(theta))
        self._optimizer.load_state_dict(state["optimizer"])
        self._energy = {shard: list(values) for shard, values in state["energy"].items()}
