"""A meta-learned schedule of learning rate, momentum and weight decay for an optimizer of `torch.optim`."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metaopt.artifacts import Artifact, load
from metaopt.artifacts.schedule import learned_schedule
from metaopt.errors import ConfigError, IncompatibleCheckpointError
from metaopt.learners.hypergradients.schedule import hyperparameters_at

__all__ = ["LearnedSchedule"]

# Rule -> what it is in `torch.optim`.
_TORCH = {
    "sgd": "SGD with momentum 0",
    "momentum": "SGD with momentum > 0",
    "nesterov": "SGD with momentum > 0, nesterov=True",
    "adam": "Adam",
    "adamw": "AdamW",
    "nadam": "NAdam",
    "rmsprop": "RMSprop",
}
_CLASSES = {"Adam": "adam", "AdamW": "adamw", "NAdam": "nadam", "RMSprop": "rmsprop"}
_VARIANTS = ("momentum", "nesterov", "dampening", "amsgrad", "centered", "decoupled_weight_decay")  # settings that decide which rule it is
_KEPT = ("last_epoch", "_step_count", "_last_lr", "base_lrs", "total_steps", "artifact", "_told")


class LearnedSchedule(LRScheduler):
    """Set the learning rate of an optimizer, and momentum and weight decay where they were learned, along a learned schedule.

    Call `step()` after each `optimizer.step()`, as with any scheduler of torch. The values are absolute: those that were learned for this
    rule, not factors of the optimizer's own. Groups keep their proportions:

    - The first group whose `lr` is not 0 gets the learned rate, every other one in proportion to its initial `lr`; 0 stays 0.
    - `weight_decay` alike. Where no group has any, all of them get the learned one.
    - Momentum (`betas[0]` of the Adam family) is the same in all groups.

    What was not learned (`eps`, `betas[1]`, ...) stays as the optimizer has it; the card's `rule.options` say what it was in meta-training.
    Past the end the last values stay, and it says so once. Only `state_dict` and the optimizer's own are needed to resume, bit for bit.

    Args:
        optimizer: an optimizer of `torch.optim` of the artifact's rule, or a subclass of one.
        artifact: path, bundled or cached name, or a loaded `Artifact`, with interface `learned_schedule/1`.
        total_steps: length of the run in optimizer steps, >= 1.

    Raises:
        ConfigError: an argument out of range, an artifact of another kind, an optimizer of another rule or without a hyperparameter that
            was learned.
        UnsafeArtifactError: a damaged artifact.
    """

    def __init__(self, optimizer: Optimizer, artifact: str | os.PathLike[str] | Artifact, total_steps: int) -> None:
        if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 1:
            raise ConfigError(f"total_steps must be an integer >= 1, got {total_steps!r}")
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        source = artifact if isinstance(artifact, Artifact) else load(artifact)
        self._learner, theta = learned_schedule(source)
        self._theta = {name: value.double() for name, value in theta.items()}
        self.artifact = f"{source.name}@{source.fingerprint}"
        self.total_steps = total_steps
        self._told = False
        _check_rule(optimizer, self._learner.rule.name, self._learner.learn, source.name)
        for group in optimizer.param_groups:
            group.setdefault("initial_weight_decay", group["weight_decay"])
        super().__init__(optimizer)

    def values_at(self, step: int) -> dict[str, float]:
        """Return the learned hyperparameters of update `step` (the first one is 0) by the rule's own names."""
        end = torch.tensor(float(self.total_steps), dtype=torch.float64)
        found = hyperparameters_at(self._theta, self._learner.shape, torch.tensor(step), end)
        return {name: float(value) for name, value in found.items()}

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of each group at the present step."""
        return [*self._of_groups("lr", self.values_at(self.last_epoch)["lr"])]

    def step(self, epoch: int | None = None) -> None:
        """Move to the next step, and set what was learned in all groups of the optimizer."""
        super().step(epoch)
        values = self.values_at(self.last_epoch)
        if "weight_decay" in values:
            for group, value in zip(self.optimizer.param_groups, self._of_groups("weight_decay", values["weight_decay"]), strict=True):
                group["weight_decay"] = value
        for group in self.optimizer.param_groups:
            if "momentum" in values:
                group["momentum"] = values["momentum"]
            if "beta1" in values:
                group["betas"] = (values["beta1"], group["betas"][1])
        if self.last_epoch > self.total_steps and not self._told:
            self._told = True
            warnings.warn(
                f"step {self.last_epoch} is past total_steps={self.total_steps} of {self.artifact}: the last values stay", stacklevel=2
            )

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule is: plain numbers and texts, and the name of the artifact."""
        return {key: self.__dict__[key] for key in _KEPT}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            IncompatibleCheckpointError: saved from another artifact, or for another `total_steps`; nothing has been changed.
        """
        for key in ("artifact", "total_steps"):
            if state_dict.get(key) != getattr(self, key):
                raise IncompatibleCheckpointError(
                    f"state_dict has {key} {state_dict.get(key)!r}, the scheduler {getattr(self, key)!r}; build it with that one"
                )
        self.__dict__.update({key: state_dict[key] for key in _KEPT})

    def _of_groups(self, name: str, learned: float) -> list[float]:
        """Return a hyperparameter of each group, in proportion to what the groups began with."""
        groups = self.optimizer.param_groups
        begun = [float(group.setdefault(f"initial_{name}", group[name])) for group in groups]  # a group that was added later has none
        first = next((value for value in begun if value != 0.0), None)
        return [learned if first is None else learned * (value / first) for value in begun]


def _check_rule(optimizer: Optimizer, rule: str, learned: tuple[str, ...], artifact: str) -> None:
    """Raise unless every group of the optimizer runs the rule and has what was learned."""
    kind = next((base.__name__ for base in type(optimizer).__mro__ if base.__name__ in (*_CLASSES, "SGD")), None)
    got = type(optimizer).__name__
    for number, group in enumerate(optimizer.param_groups):
        if _rule_of(kind, group) != rule:
            shown = ", ".join(f"{key}={group[key]}" for key in _VARIANTS if kind is not None and key in group)
            where = f" whose group {number} has {shown}" if shown else ""
            raise ConfigError(f"artifact {artifact!r} schedules rule {rule} (torch.optim.{_TORCH[rule]}), got optimizer {got}{where}")
        if "momentum" in learned and group["momentum"] == 0:
            raise ConfigError(f"artifact {artifact!r} learned momentum, and group {number} of {got} has none; build it with momentum > 0")
    if all(float(group["lr"]) == 0.0 for group in optimizer.param_groups):
        raise ConfigError(f"all groups of {got} have lr 0, which a learned schedule leaves at 0; give one of them another lr")


def _rule_of(kind: str | None, group: Mapping[str, Any]) -> str | None:
    """Return the rule that a group of an optimizer of a class runs, None for one that schedules are not learned for."""
    if kind is None or any(group.get(name) for name in ("amsgrad", "centered")):
        return None
    if kind == "SGD":
        return "sgd" if group["momentum"] == 0 else "nesterov" if group["nesterov"] else "momentum" if group["dampening"] == 0 else None
    if group.get("decoupled_weight_decay"):
        return "adamw" if kind in ("Adam", "AdamW") else None
    return _CLASSES[kind]
