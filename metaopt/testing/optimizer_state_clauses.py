"""Clauses about an optimizer's state: counting, saving, copying, and what 16-bit parameters need."""

import copy
import io
import math

import torch
from torch import Tensor, nn

from metaopt.testing.contract import Contract, require
from metaopt.testing.optimizer_probe import Make, all_params, gap, same, sample_params, take_steps, unmoved, values

__all__ = ["STATE"]

STATE: Contract[Make] = Contract()


@STATE.clause
def step_counter(make: Make) -> None:
    """Each parameter's state counts its own updates under the key `step`."""
    params = sample_params()
    optimizer = make(params)
    take_steps(optimizer, 0, 2)
    params[0].grad = None
    optimizer.step()
    counts = [float(optimizer.state[param].get("step", math.nan)) for param in params]
    require(counts == [2.0, *[3.0] * (len(params) - 1)], f"{counts} after 3 steps, of which the first parameter missed one")


@STATE.clause
def resume(make: Make) -> None:
    """A fresh optimizer that loads a saved state_dict continues bit for bit."""
    params = sample_params()
    optimizer = make(params)
    take_steps(optimizer, 0, 3)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = [nn.Parameter(value) for value in values(params)]
    second = make(again)
    second.load_state_dict(torch.load(file, weights_only=True))
    take_steps(optimizer, 3, 3)
    take_steps(second, 3, 3)
    same(params, again, "three steps after loading")


@STATE.clause
def state_dtypes(make: Make) -> None:
    """load_state_dict keeps the dtype and value of every state tensor, with bfloat16 parameters too."""
    params = sample_params(torch.bfloat16)
    optimizer = make(params)
    take_steps(optimizer, 0, 3)
    second = make(sample_params(torch.bfloat16))
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    require(bool(optimizer.state[params[0]]), "there is no state to keep")
    kept = {key: value for key, value in optimizer.state[params[0]].items() if isinstance(value, Tensor) and key != "step"}
    require(any(value.dtype == torch.float32 for value in kept.values()), "no accumulator is float32, they have the dtype of the parameter")
    for param, other in zip(params, all_params(second), strict=True):
        for key, value in optimizer.state[param].items():
            loaded = second.state[other][key]
            if isinstance(value, Tensor):
                require(loaded.dtype == value.dtype, f"{key} was {value.dtype}, is {loaded.dtype}")
                require(torch.equal(loaded, value), f"{key} differs by {gap(loaded, value):g}")


@STATE.clause
def deepcopy(make: Make) -> None:
    """A deep copy of parameters and optimizer goes on alone, and like the original."""
    params = sample_params()
    optimizer = make(params)
    take_steps(optimizer, 0, 2)
    twin_params, twin = copy.deepcopy((params, optimizer))
    with unmoved(params, "the original, while its copy steps"):
        take_steps(twin, 2, 2)
    take_steps(optimizer, 2, 2)
    same(params, twin_params, "the copy after two steps")


@STATE.clause
def serialisable(make: Make) -> None:
    """The optimizer object itself can be written, as it is when it travels to another process."""
    optimizer = make(sample_params())
    take_steps(optimizer, 0, 1)
    torch.save(optimizer, io.BytesIO())


@STATE.clause
def grad_scaler(make: Make) -> None:
    """GradScaler skips a whole step on overflow, and otherwise gives the unscaled step."""
    params, plain = sample_params(), sample_params()
    optimizer, reference = make(params), make(plain)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for overflow in (False, True, False):
        for place, (param, other) in enumerate(zip(params, plain, strict=True)):
            grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(place))
            other.grad = grad.clone()
            param.grad = grad * scaler.scale(torch.ones(()))
            if overflow and place == 0:
                param.grad = torch.full_like(grad, math.inf)
        scaler.step(optimizer)
        scaler.update()
        if not overflow:
            reference.step()
        same(params, plain, "after an overflow" if overflow else "after a scaled step")


@STATE.clause
def low_precision(make: Make) -> None:
    """bfloat16 parameters move, stay finite and stay bfloat16."""
    params = sample_params(torch.bfloat16)
    optimizer = make(params)
    take_steps(optimizer, 0, 8)
    require(all(param.dtype == torch.bfloat16 for param in params), "a parameter changed its dtype")
    require(all(bool(torch.isfinite(param).all()) for param in params), "a parameter is not finite after eight steps")


@STATE.clause
def small_steps(make: Make) -> None:
    """Steps far below the resolution of a bfloat16 parameter add up."""
    resolution, count = 2.0**-7, 60  # of bfloat16 at 1

    def travelled(dtype: torch.dtype, lr: float | None) -> tuple[float, float]:
        param = nn.Parameter(torch.ones(4, 4, dtype=dtype))
        optimizer = make([param])
        rate = float(optimizer.param_groups[0]["lr"])
        for group in optimizer.param_groups:
            group["lr"] = rate if lr is None else lr
        for _ in range(1 if lr is None else count):
            param.grad = torch.ones_like(param)
            optimizer.step()
        return float(1.0 - param.detach().double().mean()), rate

    one, rate = travelled(torch.float32, None)
    lr = 0.05 * resolution / max(abs(one), 1e-12) * rate
    exact, _ = travelled(torch.float32, lr)
    rounded, _ = travelled(torch.bfloat16, lr)
    require(abs(exact - rounded) <= resolution, f"moved {rounded:g} where float32 moved {exact:g}, in {count} steps")
