"""What a policy sees at a decision: 161 numbers from what was measured since the last one, none of which carries a unit.

| group (key of `LAYOUT`) | what it holds                                                                                     | size |
| ----------------------- | ------------------------------------------------------------------------------------------------- | ---- |
| statistics_raw          | the 13 statistics of `unitless`                                                                   | 13   |
| statistics_cdf          | their places in their own histories, for each statistic 5 CDFs of `cdf`                           | 65   |
| progress                | share of the budget that is spent                                                                 | 1    |
| action_vector           | the previous action, one-hot                                                                      | 35   |
| loss_ratio              | r = log evaluation loss over training loss: is_nan, tanh r, 5 CDFs of r                           | 7    |
| outer_update_ratio      | r = log norm of the move since the last decision over that of the move before: tanh r, 5 CDFs     | 6    |
| outer_norm_ratio        | r = log norm of the weights over that at the last decision: tanh r, 5 CDFs                        | 6    |
| log_loss                | log training loss: is_nan, is_inf, 5 CDFs; the same of the evaluation loss                        | 14   |
| restart_loss            | each register: tanh of log loss when saved over loss now, below 0 where the register is better    | 3    |
| restart_progress        | each register: progress since it was saved                                                        | 3    |
| action_features         | each knob: log of its value over its start, the clipping ratio in log odds                        | 8    |

Multiplying all losses by a power of two changes no bit, as long as none leaves the range of normal numbers: a loss enters as a ratio to
another loss, formed before the log, and the reference of a history is its first positive loss. Any other scale changes rounding only, and
histories that nothing but rounding moves are told as constant (`ROUNDING`). The losses themselves are never shown.

What each column is when there is nothing to show, always a number in its box [-`INPUT_LIMIT`, `INPUT_LIMIT`]:

- no steps were measured since the last decision (all 13 statistics are NaN, which no measured step gives, because the first two compare):
  raw 0, CDFs 0.5, and the histories stay on their last values;
- a single statistic that is NaN: raw 0; infinite: the end of its box. CDFs 1;
- no previous action, or a masked head: zeros; a masked knob: 0;
- no evaluation loss: is_nan and is_inf 0, tanh 0, CDFs 0.5. The registers are then compared by the training loss;
- a loss that is not finite: is_nan or is_inf 1, CDFs 1. In `loss_ratio`, is_nan tells that one of the two is not finite, tanh is 0, CDFs 1;
- a loss of zero or below counts as the least that is told, 1 / `LOSS_LIMIT` of the first positive one, as does any loss below that: a
  policy should not feel progress where a run has long fitted its data. Beside each other, two losses of zero or below are equal;
- the first decision has no move and no weights before it, and the second has no move before its own: tanh 0, CDFs 0.5, and the history
  begins with the first ratio there is. After that a move of zero over zero is 1, and other ratios end at `MOVE_LIMIT`, where tanh is 1 to
  six digits and one standstill (or one register that is loaded) does not drown its history;
- a norm that is not finite: tanh 1, CDFs 1; the next ratio is to the last finite norm;
- an empty register, or none at all: loss 0, progress 1. A stored or present loss that is not finite counts as infinite; two of them are
  equal.

Source: Almeida et al., 2021, "A generalizable approach to learning optimizers" (2106.00958), an example of its released training
configurations: names of the groups, and which get tanh and CDFs. The formulas behind the names, and all of the list above, are ours.

Legend: S = 13 statistics, 18 histories, E = 5 end weights, I = 161 inputs.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metaopt.errors import IncompatibleCheckpointError
from metaopt.learners.policies.cdf import END_WEIGHTS, CdfState, cdf_push, cdf_start
from metaopt.learners.policies.knobs import KNOBS, REGISTER_ACTIONS, REGISTERS, TABLES, Table, change_features, one_hot
from metaopt.learners.policies.unitless import STATISTICS

__all__ = [
    "INPUTS",
    "INPUT_LIMIT",
    "LAYOUT",
    "LOSS_LIMIT",
    "MOVE_LIMIT",
    "NAMES",
    "Measured",
    "ObservationState",
    "observation_start",
    "observe",
]

INPUT_LIMIT = 20.0
LOSS_LIMIT = 1e8  # rewards are fitted to losses between 0 and 1 of a run's range, which do not tell a smaller share either
MOVE_LIMIT = 1e3
ROUNDING = 4e-6  # statistics and logs of float32 numbers are off by less: numbers of up to 20 are spaced by 2e-6 at most
_RATIOS = ("loss_ratio", "outer_update_ratio", "outer_norm_ratio")
_HISTORIES = (*STATISTICS, *_RATIOS, "log_train_loss", "log_eval_loss")


def _names() -> dict[str, list[str]]:
    """Return the names of the inputs, group by group."""

    def cdfs(of: str) -> list[str]:
        return [f"{of}_cdf_{end:g}" for end in END_WEIGHTS]

    choices = [f"registers_{name}" for name in REGISTER_ACTIONS]
    choices += [f"{knob}_{place}" for knob, row in zip(KNOBS, TABLES["published"].factors, strict=True) for place in range(len(row))]
    update, norm = "outer_update_ratio", "outer_norm_ratio"
    return {
        "statistics_raw": list(STATISTICS),
        "statistics_cdf": [column for name in STATISTICS for column in cdfs(name)],
        "progress": ["progress"],
        "action_vector": [f"previous_{choice}" for choice in choices],
        "loss_ratio": ["loss_ratio_is_nan", "loss_ratio_tanh", *cdfs("loss_ratio")],
        "outer_update_ratio": [f"{update}_tanh", *cdfs(update)],
        "outer_norm_ratio": [f"{norm}_tanh", *cdfs(norm)],
        "log_loss": [c for of in ("train", "eval") for c in (f"{of}_loss_is_nan", f"{of}_loss_is_inf", *cdfs(f"log_{of}_loss"))],
        "restart_loss": [f"restart_loss_{slot}" for slot in range(REGISTERS)],
        "restart_progress": [f"restart_progress_{slot}" for slot in range(REGISTERS)],
        "action_features": [f"change_of_{knob}" for knob in KNOBS],
    }


def _layout(groups: dict[str, list[str]]) -> dict[str, slice]:
    slices, place = {}, 0
    for group, columns in groups.items():
        slices[group] = slice(place, place + len(columns))
        place += len(columns)
    return slices


LAYOUT = _layout(_names())
NAMES = tuple(name for columns in _names().values() for name in columns)
INPUTS = len(NAMES)


class Measured(NamedTuple):
    """What one run measured up to a decision; any floating dtype, no leading dimensions (`torch.func.vmap` adds them).

    Attributes:
        statistics: their mean over the steps since the last decision, [13]; all NaN if no step was measured.
        train_loss: 0-d.
        eval_loss: 0-d, any number where there is none.
        has_eval: whether there is an evaluation loss, 0-d bool.
        update_norm: norm of the weights minus those at the last decision, 0-d, [0, inf); anything at the first decision.
        param_norm: norm of the weights, 0-d, [0, inf).
        progress: share of the budget that is spent, 0-d, [0, 1].
        values: the knobs as they are, [8].
        start: the knobs as the run started, [8].
        action: the previous action, [9] int64; -1 before the first.
        head_mask: which heads act, [9] bool.
        register_loss: evaluation loss when saved (training loss without one), [3].
        register_filled: [3] bool.
        register_progress: progress when saved, [3].
    """

    statistics: Tensor
    train_loss: Tensor
    eval_loss: Tensor
    has_eval: Tensor
    update_norm: Tensor
    param_norm: Tensor
    progress: Tensor
    values: Tensor
    start: Tensor
    action: Tensor
    head_mask: Tensor
    register_loss: Tensor
    register_filled: Tensor
    register_progress: Tensor


class ObservationState(NamedTuple):
    """What later observations need of earlier decisions, plain tensors.

    Attributes:
        cdf: 18 histories: the statistics, the three ratios, log training and log evaluation loss.
        first_loss: first positive training and evaluation loss, [2] float64, NaN before there is one.
        update_norm: the last finite one, 0-d float64, NaN before there is one.
        param_norm: likewise.
    """

    cdf: CdfState
    first_loss: Tensor
    update_norm: Tensor
    param_norm: Tensor

    def flat(self) -> dict[str, Tensor]:
        """Return the tensors by name, for a safetensors file or a `state_dict`."""
        return {f"cdf.{name}": x for name, x in self.cdf._asdict().items()} | {
            name: x for name, x in self._asdict().items() if name != "cdf"
        }

    @classmethod
    def from_flat(cls, flat: dict[str, Tensor]) -> "ObservationState":
        """Return the state of which `flat` was made, with the same bits.

        Raises:
            IncompatibleCheckpointError: names or shapes are not those of an observation state.
        """
        expected = observation_start().flat()
        for name in sorted(expected.keys() | flat.keys()):
            got, want = (None if name not in d else (tuple(d[name].shape), d[name].dtype) for d in (flat, expected))
            if got != want:
                raise IncompatibleCheckpointError(f"observation state: {name} must be {want}, got {got}")
        rest = {name: flat[name] for name in cls._fields if name != "cdf"}
        return cls(CdfState(**{name: flat[f"cdf.{name}"] for name in CdfState._fields}), **rest)


def observation_start(device: torch.device | str | None = None) -> ObservationState:
    """Return the state before the first decision; the host is the place for it (float64 is needed)."""

    def unknown(shape: tuple[int, ...] = ()) -> Tensor:
        return torch.full(shape, math.nan, dtype=torch.float64, device=device)

    return ObservationState(cdf_start((len(_HISTORIES),), device), unknown((2,)), unknown(), unknown())


def observe(state: ObservationState, measured: Measured, table: Table = TABLES["wide"]) -> tuple[ObservationState, Tensor]:
    """Return the state after one more decision, and what the policy sees at it.

    Pure, also under `torch.func.vmap`; mutates nothing and draws no random numbers.

    Args:
        state: of `observation_start` or an earlier call.
        measured: what the run measured, on the device of the state.
        table: whose choices `measured.action` counts.

    Returns:
        The new state, and the inputs [I] float32 in the order of `NAMES`, finite and in [-20, 20]. Edge cases: see the module.
    """
    m = Measured(*(x.to(torch.float64) if x.is_floating_point() else x for x in measured))
    losses = torch.stack([m.train_loss, m.eval_loss])
    there = torch.stack([torch.ones_like(m.has_eval), m.has_eval])
    state, raw, missing, tanh = _histories(state, m, losses, there)
    cdf, features = cdf_push(state.cdf, raw, ROUNDING)
    features = torch.where(missing.unsqueeze(-1), 0.5, features)

    nan, inf = (there & flag for flag in (losses.isnan(), losses.isinf()))
    no_ratio = m.has_eval & ~losses.isfinite().all()
    now = torch.where(m.has_eval, m.eval_loss, m.train_loss)
    filled = m.register_filled & m.head_mask[:1]
    stats, (ratio, update, norm, train, evaluation) = features[: len(STATISTICS)], features[len(STATISTICS) :].unbind()
    columns = (
        m.statistics,
        stats.flatten(),
        m.progress,
        one_hot(table, m.action, m.head_mask),
        *(no_ratio, tanh[0], ratio),
        *(tanh[1], update),
        *(tanh[2], norm),
        *(nan[0], inf[0], train),
        *(nan[1], inf[1], evaluation),
        torch.where(filled, _log_ratio(_worst(m.register_loss), _worst(now), LOSS_LIMIT).tanh(), 0.0),
        torch.where(filled, m.progress - m.register_progress, 1.0),
        change_features(m.values, m.start, m.head_mask[1:]),
    )
    row = torch.cat([column.to(torch.float64).reshape(-1) for column in columns])
    return state._replace(cdf=cdf), row.nan_to_num(0.0, INPUT_LIMIT, -INPUT_LIMIT).clamp(-INPUT_LIMIT, INPUT_LIMIT).to(torch.float32)


def _histories(state: ObservationState, m: Measured, losses: Tensor, there: Tensor) -> tuple[ObservationState, Tensor, Tensor, Tensor]:
    """Return the state with its references moved on, 18 values for the histories, which of them are missing, and tanh of 3 ratios."""
    first_loss = torch.where(state.first_loss.isnan() & there & losses.isfinite() & (losses > 0), losses, state.first_loss)
    least = torch.where(losses > 0, losses / first_loss, 0.0).clamp(1.0 / LOSS_LIMIT, LOSS_LIMIT).log()
    log_losses = torch.where(there & losses.isfinite(), least, math.nan)
    loss_ratio = torch.where(
        m.has_eval & losses.isfinite().all(), _log_ratio(losses[1].clamp(min=0.0), losses[0].clamp(min=0.0), LOSS_LIMIT), math.nan
    )

    begun = state.cdf.decisions > 0
    norms, last = torch.stack([m.update_norm, m.param_norm]), torch.stack([state.update_norm, state.param_norm])
    moved = torch.stack([begun, torch.ones_like(begun)])  # there is no move before the first decision
    usable = norms.isfinite()
    moves = torch.where(usable, _log_ratio(norms, last, MOVE_LIMIT), math.nan)
    new_last = torch.where(usable & moved, norms, last)

    raw = torch.cat([m.statistics, torch.stack([loss_ratio, *moves.unbind(), *log_losses.unbind()])])
    no_move = (last.isnan() & usable) | ~moved
    missing = torch.cat(
        [m.statistics.isnan().all().expand(len(STATISTICS)), torch.stack([~m.has_eval, *no_move.unbind(), *(~there).unbind()])]
    )
    loss_tanh = loss_ratio.nan_to_num(0.0).tanh()
    move_tanh = torch.where(no_move, 0.0, torch.where(usable, moves, math.inf).tanh())
    return (
        state._replace(first_loss=first_loss, update_norm=new_last[0], param_norm=new_last[1]),
        raw,
        missing,
        torch.stack([loss_tanh, *move_tanh]),
    )


def _log_ratio(over: Tensor, under: Tensor, limit: float) -> Tensor:
    """Return the log of a ratio; equal zeros or infinities count as one, other ratios outside of the limits as the nearer end."""
    return torch.where(over == under, 1.0, over / under).clamp(1.0 / limit, limit).log()


def _worst(loss: Tensor) -> Tensor:
    return torch.where(loss.isfinite(), loss.clamp(min=0.0), math.inf)
