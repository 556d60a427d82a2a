"""Which knobs of a policy an optimizer has, where they start, and how they are written to its groups.

| knob                                | where an optimizer has it                                                     |
| ----------------------------------- | ----------------------------------------------------------------------------- |
| lr                                  | `lr`, always                                                                  |
| weight_decay                        | `weight_decay`, if a group has any: 0 stays 0                                 |
| epsilon                             | `eps` of Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adagrad and UnitlessAdam |
| one_minus_beta2                     | `betas[1]` of the Adam family and UnitlessAdam, `alpha` of RMSprop            |
| one_minus_beta1                     | `betas[0]` of the Adam family and UnitlessAdam                                |
| clip_ratio, clip_decay, trust_decay | UnitlessAdam                                                                  |

The momentum of SGD is no such knob: its buffer is a sum and no mean, so that turning it turns the step size as well. Nor is anything that
groups disagree about, apart from the first three, which all groups have in proportion: a group whose rate is half of the first's stays at
half. A knob whose start lies outside of the policy's bounds is left alone.

`lr`, `weight_decay` and `epsilon` carry units that depend on the optimizer and on the loss. A policy turns them in its own coordinates, in
which they start where training's inner optimizer did (AdamW, or UnitlessAdam for itself): 1e-3 stands for the optimizer's own rate,
whatever that is, and the bounds are as far from it as they were in training. All other knobs are shares, and are told as they are.

With Adam and its relatives the closed-form bias correction 1 - beta^t is wrong early in a run once a beta has changed; the knobs of both
are frozen for the first 3 / (1 - beta2) steps. RMSprop does not correct, and UnitlessAdam keeps its corrections.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from metaopt.errors import ConfigError
from metaopt.learners.policies.knobs import KNOB_SPECS, KNOBS
from metaopt.learners.policies.starts import inner_start
from metaopt.optim.unitless_adam import UnitlessAdam

__all__ = ["SCALED", "Coordinates", "Knobs", "frozen_steps", "initial_knobs", "knows_highest_rate", "read_knobs", "write_knobs"]

SCALED = {"lr": "lr", "weight_decay": "weight_decay", "epsilon": "eps"}  # knob -> key of the groups; groups have them in proportion
_BETAS = {"one_minus_beta1": 0, "one_minus_beta2": 1}
_OWN = ("clip_ratio", "clip_decay", "trust_decay")
_ADAMS = (torch.optim.Adam, torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adamax)
_WITH_EPS = (*_ADAMS, torch.optim.RMSprop, torch.optim.Adagrad, UnitlessAdam)
_SPECS = dict(zip(KNOBS, KNOB_SPECS, strict=True))

Knobs = dict[str, float]  # by name, in the optimizer's own units


def initial_knobs(optimizer: Optimizer) -> Knobs:
    """Return the knobs that an optimizer has, in the order of `KNOBS`, with their present values.

    Raises:
        ConfigError: the optimizer has no learning rate that is above 0, or learns it itself.
    """
    learned = optimizer.param_groups[0].get("tower", {}).get("learn", ())
    if "lr" in learned:
        raise ConfigError(f"{type(optimizer).__name__} learns lr itself; give PolicyScheduler a torch optimizer, or learn something else")
    found = {name: _shared(optimizer, name) for name in KNOBS}
    if found["lr"] is None:
        raise ConfigError(f"optimizer {type(optimizer).__name__} has no learning rate above 0 to set; build it with one")
    return {
        name: value
        for name, value in found.items()
        if value is not None and name not in learned and (name in SCALED or _inside(name, value))
    }


def read_knobs(optimizer: Optimizer, start: Knobs) -> Knobs:
    """Return the present values of the knobs in `start`; what groups no longer agree about is as it started."""
    found = {name: _shared(optimizer, name) for name in start}
    return {name: start[name] if value is None else value for name, value in found.items()}


def frozen_steps(optimizer: Optimizer) -> int:
    """Return for how many steps from the beginning of a run the betas must stay as they are."""
    if not isinstance(optimizer, _ADAMS):
        return 0
    rests = [1.0 - float(group["betas"][1]) for group in optimizer.param_groups]
    return max(round(3.0 / rest) if rest > 0 else 1 << 62 for rest in rests)


def write_knobs(optimizer: Optimizer, values: Knobs, start: Knobs, shares: dict[str, list[float]]) -> None:
    """Set knobs in all groups.

    Args:
        optimizer: whose groups are written.
        values: of the knobs to set; others are left alone.
        start: what knobs started at.
        shares: for each knob of `SCALED` every group's share of it; extended here for groups that were added later.
    """
    groups = optimizer.param_groups
    for name in SCALED.keys() & start.keys():
        known = shares.setdefault(name, [])
        known.extend(_number(group, SCALED[name]) / start[name] for group in groups[len(known) :])
    for name, value in values.items():
        if name in SCALED:
            for group, share in zip(groups, shares[name], strict=True):
                _put(group, SCALED[name], value * share)
        else:
            for group in groups:
                if name in _OWN:
                    _put(group, name, value)
                elif "alpha" in group:
                    _put(group, "alpha", 1.0 - value)
                else:
                    betas = list(group["betas"])
                    betas[_BETAS[name]] = 1.0 - value
                    group["betas"] = tuple(betas)


class Coordinates:
    """Between an optimizer's own numbers and a policy's.

    Args:
        optimizer: whose class says which inner optimizer it is taken for.
        start: its knobs at the start of a run.
    """

    def __init__(self, optimizer: Optimizer, start: Knobs) -> None:
        self.start = start
        self._anchor = inner_start("unitless_adam" if isinstance(optimizer, UnitlessAdam) else "adamw").tolist()

    def to_policy(self, values: Knobs) -> Tensor:
        """Return all knobs in the policy's coordinates, [8] float64; those that the optimizer lacks are where training began them."""
        found = [values.get(name, anchor) for name, anchor in zip(KNOBS, self._anchor, strict=True)]
        for i, name in enumerate(KNOBS):
            if name in SCALED and name in values:
                found[i] = self._anchor[i] * (values[name] / self.start[name])
        return torch.tensor(found, dtype=torch.float64)

    def from_policy(self, policy: Tensor) -> Knobs:
        """Return the optimizer's knobs of coordinates [8]; where these are the start's, so is the result, bit for bit."""
        found = {}
        for name, value, anchor in zip(KNOBS, policy.tolist(), self._anchor, strict=True):
            if name in self.start:
                found[name] = self.start[name] * (value / anchor) if name in SCALED else value
        return found


def knows_highest_rate(optimizer: Optimizer) -> bool:
    """Return whether rates mean what they meant in training: steps are divided by the size of gradients."""
    return isinstance(optimizer, _WITH_EPS)


def _shared(optimizer: Optimizer, name: str) -> float | None:
    """Return the value of a knob: of the first group that has it above 0 if it is scaled, else the one that all groups agree about."""
    groups = optimizer.param_groups
    if name in SCALED:
        if name == "epsilon" and not isinstance(optimizer, _WITH_EPS):
            return None
        return next((value for group in groups if (value := _number(group, SCALED[name])) > 0), None)
    if name in _OWN:
        values = {_number(group, name) for group in groups} if isinstance(optimizer, UnitlessAdam) else set()
    elif isinstance(optimizer, (*_ADAMS, UnitlessAdam)):
        values = {1.0 - float(group["betas"][_BETAS[name]]) for group in groups}
    elif isinstance(optimizer, torch.optim.RMSprop) and name == "one_minus_beta2":
        values = {1.0 - float(group["alpha"]) for group in groups}
    else:
        values = set()
    return values.pop() if len(values) == 1 else None


def _inside(name: str, value: float) -> bool:
    return _SPECS[name].low <= value <= _SPECS[name].high


def _number(group: Mapping[str, Any], key: str) -> float:
    value = group.get(key)
    return float(value) if isinstance(value, float | int | Tensor) else 0.0


def _put(group: dict[str, Any], key: str, value: float) -> None:
    if isinstance(group.get(key), Tensor):
        group[key].fill_(value)  # a compiled step holds on to the tensor
    elif key in group:
        group[key] = value
