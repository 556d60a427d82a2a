"""Two halves of a task's held-out examples: one that decisions may look at, and one that scores.

Whoever keeps the weights with the lowest loss on some examples has chosen a little of those examples' luck. The half that was chosen on
therefore never scores, and what scores is compared with curves on the same half: halves of a small data set differ by more than most
differences between optimizers.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from metaopt.tasks.task import Batch, Params, Program, Task

__all__ = ["DECIDING", "SCORING", "Half", "half_loss", "half_of"]

Half = Literal["deciding", "scoring"]
DECIDING: Half = "deciding"
SCORING: Half = "scoring"


def half_of(program: Program, heldout: Batch, half: Half) -> Batch:
    """Return every other example of a held-out batch: the even ones decide, the odd ones score.

    A program without a stream (a quadratic, say) has no examples and one objective for both, and a stream with a single held-out example
    has it for both. Entries without an axis of examples stay as they are.
    """
    if not _has_examples(program):
        return heldout
    start = 0 if half == DECIDING else 1
    return {name: value if value.dim() == 0 or len(value) < 2 else value[start::2] for name, value in heldout.items()}


def half_loss(task: Task, params: Params, key: Tensor, half: Half) -> Tensor:
    """Return the normalised loss [] of one run's weights on a half of its held-out examples, without the task's cap.

    The cap is left out because it would make a run that blew up look like one that only lost a little on a task that begins above the cap.
    Below it, losses are those of `task.normalise`. Not for learners whose weights to evaluate are not `params`. Under `vmap` too.
    """
    batch = half_of(task.program, task.heldout(key, torch.zeros_like(key)), half)
    return task.program.normalise(task.numbers, task.loss(params, batch))


def _has_examples(program: Any) -> bool:
    while hasattr(program, "program"):  # an augmentation around it
        program = program.program
    return hasattr(program, "stream")
