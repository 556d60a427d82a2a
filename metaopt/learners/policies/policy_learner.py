"""A policy as a learner: inner runs that turn their own knobs, wherever learners are run and compared.

It measures and decides at the steps of `timing`, by each run's own horizon, as `PolicyScheduler` does for a single run: greedy, without an
evaluation loss and without registers, from the start of the inner optimizer, within limits of the rate; a run that is no longer finite
halves its rate and lets it fall along a cosine to the end.

The network's weights are its theta. Steps at which no run decides skip the decision: it is a function of its own with a rule for `vmap`,
which sees all runs at once. Statistics are formed at every step, and kept at those that are measured.

Legend: S = 13 statistics, K = 8 knobs, H = 9 heads, I policy inputs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.learners.learner import Carry, StepRecord
from metaopt.learners.policies.controlled import ControlledLearner, flat, forget_steps
from metaopt.learners.policies.knobs import HEADS, KNOB_SPECS, REGISTERS, TABLES, turned
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec, greedy, initial_state
from metaopt.learners.policies.observation import Measured, ObservationState, observation_start, observe
from metaopt.learners.policies.run_timing import run_timing
from metaopt.learners.policies.starts import inner_knobs, inner_start
from metaopt.learners.update_rules import Theta
from metaopt.tasks.task import Batch, Task

__all__ = ["PolicyLearner"]

_NONE = -1
_WEIGHTS = "network."


@dataclass(frozen=True)
class PolicyLearner:
    """A run under a policy.

    Attributes:
        spec: of the network whose weights are theta.
        inner: inner optimizer, see `ControlledLearner`.
        decisions: how many, or what fits into the horizon.
        lowest, highest: limits of the learning rate.
        guard: whether a run that is not finite is taken from the policy.

    Raises:
        ConfigError: no decisions, limits that are none, or an unknown inner optimizer.
    """

    spec: PolicySpec
    inner: str = "adamw"
    decisions: int = 64
    lowest: float = KNOB_SPECS[0].low
    highest: float = KNOB_SPECS[0].high
    guard: bool = True

    def __post_init__(self) -> None:
        ControlledLearner(self.inner)
        if self.decisions < 1:
            raise ConfigError(f"decisions must be >= 1, got {self.decisions}")
        if not 0.0 < self.lowest <= self.highest:
            raise ConfigError(f"limits of the rate must be 0 < lowest <= highest, got {self.lowest} and {self.highest}")

    def init_theta(self, seed: int) -> Theta:
        """Return the weights of a fresh network, its normaliser included."""
        return {name: value.detach().clone() for name, value in PolicyNetwork(self.spec, seeds.key("policy", seed)).state_dict().items()}

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return the carry of a fresh run: that of the controlled run, and `policy`, what the policy keeps between steps."""
        inner = ControlledLearner(self.inner).init({}, task, key)
        h, c = initial_state(self.spec.hidden, (), torch.zeros((), device=key.device))
        return inner | {
            "policy": {
                "t": torch.zeros((), dtype=torch.int64, device=key.device),
                "weights": flat(inner["params"]),
                "mind": _Mind(
                    inner_start(self.inner), torch.full((len(HEADS),), _NONE), observation_start().flat(), h, c, *_never()
                )._asdict(),
            }
        }

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return the carry after one step, with a decision before it if one is due, and the loss before it."""
        own, horizon = carry["policy"], task.horizon.long()
        t, mind = own["t"], _Mind(**own["mind"])
        due, measured = run_timing(t, horizon, self.decisions)
        weights = flat(carry["params"])
        seen = carry["seen"]
        look = _Look(
            torch.where(seen["measured"] == 0, torch.nan, seen["mean"]),
            seen["loss"],
            torch.linalg.vector_norm(weights - own["weights"]),
            torch.linalg.vector_norm(weights),
            t,
            horizon,
        )
        mind = _maybe_decide(self, due & (mind.handed < 0), theta, look, mind)
        forgotten = forget_steps({"seen": seen})["seen"]
        inner = {name: value for name, value in carry.items() if name != "policy"}
        inner["seen"] = {name: torch.where(due, forgotten[name], value) for name, value in seen.items()}
        after, record = ControlledLearner(self.inner, True).advance({"values": self._knobs(mind, t, horizon)}, task, inner, batch)
        after["seen"] |= {name: torch.where(measured, after["seen"][name], inner["seen"][name]) for name in ("mean", "measured")}
        kept = {"t": t + 1, "weights": torch.where(due, weights, own["weights"]), "mind": mind._asdict()}
        return after | {"policy": kept}, record

    def _knobs(self, mind: "_Mind", t: Tensor, horizon: Tensor) -> Tensor:
        """Return the knobs [K] of step t: the policy's, or a cosine's from where it was taken from it."""
        share = ((t - mind.handed) / (horizon - mind.handed).clamp(min=1)).clamp(max=1.0)
        rate = torch.where(mind.handed < 0, mind.values[0], mind.values[0] * 0.5 * (1.0 + torch.cos(math.pi * share)))
        return torch.cat([rate.unsqueeze(0), mind.values[1:]])


class _Look(NamedTuple):
    """What a decision looks at: statistics [S], mean training loss, norms of the move and of the weights; step and horizon."""

    statistics: Tensor
    train_loss: Tensor
    update_norm: Tensor
    param_norm: Tensor
    t: Tensor
    horizon: Tensor


class _Mind(NamedTuple):
    """What a policy keeps of a run: knobs [K] float64, the last action [H], histories, the LSTM's state, and when it was taken from it.

    `handed` is the step of that, -1 for never.
    """

    values: Tensor
    action: Tensor
    observation: dict[str, Tensor]
    h: Tensor
    c: Tensor
    handed: Tensor


def _never() -> tuple[Tensor]:
    return (torch.full((), _NONE),)


class _Skeleton(nn.Module):
    """The step of a network as the call of a module, for `functional_call`."""

    def __init__(self, network: PolicyNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.network.step(inputs, state)


@cache
def _skeleton(spec: PolicySpec) -> _Skeleton:
    return _Skeleton(PolicyNetwork(spec, seeds.key("skeleton"))).requires_grad_(False)


def _decide(learner: PolicyLearner, theta: Theta, look: _Look, mind: _Mind) -> _Mind:
    """Return what a policy keeps after a decision; pure, for one run."""
    spec, table, nothing = learner.spec, TABLES[learner.spec.table], torch.zeros(REGISTERS, dtype=torch.float64)
    mask = torch.cat([torch.tensor([False]), inner_knobs(learner.inner, spec.knobs)])
    measured = Measured(
        statistics=look.statistics,
        train_loss=look.train_loss,
        eval_loss=torch.zeros((), dtype=torch.float64),
        has_eval=torch.tensor(False),
        update_norm=look.update_norm,
        param_norm=look.param_norm,
        progress=look.t.double() / look.horizon.double(),
        values=mind.values,
        start=inner_start(learner.inner),
        action=mind.action,
        head_mask=mask,
        register_loss=nothing,
        register_filled=nothing.bool(),
        register_progress=nothing,
    )
    observation, inputs = observe(ObservationState.from_flat(mind.observation), measured, table)
    weights = {_WEIGHTS + name: value for name, value in theta.items()}
    logits, (h, c) = functional_call(_skeleton(spec), weights, (inputs, (mind.h, mind.c)))
    action = torch.where(mask, greedy(logits, spec.nvec), _NONE)
    values = turned(table, mind.values, action, mask[1:])
    lost = ~(torch.isfinite(look.train_loss) & torch.isfinite(look.param_norm)) & learner.guard
    rate = torch.where(lost, mind.values[0] * 0.5, values[0].clamp(learner.lowest, learner.highest))
    values = torch.cat([rate.unsqueeze(0), values[1:]])
    return _Mind(values, action, observation.flat(), h, c, torch.where(lost, look.t, mind.handed))


def _maybe_decide(learner: PolicyLearner, due: Tensor, theta: Mapping[str, Tensor], look: _Look, mind: _Mind) -> _Mind:
    """Return what a policy keeps, after a decision where one is due."""
    flat_arguments, structure = tree_flatten((dict(theta), look, mind))
    leaves = _MaybeDecide.apply(learner, structure, due, *flat_arguments)  # type: ignore[no-untyped-call]
    after: _Mind = tree_unflatten(list(leaves), tree_flatten(mind)[1])
    return after


class _MaybeDecide(torch.autograd.Function):
    """A decision that is skipped where it is not due; under `vmap`, where it is due for no run. Not differentiable."""

    @staticmethod
    def forward(learner: PolicyLearner, structure: TreeSpec, due: Tensor, *arguments: Tensor) -> tuple[Tensor, ...]:
        theta, look, mind = tree_unflatten(list(arguments), structure)
        after = _decide(learner, theta, look, mind) if bool(due) else tree_map(torch.clone, mind)
        return tuple(tree_flatten(after)[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return (None,) * len(ctx.needs_input_grad)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], learner: PolicyLearner, structure: TreeSpec, due: Tensor, *arguments: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        dims = in_dims[2:]

        def one(due: Tensor, *arguments: Tensor) -> tuple[Tensor, ...]:
            theta, look, mind = tree_unflatten(list(arguments), structure)
            after = _decide(learner, theta, look, mind)
            pairs = zip(tree_flatten(after)[0], tree_flatten(mind)[0], strict=True)
            return tuple(torch.where(due, new, old) for new, old in pairs)

        if bool(due.any()):
            _skeleton(learner.spec)  # a module cannot be built under vmap
            found: tuple[Tensor, ...] = vmap(one, in_dims=dims)(due, *arguments)
        else:
            kept = len(tree_flatten(tree_unflatten(list(arguments), structure)[2])[0])
            found = tuple(
                (x.movedim(dim, 0) if dim is not None else x.expand(info.batch_size, *x.shape)).clone()
                for x, dim in list(zip(arguments, dims[1:], strict=True))[-kept:]
            )
        return found, (0,) * len(found)
