"""Clauses about one step of an optimizer: what it takes, which parameters move, and what must not."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from metaopt.testing.contract import Contract, require
from metaopt.testing.optimizer_probe import Make, gap, moved, same, sample_params, take_steps, unmoved, values

__all__ = ["STEP"]

STEP: Contract[Make] = Contract()


@STEP.clause
def torch_optimizer(make: Make) -> None:
    """It is a torch.optim.Optimizer, and every group has `lr`."""
    optimizer = make(sample_params())
    require(isinstance(optimizer, torch.optim.Optimizer), f"type {type(optimizer).__name__}")
    require(all("lr" in group for group in optimizer.param_groups), f"group keys {sorted(optimizer.param_groups[0])}")


@STEP.clause
def ranks(make: Make) -> None:
    """Tensors of rank 0 to 4 move, stay finite, keep their shape, and their gradients are not written to."""
    params = sample_params()
    optimizer, before = make(params), values(params)
    take_steps(optimizer, 0, 3)
    grads = values([param.grad for param in params if param.grad is not None])
    optimizer.step()
    moved(before, params, "after four steps")
    require(all(bool(torch.isfinite(param).all()) for param in params), "a parameter is not finite after four steps")
    same(grads, [param.grad for param in params if param.grad is not None], "gradients after step()")


@STEP.clause
def empty_tensors(make: Make) -> None:
    """A tensor without elements (an empty shard) is accepted and does not change the others' steps."""
    alone, beside = sample_params(shapes=((3, 4),)), sample_params(shapes=((3, 4), (0,), (0, 4)))
    first, second = make(alone), make(beside)
    take_steps(first, 0, 2)
    take_steps(second, 0, 2)
    same(alone, beside[:1], "beside empty tensors")


@STEP.clause
def named_parameters(make: Make) -> None:
    """(name, parameter) pairs give the same steps as parameters."""
    plain, named = sample_params(), sample_params()
    take_steps(make(plain), 0, 2)
    take_steps(make([(f"layer.{place}", param) for place, param in enumerate(named)]), 0, 2)
    same(plain, named, "with names")


@STEP.clause
def group_lr(make: Make) -> None:
    """Each dict group has its own `lr`."""
    frozen, moving = sample_params(), sample_params()
    before = values(moving)
    optimizer = make([{"params": frozen, "lr": 0.0}, {"params": moving}])
    with unmoved(frozen, "the group with lr=0"):
        take_steps(optimizer, 0, 2)
    moved(before, moving, "the other group")


@STEP.clause
def group_weight_decay(make: Make) -> None:
    """Each dict group has its own `weight_decay`."""
    plain, decayed = sample_params(shapes=((3, 4),)), sample_params(shapes=((3, 4),))
    optimizer = make([{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.5}])
    for param in (*plain, *decayed):
        param.grad = torch.ones_like(param)
    optimizer.step()
    moved(plain, decayed, "weight_decay=0.5 against 0")


@STEP.clause
def group_maximize(make: Make) -> None:
    """A group with `maximize` climbs: it takes the step of the opposite gradient."""
    down, up = sample_params(), sample_params()
    take_steps(make([{"params": down, "maximize": False}]), 0, 3)
    take_steps(make([{"params": up, "maximize": True}]), 0, 3, sign=-1.0)
    for a, b in zip(down, up, strict=True):
        require(torch.allclose(a, b, rtol=1e-5, atol=1e-7), f"shape {tuple(a.shape)} differs by {gap(a, b):g}")


@STEP.clause
def closure(make: Make) -> None:
    """step(closure) returns the closure's loss, and runs the closure with gradients enabled."""
    params = sample_params()
    optimizer, before = make(params), values(params)

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        loss = torch.stack([(param**2).sum() for param in params]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    expected = float(evaluate())
    returned = optimizer.step(evaluate)  # type: ignore[arg-type]  # torch's stub wants a float, its own optimizers return what came
    require(returned is not None and float(returned) == expected, f"returned {returned}, the loss is {expected:g}")
    moved(before, params, "after step(closure)")


@STEP.clause
def loss_keyword(make: Make) -> None:
    """step(loss=loss) is accepted, and returns the loss."""
    params = sample_params()
    optimizer = make(params)
    take_steps(optimizer, 0, 1)
    loss = torch.tensor(0.5)
    step: Callable[..., Any] = optimizer.step
    returned = step(loss=loss)
    require(returned is loss, f"returned {returned}")


@STEP.clause
def zero_lr(make: Make) -> None:
    """lr=0 leaves parameters bitwise unchanged, weight decay included."""
    params = sample_params()
    optimizer = make(params)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        if "weight_decay" in group:
            group["weight_decay"] = 0.1
    with unmoved(params, "after a step with zero gradients and lr=0"):  # how torch's distributed loader makes the state
        for param in params:
            param.grad = torch.zeros_like(param)
        optimizer.step()
    with unmoved(params, "after steps with gradients and lr=0"):
        take_steps(optimizer, 0, 2)


@STEP.clause
def add_param_group(make: Make) -> None:
    """A group added after steps starts as a fresh optimizer would, and moves."""
    old, new, fresh = sample_params(), sample_params(shapes=((3, 4),)), sample_params(shapes=((3, 4),))
    optimizer = make(old)
    take_steps(optimizer, 0, 3)
    optimizer.add_param_group({"params": new})
    other = make(fresh)
    before = values(new)
    for param in old:
        param.grad = torch.ones_like(param)
    new[0].grad, fresh[0].grad = torch.ones_like(new[0]), torch.ones_like(fresh[0])
    optimizer.step()
    other.step()
    moved(before, new, "the added group")
    require(torch.allclose(new[0], fresh[0], rtol=1e-5, atol=1e-7), f"first step differs by {gap(new[0], fresh[0]):g} from a fresh one")


@STEP.clause
def zero_grad(make: Make) -> None:
    """zero_grad() drops gradients, zero_grad(set_to_none=False) zeroes them."""
    params = sample_params()
    optimizer = make(params)
    take_steps(optimizer, 0, 1)
    optimizer.zero_grad(set_to_none=False)
    require(all(param.grad is not None and not param.grad.any() for param in params), "a gradient is not zero")
    optimizer.zero_grad()
    require(all(param.grad is None for param in params), "a gradient is still there")


@STEP.clause
def step_hooks(make: Make) -> None:
    """register_step_pre_hook and register_step_post_hook are called once a step."""
    optimizer = make(sample_params())
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    take_steps(optimizer, 0, 2)
    require(calls == ["pre", "post"] * 2, f"calls {calls}")


@STEP.clause
def scheduler(make: Make) -> None:
    """An LRScheduler multiplies the step: factor 0 stops it, factor 1 lets it go on."""
    params = sample_params()
    optimizer = make(params)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda count: float(count != 1))
    for active in (True, False, True):
        before = values(params)
        take_steps(optimizer, 0, 1)
        if active:
            moved(before, params, "with factor 1")
        else:
            same(before, params, "with factor 0")
        schedule.step()
    torch.optim.lr_scheduler.OneCycleLR(make(sample_params()), max_lr=1e-3, total_steps=4, cycle_momentum=False)


@STEP.clause
def frozen_and_unused(make: Make) -> None:
    """Frozen parameters and those without gradient stay as they are, and may join later."""
    params = sample_params()
    params[1].requires_grad_(False)
    optimizer = make(params)
    before = values(params)
    for place, param in enumerate(params):
        param.grad = None if place in (1, 3) else torch.ones_like(param)
    optimizer.step()
    same([before[1], before[3]], [params[1], params[3]], "without gradient")
    moved([before[0], before[4]], [params[0], params[4]], "beside them")
    params[3].grad = torch.ones_like(params[3])
    optimizer.step()
    moved([before[3]], [params[3]], "when its gradient came")


@STEP.clause
def tied_weights(make: Make) -> None:
    """Parameters change in place, so that tied weights and views stay tied."""
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    view, before = first.weight.detach().view(-1), values([first.weight])
    optimizer = make(nn.ModuleList([first, second]).parameters())
    take_steps(optimizer, 0, 1)
    moved(before, [second.weight], "the tied weight")
    require(torch.equal(view, second.weight.detach().view(-1)), "the storage was replaced")


@STEP.clause
def sparse_gradients(make: Make) -> None:
    """A sparse gradient is used, or refused with the word 'sparse' before anything changes."""
    table, dense = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(2))
    optimizer = make([dense, table])
    dense.grad = torch.ones(2)
    table.grad = torch.sparse_coo_tensor(torch.tensor([[1]]), torch.ones(1, 3), (4, 3))
    before = values([dense, table])
    try:
        optimizer.step()
    except (RuntimeError, TypeError, ValueError) as error:
        require("sparse" in str(error).lower(), f"{type(error).__name__}: {error}")
        same(before, [dense, table], "after the refusal")
    else:
        require(not torch.equal(before[1][1], table[1]), "the row with a gradient did not move")


@STEP.clause
def non_finite_gradients(make: Make) -> None:
    """NaN in one tensor's gradient neither stops nor changes the steps of the other tensors."""
    clean, hit = sample_params(shapes=((3, 4), (3, 4), (5,))), sample_params(shapes=((3, 4), (3, 4), (5,)))
    first, second = make(clean), make(hit)
    take_steps(first, 0, 2)
    for params, optimizer in ((clean, first), (hit, second)):
        if optimizer is second:
            take_steps(second, 0, 2)
            params[0].grad = torch.full_like(params[0], math.nan)
        optimizer.step()
    same(clean[1:], hit[1:], "beside a NaN gradient")


@STEP.clause
def deterministic(make: Make) -> None:
    """step() draws no global random numbers: every rank makes the same update."""
    left, right = sample_params(), sample_params()
    first, second = make(left), make(right)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        take_steps(first, 0, 2)
        torch.manual_seed(2)
        state = torch.get_rng_state()
        take_steps(second, 0, 2)
        require(torch.equal(state, torch.get_rng_state()), "the global generator has moved")
    same(left, right, "under another global seed")
