"""Eight hyperparameters that a policy turns, three registers that it saves to, and what a choice does to them.

A decision is nine independent choices, one a head, in the order of `HEADS`: what to do with the registers, and for each knob a change
relative to its present value. Relative changes carry no units: the same policy serves a run whose right rate is 1e-4 and one whose right
rate is 1.

| knob (order of `KNOBS`) | what it is                                             | start | bounds           | episodes start at         |
| ----------------------- | ------------------------------------------------------ | ----- | ---------------- | ------------------------- |
| lr                      | learning rate                                          | 1e-3  | 1e-8 .. 1        | start x 0.01 .. 100       |
| weight_decay            | decay, before the rate                                 | 1e-2  | 1e-8 .. 1        | start x 0.1 .. 10         |
| epsilon                 | of the denominator                                     | 1e-6  | 1e-8 .. 1        | start x 0.1 .. 10         |
| one_minus_beta2         | share of a new square in the second moment             | 1e-2  | 1e-5 .. 0.1      | start x 0.1 .. 10         |
| one_minus_beta1         | share of a new gradient in the momentum                | 0.1   | 1e-5 .. 1        | start x 0.1 .. 10         |
| clip_ratio              | clipping threshold over the largest recent norm        | 0.8   | 1e-10 .. 1-1e-10 | log odds of start -1 .. 1 |
| clip_decay              | how fast that largest norm is forgotten                | 1e-2  | 1e-5 .. 1        | start x 0.5 .. 2          |
| trust_decay             | share of a new update norm in the mean that trust uses | 0.05  | 1e-5 .. 1        | start x 0.5 .. 2          |

Averages are held as one minus their decay, because that is what a factor acts on: from 0.9 to 0.95 doubles the memory, as from 0.99 to
0.995. The clipping ratio lies between 0 and 1 and is shifted on log odds, so that it moves as freely near 1 as in the middle. A changed
value is clamped to its bounds; the choice that keeps changes no bit. The published perturbation reaches the upper bound of two knobs
exactly: one_minus_beta1 = 1, which is no momentum, and one_minus_beta2 = 0.1.

A masked knob keeps its value whatever is chosen, its feature and its part of the one-hot vector are zero: it looks the same to a policy
whether an optimizer does not have it or training left it out.

Source: Almeida et al., 2021, "A generalizable approach to learning optimizers" (2106.00958), an example of its released training
configurations: starts, bounds, perturbations and the choices of the table "published". The joint coding of the register head is ours, and
so is the table "wide": with few decisions, a start that is off by 100 cannot be undone by factors of 2, and a policy without a choice that
keeps can hold a value only by alternating.

Legend: [...] any leading shape, 8 knobs, 9 heads, 35 published choices. Everything on tensors works under `torch.func.vmap` and draws no
random numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt.errors import ConfigError
from metaopt.names import nearest

__all__ = [
    "HEADS",
    "KNOBS",
    "KNOB_SPECS",
    "REGISTERS",
    "REGISTER_ACTIONS",
    "TABLES",
    "Knob",
    "Table",
    "change_features",
    "find_table",
    "head_mask",
    "one_hot",
    "perturbed",
    "start_values",
    "turned",
]


@dataclass(frozen=True)
class Knob:
    """One hyperparameter that a policy turns.

    Attributes:
        name: how it is called here and in artifacts.
        start: published value at the start of a run.
        low: least value, inclusive.
        high: largest value, inclusive.
        perturbation: ends of what a training episode's start is multiplied by, or of what is added to its log odds.
        logit: whether changes are shifts of the log odds instead of factors.
    """

    name: str
    start: float
    low: float
    high: float
    perturbation: tuple[float, float]
    logit: bool = False


KNOB_SPECS = (
    Knob("lr", 1e-3, 1e-8, 1.0, (0.01, 100.0)),
    Knob("weight_decay", 1e-2, 1e-8, 1.0, (0.1, 10.0)),
    Knob("epsilon", 1e-6, 1e-8, 1.0, (0.1, 10.0)),
    Knob("one_minus_beta2", 1e-2, 1e-5, 0.1, (0.1, 10.0)),
    Knob("one_minus_beta1", 0.1, 1e-5, 1.0, (0.1, 10.0)),
    Knob("clip_ratio", 0.8, 1e-10, 1.0 - 1e-10, (-1.0, 1.0), logit=True),
    Knob("clip_decay", 1e-2, 1e-5, 1.0, (0.5, 2.0)),
    Knob("trust_decay", 0.05, 1e-5, 1.0, (0.5, 2.0)),
)
KNOBS = tuple(knob.name for knob in KNOB_SPECS)
HEADS = ("registers", *KNOBS)
REGISTERS = 3
REGISTER_ACTIONS = ("none", *(f"{verb}{slot}" for verb in ("load", "save", "swap") for slot in range(REGISTERS)))

_PUBLISHED = (
    (0.5, 0.707, 0.9, 1.0, 1.1, 1.414, 2.0),
    (0.5, 2.0),
    (0.5, 2.0),
    (0.5, 2.0),
    (0.5, 2.0),
    (-1.0, -0.3, 0.3, 1.0),
    (0.5, 1.0, 2.0),
    (1 / 1.5, 1.0, 1.5),
)
_KEEP = tuple(0.0 if knob.logit else 1.0 for knob in KNOB_SPECS)
_WIDTHS = (len(REGISTER_ACTIONS), *map(len, _PUBLISHED))  # of the parts of the one-hot vector


@dataclass(frozen=True)
class Table:
    """The choices of every knob's head.

    The one-hot vector of an action has a place for each published choice. A table has as many choices for a knob, or one more: that one
    keeps the value, and has the zero vector of its head.

    Attributes:
        name: how configs and artifacts call it.
        factors: for each knob its choices: factors, or shifts of the log odds.

    Raises:
        ConfigError: a knob has no row, or another number of choices.
    """

    name: str
    factors: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Check that the one-hot vector can tell the choices."""
        if len(self.factors) != len(KNOBS):
            raise ConfigError(f"table {self.name!r} must have a row of choices for each of {len(KNOBS)} knobs, got {len(self.factors)}")
        for knob, given, published, keep in zip(KNOBS, self.factors, _PUBLISHED, _KEEP, strict=True):
            if len(given) != len(published) and (len(given) != len(published) + 1 or keep not in given):
                raise ConfigError(f"table {self.name!r} must have {len(published)} choices of {knob}, or these and {keep:g}; got {given}")

    @property
    def nvec(self) -> tuple[int, ...]:
        """Number of choices of each of the nine heads."""
        return (len(REGISTER_ACTIONS), *map(len, self.factors))


_WIDE = ((0.1, 0.4, 0.8, 1.0, 1.25, 2.5, 10.0), *((0.5, 1.0, 2.0),) * 4, (-1.0, -0.3, 0.0, 0.3, 1.0), *_PUBLISHED[6:])
TABLES = {table.name: table for table in (Table("published", _PUBLISHED), Table("wide", _WIDE))}


def find_table(name: str) -> Table:
    """Return a table of choices by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in TABLES:
        raise ConfigError(f"no table of choices is called {name!r}{nearest(name, TABLES)}")
    return TABLES[name]


def start_values(**given: float) -> Tensor:
    """Return where the knobs of a run start, [8] float64: the published values, but for those that are given by name.

    Raises:
        ConfigError: a name is unknown, or a value outside of its knob's bounds.
    """
    for name, value in given.items():
        knob = KNOB_SPECS[_index(name)]
        if not knob.low <= value <= knob.high:
            bounds = f"[{knob.low:g}, {knob.high:.11g}]"
            raise ConfigError(f"knob {name} must start in {bounds}, got {value}; leave it out to start at {knob.start:g}")
    return torch.tensor([given.get(knob.name, knob.start) for knob in KNOB_SPECS], dtype=torch.float64)


def head_mask(knobs: Iterable[str] = KNOBS, registers: bool = True) -> Tensor:
    """Return which heads act, [9] bool in the order of `HEADS`: the named knobs, and the registers if there are any.

    Raises:
        ConfigError: a knob's name is unknown.
    """
    acting = {_index(name) for name in knobs}
    return torch.tensor([registers, *(index in acting for index in range(len(KNOBS)))])


def perturbed(start: Tensor, uniform: Tensor, mask: Tensor) -> Tensor:
    """Return starts as training episodes draw them: log-uniform around `start`, the clipping ratio uniform in log odds.

    Args:
        start: unperturbed values, [..., 8] float64.
        uniform: numbers in [0, 1), [..., 8]; 0 gives the lower end of the perturbation, 0.5 its middle, which is `start`.
        mask: False keeps the start, [..., 8] bool.

    Returns:
        [..., 8] float64, inside of the bounds where `mask` is True.
    """
    low, high = _constants([knob.perturbation for knob in KNOB_SPECS], start).unbind(-1)
    logit, uniform = _logit_knobs(start), uniform.to(torch.float64)
    low, high = (torch.where(logit, end, torch.where(logit, 1.0, end).log()) for end in (low, high))
    shift = low + uniform * (high - low)
    centre = _clamped(start)
    return torch.where(mask, _clamped(torch.where(logit, _shifted(centre, shift), centre * shift.exp())), start)


def turned(table: Table, values: Tensor, action: Tensor, mask: Tensor) -> Tensor:
    """Return the knobs' values after an action.

    Args:
        table: what the choices stand for.
        values: before, [..., 8] float64.
        action: choice of each head, [..., 9] int64; -1 keeps. The register's is not looked at.
        mask: False keeps the value, [..., 8] bool.

    Returns:
        [..., 8] float64, inside of the bounds where `mask` is True; NaN for a choice that the table lacks.
    """
    most = max(table.nvec)
    padded = _constants([(*row, *(torch.nan,) * (most - len(row))) for row in table.factors], values)
    chosen = action[..., 1:]
    keep = _constants(_KEEP, values)
    change = torch.where(chosen < 0, keep, padded[torch.arange(len(KNOBS), device=values.device), chosen.clamp(min=0)])
    inside = _clamped(values)  # odds of a clipping ratio that float32 made 1 would be infinite
    moved = _clamped(torch.where(_logit_knobs(values), _shifted(inside, change), inside * change))
    return torch.where(mask, torch.where(change == keep, inside, moved), values)


def change_features(values: Tensor, start: Tensor, mask: Tensor) -> Tensor:
    """Return how far each knob is from where the run started, [..., 8] float64: a log ratio, or a difference of log odds; 0 if masked."""
    logit, values, start = _logit_knobs(values), _clamped(values), _clamped(start)
    odds_now, odds_start = (torch.where(logit, x / (1.0 - x), x) for x in (values, start))
    return torch.where(mask, (odds_now / odds_start).log(), 0.0)


def one_hot(table: Table, action: Tensor, head_mask: Tensor) -> Tensor:
    """Return which choices an action was, with a place for every published one.

    Args:
        table: what the choices stand for; the keeping choice that it adds to the published ones is zeros.
        action: choice of each head, [..., 9] int64; -1 is no choice and gives zeros.
        head_mask: False gives zeros for that head, [..., 9] bool.

    Returns:
        [..., 35] float32.
    """
    rows, place = [], 0
    for width, keep, choices in zip(_WIDTHS, (None, *_KEEP), ((0.0,) * _WIDTHS[0], *table.factors), strict=True):
        told = [i for i in range(len(choices)) if len(choices) == width or choices[i] != keep]
        row = [-1] * max(table.nvec)
        for column, choice in enumerate(told):
            row[choice] = place + column
        rows.append(row)
        place += width
    columns = torch.tensor(rows, device=action.device)[torch.arange(len(HEADS), device=action.device), action.clamp(min=0)]
    columns = torch.where(head_mask & (action >= 0), columns, -1)
    return (columns.unsqueeze(-1) == torch.arange(place, device=action.device)).any(-2).to(torch.float32)


def _index(name: str) -> int:
    if name not in KNOBS:
        raise ConfigError(f"no knob is called {name!r}{nearest(name, KNOBS)}")
    return KNOBS.index(name)


def _constants(rows: Iterable[object], like: Tensor) -> Tensor:
    return torch.tensor(list(rows), dtype=torch.float64, device=like.device)


def _logit_knobs(like: Tensor) -> Tensor:
    return torch.tensor([knob.logit for knob in KNOB_SPECS], device=like.device)


def _shifted(p: Tensor, shift: Tensor) -> Tensor:
    odds = p / (1.0 - p) * shift.exp()  # keeps the digits of small p; those of 1 - p are good enough at 1e-10
    return odds / (1.0 + odds)


def _clamped(values: Tensor) -> Tensor:
    low, high = (_constants([getattr(knob, end) for knob in KNOB_SPECS], values) for end in ("low", "high"))
    return values.to(torch.float64).clamp(low, high)
