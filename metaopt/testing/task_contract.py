"""What the runner expects of a task, as clauses that run on any task."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metaopt import inner, learners, seeds
from metaopt.tasks import Task, stack_tasks
from metaopt.testing.contract import Contract, require
from metaopt.testing.global_randomness import global_randomness

__all__ = ["TASK_CLAUSES", "check_task"]

TASK: Contract[Task] = Contract()
_NEAR_ONE = (0.2, 5.0)
_STEPS, _RATES = 60, (1e-3, 1e-2, 1e-1)
_CLOSE = 1e-4
_LOOSE = 1e-3  # what is looked for is another result, not another rounding
_SOME_STEPS = (1, 2, 3, 10, 100, 1000)


def _key(i: int) -> Tensor:
    return seeds.key("check_task", i)


def _layout(batch: dict[str, Tensor]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in batch.items()}


def _same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@TASK.clause
def static(task: Task) -> None:
    """Its program is hashable, equal to itself, and its cap is above 1; its horizon is at least 1."""
    hash(task.program)
    require(task.program == task.program and task.program.cap > 1, f"cap {task.program.cap}")
    require(float(task.horizon) >= 1, f"horizon {float(task.horizon)}")


@TASK.clause
def isolated(task: Task) -> None:
    """Weights, batches and losses neither follow nor move the global generators of torch, numpy and `random`."""

    def everything() -> Any:
        params, batches = task.init(_key(0)), [task.batch(_key(0), torch.tensor(3)), task.heldout(_key(0), torch.tensor(3))]
        return params, batches, [task.loss(params, batch) for batch in batches]

    touched = global_randomness(everything)
    require(not touched, f"it {', '.join(touched)}")


@TASK.clause
def pure(task: Task) -> None:
    """Weights and batches are functions of key and step: the same bits for the same ones, whatever the global generator did."""
    t = torch.tensor(3)
    draws: list[list[dict[str, Tensor]]] = []
    for i in range(2):
        torch.manual_seed(i)
        draws.append([task.init(_key(0)), task.batch(_key(0), t), task.heldout(_key(0), t)])
    for name, one, two in zip(("init", "batch", "heldout"), *draws, strict=True):
        require(_same(one, two), f"another {name} at the second call")
    require(not _same(draws[0][0], task.init(_key(1))), "the same weights for another key")


@TASK.clause
def finite_data(task: Task) -> None:
    """Its data, its numbers, fresh weights and batches hold no NaN and no infinity."""
    t = torch.tensor(3)
    groups = {"shared": task.shared, "numbers": task.numbers, "weights": task.init(_key(0))}
    groups |= {"batch": task.batch(_key(0), t), "held-out batch": task.heldout(_key(0), t)}
    for group, tensors in groups.items():
        for name, value in tensors.items():
            bad = int((~torch.isfinite(value)).sum()) if value.is_floating_point() else 0
            require(bad == 0, f"{bad} of {value.numel()} entries of {group} {name!r} that are not finite")


@TASK.clause
def shapes(task: Task) -> None:
    """Batches have the same entries, shapes and dtypes at every step and under every key."""
    for name, draw in (("batch", task.batch), ("held-out batch", task.heldout)):
        first = _layout(draw(_key(0), torch.tensor(0)))
        for t in _SOME_STEPS:
            for i in range(2):
                layout = _layout(draw(_key(i), torch.tensor(t)))
                require(layout == first, f"a {name} of {layout} at step {t} after {first} at step 0")


@TASK.clause
def scalar(task: Task) -> None:
    """The loss is one number, 0-d and floating, on a training and on a held-out batch."""
    params = task.init(_key(0))
    for batch in (task.batch(_key(0), torch.tensor(0)), task.heldout(_key(0), torch.tensor(0))):
        loss: object = task.loss(params, batch)
        observed = f"{tuple(loss.shape)}, {loss.dtype}" if isinstance(loss, Tensor) else type(loss).__name__
        require(isinstance(loss, Tensor) and loss.dim() == 0 and loss.is_floating_point(), f"a loss of {observed}")


@TASK.clause
def finite_loss(task: Task) -> None:
    """The loss of fresh weights is finite, whatever the key."""
    for i in range(8):
        params = task.init(_key(i))
        for name, batch in (("training", task.batch(_key(i), torch.tensor(i))), ("held-out", task.heldout(_key(i), torch.tensor(i)))):
            loss = task.loss(params, batch)
            require(bool(torch.isfinite(loss)), f"{float(loss)} on the {name} batch of key {i}")


@TASK.clause
def differentiable(task: Task) -> None:
    """The loss on a training and on a held-out batch is a finite scalar with finite derivatives for every weight."""
    for batch in (task.batch(_key(0), torch.tensor(0)), task.heldout(_key(0), torch.tensor(0))):
        grads, loss = torch.func.grad_and_value(task.loss)(task.init(_key(0)), batch)
        require(loss.dim() == 0 and bool(torch.isfinite(loss)), f"loss {loss}")
        for name, grad in grads.items():
            require(bool(torch.isfinite(grad).all()), f"a derivative for {name} that is not finite")


@TASK.clause
def normalised(task: Task) -> None:
    """The normalised loss is about 1 at initialisation, at most the cap, and the cap where the loss is not finite."""
    losses = [task.normalise(task.loss(task.init(_key(i)), task.heldout(_key(i), torch.tensor(0)))) for i in range(8)]
    mean = float(torch.stack(losses).mean())
    require(_NEAR_ONE[0] < mean < _NEAR_ONE[1], f"a mean of {mean:.3g} over eight initialisations")
    for bad in ("inf", "-inf", "nan"):
        value = float(task.normalise(task.horizon.new_tensor(float(bad))))
        require(value == task.program.cap, f"{value} for a loss of {bad}, cap {task.program.cap}")


@TASK.clause
def precision(task: Task) -> None:
    """Moved to float64, it has float64 weights and losses, close to those in float32."""
    fine = task.to(dtype=torch.float64)
    loss = fine.loss(fine.init(_key(0)), fine.heldout(_key(0), torch.tensor(0)))
    require(loss.dtype == torch.float64, f"loss {loss.dtype}")
    require(all(value.dtype == torch.float64 for value in fine.init(_key(0)).values()), "weights in another dtype")


@TASK.clause
def vmappable(task: Task) -> None:
    """Weights, batches, losses, their gradients and the normaliser run under `torch.func.vmap` over keys, with what they give alone."""

    def one(key: Tensor, t: Tensor) -> Any:
        params, batch = fine.init(key), fine.batch(key, t)
        grads, loss, _ = fine.gradients(params, batch, fine.gradient_state(params))
        return params, batch, loss, grads, fine.normalise(loss), fine.loss(params, fine.heldout(key, t))

    fine = task.to(dtype=torch.float64)  # a derivative that ought to be zero is all rounding in float32
    keys, steps = torch.stack([_key(0), _key(1)]), torch.tensor([0, 5])
    together = tree_leaves(torch.func.vmap(one)(keys, steps))
    for i in range(2):
        for row, alone in zip(together, tree_leaves(one(keys[i], steps[i])), strict=True):
            gap = float((row[i].double() - alone.double()).abs().max() / alone.double().abs().max().clamp(min=1e-6)) if alone.numel() else 0
            require(gap < _LOOSE, f"a result {tuple(alone.shape)} that differs by {gap:.1e} of its size")


@TASK.clause
def stacks(task: Task) -> None:
    """Stacked with itself it gives each particle the run that it has alone."""
    stacked = stack_tasks([task, task])
    require(all(value.shape[0] == 2 for value in stacked.numbers.values()), "numbers without a leading axis")
    learner: Any = learners.get("sgd", lr=1e-3)
    together, alone = inner.run(learner, {}, [task, task], [1, 2], 3).loss, inner.run(learner, {}, [task], [2], 3).loss
    gap = float(((together[:, 1] - alone[:, 0]) / alone[:, 0].abs().clamp(min=1e-6)).abs().max())
    require(gap < _CLOSE, f"losses that differ by {gap:.1e} of their size")


@TASK.clause
def learnable(task: Task) -> None:
    """Adam at the best of three rates lowers the held-out loss by a tenth within 60 steps."""
    rates = {"lr": torch.tensor(_RATES, device=task.horizon.device)}
    trace = inner.run(learners.get("adam"), rates, [task] * len(_RATES), [0] * len(_RATES), _STEPS, _STEPS, theta_stacked=True)
    first, best = float(trace.eval_loss[0, 0]), float(trace.eval_loss[-1].min())
    require(best < 0.9 * first, f"from {first:.3g} to {best:.3g} at the best")


TASK_CLAUSES = TASK.sentences


def check_task(task: Task, *, skip: Collection[str] = (), only: Collection[str] | None = None) -> tuple[str, ...]:
    """Check every clause of `TASK_CLAUSES` on a task and return the names of those that were checked.

    Raises:
        ContractError: the first clause that is broken, with what was observed.
        ConfigError: a clause of that name does not exist.
    """
    return TASK.check(task, skip, only)
