"""Imitation: a learner walks along the runs of another one, and its loss is how far its own steps are from the other's.

Before it can train anything, a recurrent rule with random weights leads each run away from where good optimizers go, and what it learns
there is of little use. Following Adam, it sees Adam's states, and the loss of a step has no noise of the horizon in it: parameters do not
depend on theta, so that derivatives only pass through the rule's own memory.

Source: Chen et al., 2020, "Training stronger baselines for learning to optimize" (imitation of Adam and others before self-improvement).
Differs: the loss is relative to the size of the step that is imitated, so that step sizes from 1e-4 to 1 weigh alike.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaopt.learners.learner import Carry, Learner, StepRecord
from metaopt.learners.update_rules import Theta
from metaopt.tasks.augmentations.wrapper import Augmentation, Wrapper, wrapped
from metaopt.tasks.task import Batch, Numbers, Params, Task

__all__ = ["ImitationLearner", "PlainLoss", "relative_error"]

_SMALLEST_STEP = 1e-8  # root mean square; an imitated run that stands still asks for steps that are small beside this


def relative_error(step: Params, imitated: Params) -> Tensor:
    """Return |step - imitated|^2 / (|imitated|^2 + n 1e-16) over all n weights of a model, a scalar; 1 for a step of zero."""
    error = torch.stack([(step[name] - imitated[name]).square().sum() for name in imitated]).sum()
    size = torch.stack([value.square().sum() for value in imitated.values()]).sum()
    return error / (size + sum(value.numel() for value in imitated.values()) * _SMALLEST_STEP**2)


@dataclass(frozen=True)
class ImitationLearner:
    """`learner` on the runs of `imitated`: the record's loss is the `relative_error` of its step at the same parameters and batch.

    The loss is on no task's scale: `PlainLoss` keeps tasks from normalising it. Both learners carry `params`.

    Attributes:
        learner: what is trained; its memory sees every step, its parameters are put back onto the imitated run after each.
        imitated: what leads; it has no meta-parameters (`PartlyFrozen` makes such a one of a learned rule).
    """

    learner: Learner
    imitated: Learner

    def init_theta(self, seed: int) -> Theta:
        """Return the learner's initial meta-parameters."""
        return self.learner.init_theta(seed)

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return the carries of both, `own` and `led`; they begin at the same parameters, those of the task."""
        return {"own": self.learner.init(theta, task, key), "led": self.imitated.init({}, task, key)}

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return both carries at the imitated learner's next parameters, and the relative error of the learner's step."""
        before: Params = carry["led"]["params"]
        own, _ = self.learner.advance(theta, task, {**carry["own"], "params": before}, batch)
        led, _ = self.imitated.advance({}, task, carry["led"], batch)
        after: Params = led["params"]
        steps = ({name: params[name] - before[name] for name in before} for params in (own["params"], after))
        return {"own": {**own, "params": after}, "led": led}, StepRecord(relative_error(*steps))


@dataclass(frozen=True)
class WithPlainLoss(Wrapper):
    """The program inside, whose losses are taken as they are, however large."""

    @property
    def cap(self) -> float:
        """No cap: a step of 1, where one of 1e-3 was asked for, is wrong by 1e6 and must still have a derivative."""
        return math.inf

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        """Return the loss itself."""
        return raw


@dataclass(frozen=True)
class PlainLoss(Augmentation):
    """Takes a task's scale from its losses, for learners whose loss is not the task's."""

    name: ClassVar[str] = "plain_loss"

    def apply(self, task: Task, seed: int) -> Task:
        """Return the task with losses as they are."""
        return wrapped(task, WithPlainLoss(task.program), {})
