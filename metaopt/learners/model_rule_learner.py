"""The learner that a rule makes which sees all tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt.errors import TaskError
from metaopt.learners.learner import SCHEDULES, Carry, Schedule, StepRecord, schedule_factor
from metaopt.learners.update_rules.model_rule import ModelRule, apply_model_rule
from metaopt.learners.update_rules.rule import Theta
from metaopt.names import nearest
from metaopt.tasks.task import Batch, Task

__all__ = ["ModelRuleLearner"]


@dataclass(frozen=True)
class ModelRuleLearner:
    """A learner that takes the task's gradient on each batch and applies a model rule to all tensors at once.

    The rule sees the raw loss of the batch and the task's horizon. Embeddings are tensors like others.

    Attributes:
        rule: the model rule; its `lr` hyperparameter (or theta's entry `lr`) is the step size.
        schedule: factor of the step size over the task's horizon, besides what the rule itself makes of it.
        weight_decay: decoupled decay in units of the step.
    """

    rule: ModelRule
    schedule: Schedule = SCHEDULES["constant"]
    weight_decay: float = 0.0

    def init_theta(self, seed: int) -> Theta:
        """Return the rule's initial meta-parameters."""
        return self.rule.init_theta(seed)

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return `params`, the rule's `state`, the step counter `t`, and the task's `gradient_state` if it has any.

        Raises:
            TaskError: the task's `step_scales` name a parameter that it does not have.
        """
        params = task.init(key)
        if unknown := sorted(task.step_scales.keys() - params.keys()):
            raise TaskError(f"task step_scales names {unknown[0]!r}, which is no parameter{nearest(unknown[0], params)}")
        state = self.rule.init_state(theta, params)
        carry = {"params": params, "state": state, "t": torch.zeros((), dtype=torch.int64, device=key.device)}
        noise = task.gradient_state(params)
        return {**carry, "gradient_state": noise} if noise else carry

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return the carry after one update on the batch, and the loss before it."""
        params, t = carry["params"], carry["t"]
        grads, loss, noise = task.gradients(params, batch, carry.get("gradient_state", {}))
        lr = (theta["lr"] if "lr" in theta else self.rule.hyperparameters["lr"]) * schedule_factor(self.schedule, t, task.horizon)
        sizes = {name: lr * task.step_scales.get(name, 1.0) for name in params}
        params, state = apply_model_rule(self.rule, theta, params, grads, carry["state"], t, sizes, self.weight_decay, loss, task.horizon)
        after = {"params": params, "state": state, "t": t + 1}
        return {**after, "gradient_state": noise} if noise else after, StepRecord(loss)
