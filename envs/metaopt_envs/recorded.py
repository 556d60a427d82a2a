"""The inner step as a flat list of tensor operations.

A vectorised step with a derivative inside goes through three layers of dispatch for every small operation. Recorded once, it is a list of
plain operations, with the same bits: on models of some thousand weights it takes half the time. Recording takes less than a second, where a
compiler would take ten.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from metaopt.inner.step import training_step
from metaopt.learners.learner import Carry, Learner
from metaopt.learners.update_rules import Theta
from metaopt.tasks.task import Batch, Task

__all__ = ["RecordedStep", "recorded_step"]

RecordedStep = Callable[[Theta, Carry, Batch], Carry]

_RECORDED: dict[Any, Any] = {}
_MOST = 512  # programs that are kept; a long run over many shapes should not grow without bound


def recorded_step(learner: Learner, tasks: Task, theta: Theta, carry: Carry, batch: Batch) -> RecordedStep:
    """Return (theta, carry, batch) -> carry, one training step of stacked tasks; bit for bit that of `inner.step.training_step`.

    Args:
        learner, tasks: the step.
        theta, carry, batch: examples, stacked; the step takes tensors of these shapes only.
    """
    leaves, structure = tree_flatten((theta, tasks.numbers, tasks.shared, carry, batch))
    key = (learner, tasks.program, structure, tuple((tuple(x.shape), x.dtype, x.device) for x in leaves))
    if key not in _RECORDED:
        if len(_RECORDED) >= _MOST:
            _RECORDED.pop(next(iter(_RECORDED)))
        _RECORDED[key] = _record(learner, tasks, leaves, structure)
    graph, result = _RECORDED[key]

    def step(theta: Theta, carry: Carry, batch: Batch) -> Carry:
        with torch.no_grad():
            new: Carry = tree_unflatten(graph(*tree_leaves((theta, tasks.numbers, tasks.shared, carry, batch))), result)
        return new

    return step


def _record(learner: Learner, tasks: Task, leaves: list[Tensor], structure: Any) -> tuple[Any, Any]:
    step = training_step(learner, tasks.program, True, False)
    found: list[Any] = []

    def flat_step(*flat: Tensor) -> list[Tensor]:
        new, result = tree_flatten(step(*tree_unflatten(list(flat), structure))[0])
        found.append(result)
        return new

    graph = make_fx(flat_step)(*leaves)
    carry = tree_flatten(tree_unflatten(leaves, structure)[3])[1]
    assert str(found[0]) == str(carry), "a step must return a carry of the same structure and order of entries"
    graph.graph.eliminate_dead_code()
    for node in graph.graph.nodes:
        node.meta.clear()  # notes about the example, which keep its tensors alive
    graph.recompile()
    return graph, found[0]
