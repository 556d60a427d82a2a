"""Steps of SGD, Adam, AdamW, RMSProp and Lion with the derivatives of their directions, in closed form, on lists of tensors in place.

A step is theta <- theta - rate * u. With what the last step left (accumulators, parameters, gradient) held constant, the derivative of
theta in the rate is -u, in any other hyperparameter h it is -rate * du/dh. `out` names what is wanted: `out["lr"]` is overwritten by u,
`out[h]` by du/dh. Legend: s = sqrt(v / c2) and d = s + eps of Adam, c1 = 1 - beta1^t and c2 = 1 - beta2^t, t counting from 1.

Operations come in the order of `torch.optim`, so that equal rates give equal bits. `rate` 0 moves nothing, whatever the gradient is.

Source: the update equations in the documentation of `torch.optim`; Chen et al., 2023, "Symbolic discovery of optimization algorithms"
(2302.06675, Lion); the derivatives are worked out here, and checked against central differences in `tests/optim`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BASE_STEPS", "BaseStep", "adam", "adamw", "lion", "lion_direction", "rmsprop", "sgd", "sgd_direction"]

_LEAST = 2.0**-53
Hypers = Mapping[str, float]
Lists = Mapping[str, list[Tensor]]


def sgd_direction(h: Hypers, params: list[Tensor], grads: list[Tensor], state: Lists, out: Lists) -> list[Tensor]:
    """Return u of SGD, and write buffers and derivatives; `h` has momentum, weight_decay and nesterov (0 or 1).

    `state["momentum_buffer"]` is there where there is momentum; it begins at 0. Without Nesterov it is u.
    """
    grads = _decayed(h, params, grads)
    if "weight_decay" in out:
        torch._foreach_copy_(out["weight_decay"], params)
    direction = grads
    if "momentum_buffer" in state:
        direction = buffers = state["momentum_buffer"]
        if "momentum" in out:
            torch._foreach_copy_(out["momentum"], buffers)
        torch._foreach_mul_(buffers, h["momentum"])
        torch._foreach_add_(buffers, grads)
        if h["nesterov"]:
            direction = list(torch._foreach_add(grads, buffers, alpha=h["momentum"]))
            if "momentum" in out:
                torch._foreach_mul_(out["momentum"], h["momentum"])
                torch._foreach_add_(out["momentum"], buffers)
            if "weight_decay" in out:
                torch._foreach_mul_(out["weight_decay"], 1 + h["momentum"])
    if "lr" in out:
        torch._foreach_copy_(out["lr"], direction)
    return direction


def sgd(h: Hypers, rate: float, t: int, params: list[Tensor], grads: list[Tensor], state: Lists, out: Lists) -> None:
    """Take a step of SGD."""
    direction = sgd_direction(h, params, grads, state, out)
    if rate:
        torch._foreach_add_(params, direction, alpha=-rate)


def adam(
    h: Hypers, rate: float, t: int, params: list[Tensor], grads: list[Tensor], state: Lists, out: Lists, *, decoupled: bool = False
) -> None:
    """Take a step of Adam, number t >= 1 of these tensors, from moments that are 0 at t = 1; `decoupled` weight decay is that of AdamW."""
    means, squares, beta1, beta2 = state["exp_avg"], state["exp_avg_sq"], h["beta1"], h["beta2"]
    # A beta of exactly 1, which links without an end above may reach, has no corrections: nothing finite is right, but nothing may raise.
    c1, c2 = max(1 - beta1**t, _LEAST), max(1 - beta2**t, _LEAST)
    grads = grads if decoupled else _decayed(h, params, grads)
    if "beta1" in out:  # d means
        torch._foreach_copy_(out["beta1"], means)
        torch._foreach_sub_(out["beta1"], grads)
    _before_squares(out.get("beta2"), squares, grads)
    torch._foreach_lerp_(means, grads, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)

    roots = list(torch._foreach_sqrt(squares))
    torch._foreach_div_(roots, c2**0.5)
    through_roots = "beta2" in out or ("weight_decay" in out and not decoupled)
    denominators = list(torch._foreach_add(roots, h["eps"])) if through_roots else roots
    if not through_roots:
        torch._foreach_add_(denominators, h["eps"])
    if set(out) - ({"weight_decay"} if decoupled else set()):
        units = out["lr"] if "lr" in out else [torch.empty_like(mean) for mean in means]
        _divide(means, denominators, units)
        if c1 != 1.0:
            torch._foreach_mul_(units, 1 / c1)
        _after_eps(out.get("eps"), units, denominators)
        if "beta1" in out:  # dm / (c1 d) + u t beta1^(t - 1) / c1
            torch._foreach_div_(out["beta1"], denominators)
            torch._foreach_mul_(out["beta1"], 1 / c1)
            torch._foreach_add_(out["beta1"], units, alpha=t * beta1 ** (t - 1) / c1)
        if "beta2" in out:  # d (v / c2)
            torch._foreach_mul_(out["beta2"], 1 / c2)
            torch._foreach_add_(out["beta2"], squares, alpha=t * beta2 ** (t - 1) / c2**2)
            _after_squares(out["beta2"], units, roots, denominators)
        if "weight_decay" in out and not decoupled:
            _through_gradient(out["weight_decay"], units, grads, roots, denominators, params, (1 - beta1) / c1, (1 - beta2) / c2)
    if t == 1:  # the corrections undo the betas exactly; what is left is rounding, of which a cosine would make a whole step
        for name in {"beta1", "beta2"} & out.keys():
            torch._foreach_zero_(out[name])
    if decoupled:
        if "lr" in out and h["weight_decay"]:  # the last reader of `units`
            torch._foreach_add_(out["lr"], params, alpha=h["weight_decay"])
        if "weight_decay" in out:
            torch._foreach_copy_(out["weight_decay"], params)
        if rate and h["weight_decay"]:
            torch._foreach_mul_(params, 1 - rate * h["weight_decay"])
    if rate:
        torch._foreach_addcdiv_(params, means, denominators, value=(rate / c1) * -1)


def adamw(h: Hypers, rate: float, t: int, params: list[Tensor], grads: list[Tensor], state: Lists, out: Lists) -> None:
    """Take a step of AdamW, number t >= 1 of these tensors."""
    adam(h, rate, t, params, grads, state, out, decoupled=True)


def rmsprop(h: Hypers, rate: float, t: int, params: list[Tensor], grads: list[Tensor], state: Lists, out: Lists) -> None:
    """Take a step of RMSProp; where there is momentum, `state["momentum_buffer"]` is u."""
    squares, alpha = state["square_avg"], h["alpha"]
    grads = _decayed(h, params, grads)
    _before_squares(out.get("alpha"), squares, grads)
    torch._foreach_mul_(squares, alpha)
    torch._foreach_addcmul_(squares, grads, grads, value=1 - alpha)
    roots = list(torch._foreach_sqrt(squares))
    through_roots = "alpha" in out or "weight_decay" in out
    denominators = list(torch._foreach_add(roots, h["eps"])) if through_roots else roots
    if not through_roots:
        torch._foreach_add_(denominators, h["eps"])
    buffers = state.get("momentum_buffer")
    if out:
        units = out["lr"] if "lr" in out else [torch.empty_like(grad) for grad in grads]
        _divide(grads, denominators, units)
        _after_eps(out.get("eps"), units, denominators)
        if "alpha" in out:
            _after_squares(out["alpha"], units, roots, denominators)
        if "weight_decay" in out:
            _through_gradient(out["weight_decay"], units, grads, roots, denominators, params, 1.0, 1 - alpha)
        if "momentum" in out and buffers is not None:
            torch._foreach_copy_(out["momentum"], buffers)
    if buffers is None:
        if rate:
            torch._foreach_addcdiv_(params, grads, denominators, value=-rate)
        return
    torch._foreach_mul_(buffers, h["momentum"])
    torch._foreach_addcdiv_(buffers, grads, denominators)
    if "lr" in out:
        torch._foreach_copy_(out["lr"], buffers)
    if rate:
        torch._foreach_add_(params, buffers, alpha=-rate)


def lion_direction(h: Hypers, params: list[Tensor], grads: list[Tensor], state: Lists, out: Lists) -> list[Tensor]:
    """Return u of Lion, and write its mean and derivatives."""
    means = state["exp_avg"]
    direction = list(torch._foreach_lerp(means, grads, 1 - h["beta1"]))
    torch._foreach_sign_(direction)
    torch._foreach_lerp_(means, grads, 1 - h["beta2"])
    if h["weight_decay"]:
        torch._foreach_add_(direction, params, alpha=h["weight_decay"])
    if "weight_decay" in out:
        torch._foreach_copy_(out["weight_decay"], params)
    if "lr" in out:
        torch._foreach_copy_(out["lr"], direction)
    return direction


def lion(h: Hypers, rate: float, t: int, params: list[Tensor], grads: list[Tensor], state: Lists, out: Lists) -> None:
    """Take a step of Lion."""
    direction = lion_direction(h, params, grads, state, out)
    if rate:
        torch._foreach_add_(params, direction, alpha=-rate)


@dataclass(frozen=True)
class BaseStep:
    """A base optimizer.

    Attributes:
        step: (h, rate, t, params, grads, state, out) in place.
        direction: its first half, (h, params, grads, state, out) -> u, where u alone moves the parameters: with nothing but the rate
            learned, it may run before the rate is known.
        accumulators: of every parameter; `momentum_buffer` comes on top where there is momentum.
        hyperparameters: names of what it takes and could learn.
    """

    step: Callable[[Hypers, float, int, list[Tensor], list[Tensor], Lists, Lists], None]
    direction: Callable[[Hypers, list[Tensor], list[Tensor], Lists, Lists], list[Tensor]] | None
    accumulators: tuple[str, ...]
    hyperparameters: tuple[str, ...]


_ADAM = ("lr", "beta1", "beta2", "eps", "weight_decay")
BASE_STEPS = {
    "sgd": BaseStep(sgd, sgd_direction, (), ("lr", "momentum", "weight_decay")),
    "adam": BaseStep(adam, None, ("exp_avg", "exp_avg_sq"), _ADAM),
    "adamw": BaseStep(adamw, None, ("exp_avg", "exp_avg_sq"), _ADAM),
    "rmsprop": BaseStep(rmsprop, None, ("square_avg",), ("lr", "alpha", "eps", "weight_decay", "momentum")),
    "lion": BaseStep(lion, lion_direction, ("exp_avg",), ("lr", "beta1", "beta2", "weight_decay")),
}


def _decayed(h: Hypers, params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
    return list(torch._foreach_add(grads, params, alpha=h["weight_decay"])) if h["weight_decay"] else grads


def _divide(numerators: list[Tensor], denominators: list[Tensor], out: list[Tensor]) -> None:
    """Write quotients in one pass over memory; a copy that is then divided in place takes two."""
    for numerator, denominator, one in zip(numerators, denominators, out, strict=True):
        torch.div(numerator, denominator, out=one)


def _before_squares(out: list[Tensor] | None, squares: list[Tensor], grads: list[Tensor]) -> None:
    """Write d squares / d decay = squares - grads^2, which the update of `squares` will overwrite."""
    if out is not None:
        torch._foreach_copy_(out, squares)
        torch._foreach_addcmul_(out, grads, grads, value=-1)


def _after_squares(out: list[Tensor], units: list[Tensor], roots: list[Tensor], denominators: list[Tensor]) -> None:
    """Turn the derivative of the squares into that of u = a / (sqrt(v) + eps): -u / d / (2 s) times it, 0 where v is 0."""
    torch._foreach_mul_(out, _inverse(roots))
    torch._foreach_mul_(out, units)
    torch._foreach_div_(out, denominators)
    torch._foreach_mul_(out, -0.5)


def _after_eps(out: list[Tensor] | None, units: list[Tensor], denominators: list[Tensor]) -> None:
    """Write du / d eps = -u / d."""
    if out is not None:
        torch._foreach_copy_(out, units)
        torch._foreach_div_(out, denominators)
        torch._foreach_neg_(out)


def _through_gradient(
    out: list[Tensor],
    units: list[Tensor],
    grads: list[Tensor],
    roots: list[Tensor],
    denominators: list[Tensor],
    params: list[Tensor],
    first: float,
    second: float,
) -> None:
    """Write du / d weight_decay = (first - second u g / s) theta / d: the decay changes the gradient by theta, and so both moments."""
    torch._foreach_copy_(out, units)
    torch._foreach_mul_(out, grads)
    torch._foreach_mul_(out, _inverse(roots))
    torch._foreach_mul_(out, -second)
    torch._foreach_add_(out, first)
    torch._foreach_mul_(out, params)
    torch._foreach_div_(out, denominators)


def _inverse(roots: list[Tensor]) -> list[Tensor]:
    """Return 1 / s, and 0 where s is 0: there a weight never had a gradient."""
    return [torch.where(root > 0, root.reciprocal(), 0.0) for root in roots]
