"""Any `torch.optim.Optimizer` class as a learner: slow, one particle after another, for comparison and for what has no pure form here.

An optimizer keeps its state in objects and writes to its parameters, so each step builds one, loads the state that the carry holds, steps
it, and takes the state out again: the pair stays pure, and an evaluation leaves no trace.
"""

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.learners.learner import SCHEDULES, Carry, Schedule, StepRecord, named_schedule, schedule_factor
from metaopt.learners.update_rules.rule import Theta
from metaopt.names import nearest
from metaopt.tasks.task import Batch, Params, Task

__all__ = ["TorchLearner", "adapt"]


@dataclass(frozen=True)
class TorchLearner:
    """The pair that a torch optimizer makes; see `adapt`.

    Theta may hold scalar options by name (`lr`, `weight_decay`, `momentum`). Parameters get groups of their own where the task scales their
    steps. An optimizer with `train()` and `eval()`, as the `schedulefree` package has them, steps in the first mode and is measured in the
    second.

    Attributes:
        optimizer: the class.
        options: keyword arguments of its constructor, by name.
        schedule: factor of its `lr` over the task's horizon.
    """

    optimizer: type[torch.optim.Optimizer]
    options: tuple[tuple[str, Any], ...] = ()
    schedule: Schedule = SCHEDULES["constant"]
    vectorised: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Name of the class."""
        return self.optimizer.__name__

    def init_theta(self, seed: int) -> Theta:
        """Return the empty dict."""
        return {}

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return `params`, the optimizer's `state_dict` (none yet), the step counter `t`, and `gradient_state`."""
        params = task.init(key)
        return {"params": params, "optimizer": None, "t": 0, "gradient_state": task.gradient_state(params)}

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return the carry after one `step` with a closure, and the loss at `params` before it. Writes to none of its arguments.

        What a closure that is called again (a line search) leaves in `gradient_state` is what the last call left.
        """
        leaves = {name: param.detach().clone().requires_grad_() for name, param in carry["params"].items()}
        optimizer = self._restored(leaves, theta, task, carry)
        found = {"noise": carry["gradient_state"]}

        def closure() -> Tensor:
            point = {name: leaf.detach().clone() for name, leaf in leaves.items()}
            grads, loss, found["noise"] = task.gradients(point, batch, carry["gradient_state"])
            for name, leaf in leaves.items():
                leaf.grad = grads[name].detach().clone()
            return loss.detach()

        loss = task.loss({name: leaf.detach() for name, leaf in leaves.items()}, batch)
        _switch(optimizer, "train")
        optimizer.step(closure)  # type: ignore[arg-type]  # torch lets closures return tensors
        _switch(optimizer, "eval")
        params = {name: leaf.detach() for name, leaf in leaves.items()}
        state = copy.deepcopy(optimizer.state_dict())
        return {"params": params, "optimizer": state, "t": carry["t"] + 1, "gradient_state": found["noise"]}, StepRecord(loss)

    def _restored(self, leaves: Params, theta: Theta, task: Task, carry: Carry) -> torch.optim.Optimizer:
        options = {**dict(self.options), **{name: float(value) for name, value in theta.items()}}
        scales = task.step_scales
        groups: Any = [{"params": [leaf]} for leaf in leaves.values()] if scales else list(leaves.values())
        optimizer = self.optimizer(groups, **options)
        rates = [group["lr"] for group in optimizer.param_groups]
        if carry["optimizer"] is not None:
            optimizer.load_state_dict(copy.deepcopy(carry["optimizer"]))
        factor = float(schedule_factor(self.schedule, torch.tensor(carry["t"]), task.horizon))
        for group, rate, name in zip(optimizer.param_groups, rates, leaves, strict=False):
            group["lr"] = float(rate) * factor * scales.get(name, 1.0)
        return optimizer


def adapt(optimizer: str | type[torch.optim.Optimizer], schedule: str = "constant", **options: Any) -> TorchLearner:
    """Return a learner that steps a torch optimizer.

    Args:
        optimizer: a class, or the name of one in `torch.optim`.
        schedule: by name.
        options: keyword arguments of its constructor; lists count as tuples.

    Raises:
        ConfigError: no such class or schedule, or options that the class refuses.
    """
    made: Any = optimizer
    if isinstance(optimizer, str):
        known = [name for name, value in vars(torch.optim).items() if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)]
        if optimizer not in known:
            raise ConfigError(f"torch.optim has no optimizer {optimizer!r}{nearest(optimizer, known)}")
        made = getattr(torch.optim, optimizer)
    fixed = tuple(sorted((name, tuple(value) if isinstance(value, list) else value) for name, value in options.items()))
    try:
        made([torch.zeros(2, 2, requires_grad=True)], **dict(fixed))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{made.__name__} does not take {dict(fixed)}: {error}") from error
    return TorchLearner(made, fixed, named_schedule(schedule))


def _switch(optimizer: torch.optim.Optimizer, mode: str) -> None:
    if hasattr(optimizer, mode):
        getattr(optimizer, mode)()
