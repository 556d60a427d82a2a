"""Towers: optimizers that learn the hyperparameters of the optimizer below them from its hypergradients.

Legend: S scopes (one, one a group or one a tensor; each has a tower of its own), J learned hyperparameters of the base optimizer, H levels,
n columns of a level: J at level 0, its one rate at those above.

Level 0 moves the J hyperparameters of the base; level l + 1 moves the rate of level l. With everything else held constant (one-step,
greedy), the derivative of the loss at theta_t in a hyperparameter h of the step that led there is `g_t . d theta_t / d h`: for a rate,
`-g_t . u_{t-1}`. One level up, the derivative in the rate k of level l is `s_t . d h_t / d k = -s_t D_{t-1}`, with `s` the derivative that
level l gets and `D` the direction in which it moved. The top moves first, so that each level uses the rate that has just been learned.

How a level moves a value h by its rate k and its direction D:

| update | step | derivative that the direction is made of |
|---|---|---|
| `additive` | h - k D | d loss / d h |
| `multiplicative` | h (1 - k D): exponentiated gradient | d loss / d h |
| `cosine` | h (1 - k D) | its cosine: between gradient and step, in [-1, 1] |

to first order; the coordinate of the value moves by exactly that, and by at most `Link.most`. With `identity` the first two are exact.

Source: Baydin et al., 2018, "Online learning rate adaptation with hypergradient descent" (1703.04782); Chandra et al., 2022, "Gradient
descent: the ultimate optimizer" (1909.13371). Differs: no graph is kept, because one-step derivatives need none; the step in the value is
taken in a link's coordinate; steps and values have bounds; published `square` towers take their step in the coordinate itself.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metaopt.learners.hypergradients.links import Link
from metaopt.learners.update_rules.rule import UpdateRule

__all__ = ["UPDATES", "Learned", "Tower", "TowerState", "Update", "signal"]

Update = Literal["additive", "multiplicative", "cosine"]
UPDATES: tuple[Update, ...] = ("additive", "multiplicative", "cosine")
TowerState = dict[str, Tensor]

_RATES = (1e-30, 1e10)  # the rates of levels: nobody wants others, and nothing overflows between these


@dataclass(frozen=True)
class Learned:
    """A hyperparameter that is learned: its name, its link, and the values between which it stays."""

    name: str
    link: Link
    low: float
    high: float

    @functools.cached_property
    def ends(self) -> tuple[float, float]:
        """The coordinates of `low` and `high`."""
        low, high = (float(self.link.to(torch.tensor(end, dtype=torch.float64))) for end in (self.low, self.high))
        return low, high


def signal(update: Update, dot: Tensor, grad_square: Tensor, change_square: Tensor) -> Tensor:
    """Return what level 0 gets [S, J], from `dot` = gradient . (d parameters / d hyperparameter) and the squared norms of both.

    Args:
        update: cosine divides by the norms; nothing to divide by gives 0.
        dot, change_square: [S, J] float64.
        grad_square: [S] float64.
    """
    if update != "cosine":
        return dot
    scale = torch.sqrt(grad_square[..., None]) * torch.sqrt(change_square)
    return torch.where(scale == 0, dot * 0.0, dot / torch.where(scale == 0, 1.0, scale))


@dataclass(frozen=True)
class Tower:
    """What is learned, and by what; its methods are pure functions of a state, under vmap too.

    Attributes:
        learned: J hyperparameters of the base.
        parts: H update rules with a rate each, lowest first; the rate of all but the last is learned.
        update: how values move.
        link: of the rates of the levels.
    """

    learned: tuple[Learned, ...]
    parts: tuple[UpdateRule, ...]
    update: Update
    link: Link

    @functools.cached_property
    def columns(self) -> tuple[tuple[Learned, ...], ...]:
        """What each level moves, and last the rate of the top, which nothing moves."""
        low, high = (max(_RATES[0], self.link.low), _RATES[1]) if self.link.low >= 0 else (self.link.low, self.link.high)
        return (self.learned, *([(Learned("rate", self.link, low, high),)] * len(self.parts)))

    def start(self, values: Mapping[str, Tensor], rates: Sequence[Tensor] | None = None) -> TowerState:
        """Return the state before the first step, float64.

        Args:
            values: [S] for each learned hyperparameter.
            rates: [S] for each level, where they differ from the parts' own.
        """
        first = torch.stack([values[one.name].double() for one in self.learned], -1)
        own = [torch.full_like(first[..., :1], part.hyperparameters["lr"]) for part in self.parts]
        levels = [first, *(own if rates is None else [rate.double()[..., None] for rate in rates])]
        state = {"seen": torch.zeros_like(first[..., :1]), "skipped": torch.zeros_like(first[..., 0])}
        for level, (value, columns) in enumerate(zip(levels, self.columns, strict=True)):
            state[f"x{level}"] = _each([one.link.to for one in columns], value)
        for level, part in enumerate(self.parts):
            state[f"direction{level}"] = torch.zeros_like(levels[level])
            state |= _numbered(part.init_state(levels[level]), level)
        return state

    def values(self, state: TowerState) -> dict[str, Tensor]:
        """Return the present value [S] of each learned hyperparameter."""
        value = self._level(state, 0)
        return {one.name: value[..., j] for j, one in enumerate(self.learned)}

    def rates(self, state: TowerState) -> list[Tensor]:
        """Return the present rate [S] of each level, lowest first."""
        return [self._level(state, level + 1)[..., 0] for level in range(len(self.parts))]

    def observe(self, state: TowerState, signals: Tensor) -> TowerState:
        """Return the state after one step of every level; a scope with a signal that is not finite is left as it is, and counted.

        Args:
            state: as `start` or the last call returned it.
            signals: [S, J] float64, as `signal` gives them.
        """
        usable = torch.isfinite(signals).all(-1, keepdim=True)
        new = self.advance(state, torch.where(usable, signals, 0.0))
        held = {name: torch.where(usable, value, state[name]) for name, value in new.items() if name != "skipped"}
        return held | {"skipped": state["skipped"] + (~usable[..., 0]).double()}

    def advance(self, state: TowerState, signals: Tensor) -> TowerState:
        """Return the same for signals that are all finite, in a third of the operations: what a drop-in knows on the host."""
        at = [signals]
        for level in range(len(self.parts) - 1):
            change = -state[f"direction{level}"]
            change = change * self._level(state, level) if self.update == "multiplicative" else change
            at.append((at[level] * change).sum(-1, keepdim=True))
        new = dict(state)
        for level, part in reversed(list(enumerate(self.parts))):
            x = state[f"x{level}"]
            kept = {name: state[f"{name}{level}"] for name in part.init_state(x)}
            direction, kept = part.update({}, x, at[level], kept, state["seen"])
            new[f"x{level}"] = self._moved(x, level, self._level(new, level + 1) * direction)
            new |= {f"direction{level}": direction, **_numbered(kept, level)}
        return new | {"seen": state["seen"] + 1}

    def _level(self, state: TowerState, level: int) -> Tensor:
        return _each([one.link.value for one in self.columns[level]], state[f"x{level}"])

    def _moved(self, x: Tensor, level: int, step: Tensor) -> Tensor:
        """Return the coordinates [S, n] of a level after a step in its values, absolute or relative."""
        columns = self.columns[level]
        if self.update == "additive":
            move = step / _each([one.link.slope for one in columns], x)
        else:
            move = step * _each([one.link.relative for one in columns], x)
        move = _each([functools.partial(torch.clamp, min=-one.link.most, max=one.link.most) for one in columns], move)
        # 0 / 0, where a slope vanishes, and what overflows under a link without a limit are no steps.
        move = torch.nan_to_num(move, nan=0.0, posinf=0.0, neginf=0.0)
        return _each([functools.partial(torch.clamp, min=one.ends[0], max=one.ends[1]) for one in columns], x - move)


def _each(functions: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    """Return one function a column of x [S, n]."""
    if len(set(functions)) == 1:
        return functions[0](x)
    return torch.stack([function(x[..., j]) for j, function in enumerate(functions)], -1)


def _numbered(state: Mapping[str, Tensor], level: int) -> TowerState:
    return {f"{name}{level}": value for name, value in state.items()}
