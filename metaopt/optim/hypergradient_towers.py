"""The towers of a drop-in optimizer: plain settings for checkpoints, one tower a scope, values that begin exactly where they should.

Legend: S scopes (the model, a group or a tensor each), J learned hyperparameters.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metaopt.errors import ConfigError, IncompatibleCheckpointError
from metaopt.learners.hypergradients import Tower, TowerState, build_tower, signal
from metaopt.learners.hypergradients.stationarity import cosine
from metaopt.names import nearest

__all__ = ["MODES", "Evidence", "Scopes", "check_settings", "make_settings"]

MODES = ("global", "per_group", "per_tensor")
Settings = dict[str, Any]
Values = Mapping[str, float]

# What a checkpoint must share with the optimizer that loads it; numbers (rates, bounds, a part's betas) come with the checkpoint.
_NAMES = ("optimizer", "learn", "mode", "hyper", "link", "update")


@dataclass
class Evidence:
    """What a step's gradients say about one scope.

    Attributes:
        dots: [J] gradient . d parameters / d hyperparameter, summed over the scope's tensors in their order.
        sizes: [J] squared norms of those derivatives; for cosines.
        square: squared norm of the gradient; for cosines.
        usable: something of the scope moved in its last step, and the gradient is here.
    """

    dots: list[float]
    sizes: list[float]
    square: float = 0.0
    usable: bool = False


def make_settings(
    optimizer: str, starts: Sequence[Values], hyper: Any, learn: Any, link: Any, bounds: Any, mode: str, update: str
) -> Settings:
    """Return what the towers of scopes that start at `starts` are made of, as plain values.

    Raises:
        ConfigError: see `build_tower`; or an unknown mode.
    """
    if mode not in MODES:
        raise ConfigError(f"mode {mode!r} is unknown{nearest(str(mode), MODES)}")
    given = {"optimizer": optimizer, "hyper": hyper, "learn": learn, "link": link, "bounds": bounds, "update": update}
    tower = _tower(given, starts)
    return {
        **given,
        "hyper": [{"name": part.name, **part.hyperparameters} for part in tower.parts],
        "learn": [one.name for one in tower.learned],
        "link": dict(link) if isinstance(link, Mapping) else link,
        "bounds": dict(bounds) if isinstance(bounds, Mapping) else bounds,
        "mode": mode,
    }


def check_settings(saved: Any, own: Settings) -> None:
    """Raise unless a checkpoint's tower has the names of one's own.

    Raises:
        IncompatibleCheckpointError: with the first that differs.
    """
    if not isinstance(saved, Mapping):
        raise IncompatibleCheckpointError("state_dict has no hypergradient tower; it was saved by another kind of optimizer")
    for name in _NAMES:
        theirs, mine = _shown(name, saved.get(name)), _shown(name, own[name])
        if theirs != mine:
            raise IncompatibleCheckpointError(f"state_dict has a tower with {name} {theirs!r}, the optimizer {mine!r}; build it with that")


class Scopes:
    """The towers of S scopes, all of one kind; states are passed in and out.

    Args:
        settings: of `make_settings`, from a checkpoint or not.
        starts: for each scope, every hyperparameter of its base optimizer where it began.
    """

    def __init__(self, settings: Settings, starts: Sequence[Values]) -> None:
        self.learn: list[str] = list(settings["learn"])
        self.update = settings["update"]
        self._tower = _tower(settings, starts)
        self._starts_SJ = torch.tensor([[start[name] for name in self.learn] for start in starts], dtype=torch.float64)
        self._origins_SJ = self.fresh()["x0"]

    def fresh(self, first: int = 0) -> TowerState:
        """Return the state before the first step of the scopes from `first` on."""
        return self._tower.start({name: self._starts_SJ[first:, j] for j, name in enumerate(self.learn)})

    def observe(self, state: TowerState, evidence: Sequence[Evidence]) -> TowerState:
        """Return the state after what a step's gradients say; scopes without usable evidence keep theirs."""
        if not any(one.usable for one in evidence):
            return state
        signals = self._signals(evidence)
        if all(one.usable for one in evidence):
            finite = all(map(math.isfinite, signals.flatten().tolist()))
            return self._tower.advance(state, signals) if finite else self._tower.observe(state, signals)
        new = self._tower.observe(state, signals)
        usable = torch.tensor([one.usable for one in evidence])
        return {name: torch.where(usable.reshape(-1, *[1] * (value.ndim - 1)), value, state[name]) for name, value in new.items()}

    def values(self, state: TowerState) -> list[dict[str, float]]:
        """Return the present values, a dict a scope; a coordinate that has not moved gives the start itself, to the last bit."""
        present_SJ = torch.stack(list(self._tower.values(state).values()), -1)
        rows = torch.where(state["x0"] == self._origins_SJ, self._starts_SJ, present_SJ).tolist()
        return [dict(zip(self.learn, row, strict=True)) for row in rows]

    def rates(self, state: TowerState) -> list[list[float]]:
        """Return the present rates, a list a scope, lowest level first."""
        found: list[list[float]] = torch.stack(self._tower.rates(state), -1).tolist()
        return found

    def cosine(self, evidence: Evidence) -> float:
        """Return the cosine between gradient and the direction of the last step, nan where there is none."""
        if "lr" not in self.learn or not evidence.usable:
            return math.nan
        j = self.learn.index("lr")
        return cosine(-evidence.dots[j], math.sqrt(evidence.square), math.sqrt(evidence.sizes[j]))

    def _signals(self, evidence: Sequence[Evidence]) -> Tensor:
        dots = torch.tensor([one.dots for one in evidence], dtype=torch.float64)
        if self.update != "cosine":
            return dots
        squares = torch.tensor([one.square for one in evidence], dtype=torch.float64)
        return signal(self.update, dots, squares, torch.tensor([one.sizes for one in evidence], dtype=torch.float64))


def _tower(settings: Settings, starts: Sequence[Values]) -> Tower:
    """Return the tower that scopes with these starts share; where nobody gave bounds they are as wide as each start needs."""
    different = {tuple(start.items()): start for start in starts}.values()
    what = [settings[name] for name in ("hyper", "learn", "link", "bounds", "update")]
    towers = [build_tower(settings["optimizer"], start, *what) for start in different]
    columns = zip(*(tower.learned for tower in towers), strict=True)
    learned = [replace(column[0], low=min(one.low for one in column), high=max(one.high for one in column)) for column in columns]
    return replace(towers[0], learned=tuple(learned))


def _shown(name: str, value: Any) -> Any:
    """Return what of a setting must be equal: of a tower its parts' names."""
    if name == "hyper":
        return " / ".join(str(part["name"]) for part in value or ())
    return dict(value) if isinstance(value, Mapping) else list(value) if isinstance(value, list | tuple) else value
