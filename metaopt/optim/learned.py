"""A meta-learned (or hand-made) update rule as a drop-in `torch.optim.Optimizer`."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metaopt.artifacts import Artifact
from metaopt.errors import ConfigError, IncompatibleCheckpointError
from metaopt.learners import schedule_factor
from metaopt.learners.update_rules import ModelRule, UpdateRule, is_model_rule
from metaopt.optim.apply import MASTER, Member, Now, PerTensor, working_dtype
from metaopt.optim.apply_model import WholeModel
from metaopt.optim.loading import load_exactly
from metaopt.optim.source import resolve

__all__ = ["LearnedOptimizer"]

# Steps between two looks at the count of non-finite gradients on an accelerator, where each look waits for the device.
_LOOK_EVERY = 100


class LearnedOptimizer(torch.optim.Optimizer):
    """Run an artifact's update rule, the very function that was meta-trained, on any model's parameters.

    Each step is `p <- p - lr * base_step * schedule * (direction + weight_decay * p)`. Parameters may be float32, float64 (computed in
    float64) or 16-bit (computed from a float32 master copy in the state, so that small steps are not lost; 4 bytes a weight).

    - `lr == 0` leaves every parameter bitwise unchanged, weight decay included; accumulators and counters advance as in any step.
    - A parameter without gradient or without elements is skipped: no state, no counting. A sparse gradient is refused by name.
    - A non-finite gradient reaches the rule as it is, as in `torch.optim`: nothing is replaced. It is counted in
      `nonfinite_gradients` and a warning names the first step at which it was noticed. `GradScaler` skips such steps before they come here.
    - A group with `embedding: True` holds tables whose rows are looked up; celo2 and muon take vector steps there, others see any matrix.
    - With `total_steps`, the card's warm-up and cosine multiply the step; past the end it stays at the floor and says so once. A rule that
      has a schedule of its own reads `total_steps` itself, and stays at its end alike.
    - A rule that sees all tensors takes its step for all parameters that have a gradient together: they are on one device, float64 or not,
      and no shards. What it keeps about the whole model is in the state of the first one, under keys that begin with `shared.`.
    - A rule that reads the loss needs that of the gradients' own batch, not scaled. Ranks of a data-parallel run pass it averaged over the
      ranks: different losses would let their parameters drift apart.

    Args:
        params: parameters, dict groups or `named_parameters()`; a group may set `lr`, `weight_decay`, `maximize` and `embedding`.
        artifact: a path, a bundled or cached name, a loaded `Artifact`, or any rule (with its initial meta-parameters).
        lr: multiplies the base step that the card states, [0, inf). Schedulers read and write it.
        total_steps: length of the run, >= 1, for the card's schedule, or for a rule that reads it; None for a constant step.
        weight_decay: decoupled decay in units of the step, [0, inf).
        maximize: climb instead of descend.
        compile: run the step through `torch.compile`; the first step then takes long.

    Raises:
        ConfigError: an argument out of range, or an artifact of another kind.
        UnsafeArtifactError: an artifact that is damaged or whose weights do not fit its rule.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        artifact: str | os.PathLike[str] | Artifact | UpdateRule | ModelRule,
        lr: float | Tensor = 1.0,
        total_steps: int | None = None,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        self._source = resolve(artifact)
        self._check_total_steps(total_steps)
        self._compile = compile
        self._nonfinite: dict[torch.device, Tensor] = {}
        self._told: set[str] = set()
        self._forget_derived()
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "embedding": False,
            "total_steps": total_steps,
            "elapsed_steps": 0,  # of the optimizer, for the schedule; each parameter has its own `step`
            "artifact": self._source.identity,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, loss: Any = None) -> Any:
        """Take one step on the present gradients and return the closure's loss, else `loss`.

        Args:
            closure: computes the loss and the gradients again; called once, with gradients enabled.
            loss: the loss of these gradients, for rules that read it.

        Raises:
            ConfigError: the rule reads the loss and got none. With lr = 0 none is needed: torch's loaders make state that way, and such a
                step of a rule that sees all tensors makes only the state.
            RuntimeError: a sparse gradient; nothing has been changed.
        """
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        blind = loss is None and self._source.needs_loss
        if blind and any(float(group["lr"]) != 0 for group in self.param_groups):
            raise ConfigError("step() got no loss, which this rule reads: pass a closure or step(loss=loss)")
        rates = torch.tensor([[self._step_size(group), float(group["weight_decay"])] for group in self.param_groups], dtype=torch.float64)
        members = self._members()
        batches = self._stepper.batches(members)
        for member in members:
            if not self.state.get(member.param):
                self._init_state(member)
        if blind and is_model_rule(self._source.rule):
            return loss
        self._count_nonfinite(batches)
        first = self.param_groups[0]
        self._stepper.advance(batches, self.state, Now(rates, first["elapsed_steps"], first["total_steps"], loss))
        if members:
            torch._foreach_add_([self.state[member.param]["step"] for member in members], 1)
        for group in self.param_groups:
            group["elapsed_steps"] += 1
        self._look_at_nonfinite()
        return loss

    def set_total_steps(self, total_steps: int | None) -> None:
        """Set or extend the length of the run, from the next step on; no state changes.

        Raises:
            ConfigError: not an integer >= 1, or None for a rule that reads the length of the run.
        """
        self._check_total_steps(total_steps)
        for group in self.param_groups:
            group["total_steps"] = total_steps
        self._told.discard("past the end")

    @property
    def nonfinite_gradients(self) -> int:
        """How many gradient tensors with NaN or infinity this object has been given (waits for the device)."""
        return sum(int(count) for count in self._nonfinite.values())

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, also after steps; it shares the run's schedule, and its parameters count their own steps from 0."""
        if self.param_groups:
            for key in ("total_steps", "elapsed_steps", "artifact"):
                param_group.setdefault(key, self.param_groups[0][key])
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for key in ("lr", "weight_decay"):
            value = group[key]
            if not isinstance(value, Tensor) and not 0.0 <= value < float("inf"):
                self.param_groups.pop()
                raise ConfigError(f"{key} must be >= 0 and finite, got {value}")
        if not isinstance(group["embedding"], bool):
            self.param_groups.pop()
            raise ConfigError(f"embedding must be True or False, got {group['embedding']!r}; give embeddings a group of their own")
        for param in group["params"]:
            if not param.is_floating_point():
                self.param_groups.pop()
                raise ConfigError(f"parameters must be real floating-point tensors, got {param.dtype}")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; every state tensor keeps the dtype that it was saved with.

        Raises:
            IncompatibleCheckpointError: saved from another artifact, or for another `total_steps`; nothing has been changed.
        """

        def check(incoming: dict[str, Any]) -> None:
            for saved, group in zip(incoming["param_groups"], self.param_groups, strict=False):
                for key, fix in (("artifact", "build it from that artifact"), ("total_steps", "build it with that, then set_total_steps")):
                    if saved.get(key) != group[key]:
                        raise IncompatibleCheckpointError(f"state_dict has {key} {saved.get(key)!r}, the optimizer {group[key]!r}; {fix}")

        load_exactly(self, lambda: super(LearnedOptimizer, self).load_state_dict(state_dict), check)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and other processes need: torch keeps only groups and state."""
        own = {key: self.__dict__[key] for key in ("_source", "_compile", "_nonfinite", "_told")}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of `__getstate__`, or the groups and state that torch loads."""
        super().__setstate__(state)
        self._forget_derived()

    def _forget_derived(self) -> None:
        """Drop what can be made again: theta on devices, and the compiled step."""
        rule, theta = self._source.rule, self._source.theta
        self._stepper = WholeModel(rule, theta, self._compile) if is_model_rule(rule) else PerTensor(rule, theta, self._compile)

    def _check_total_steps(self, total_steps: int | None) -> None:
        if total_steps is None and self._source.needs_total_steps:
            raise ConfigError(f"total_steps is missing: {self._source.identity} reads the length of the run")
        if total_steps is not None and (isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 1):
            raise ConfigError(f"total_steps must be an integer >= 1 or None, got {total_steps!r}")

    def _members(self) -> list[Member]:
        """Return the parameters that have a gradient and elements."""
        members = []
        for number, group in enumerate(self.param_groups):
            for param in group["params"]:
                if param.grad is not None and param.numel() > 0:
                    members.append(Member(param, param.grad, group, number))
                    if param.grad.layout != torch.strided:
                        label = members[-1].label
                        raise RuntimeError(f"parameter {label} has a sparse gradient, which update rules cannot read; use a dense one")
        return members

    def _init_state(self, member: Member) -> None:
        """Give a parameter its state before its first step; `step` is a CPU tensor, as in `torch.optim`."""
        param = member.param
        working = param.detach().to(working_dtype(param))
        fresh = self._stepper.fresh_state(working, member.group, first=not any(self.state.values()))
        assert not {"step", MASTER} & fresh.keys(), f"rule {self._source.rule.name} uses a state key of the optimizer"
        state: dict[str, Tensor] = {"step": torch.tensor(0), **fresh}
        if working.dtype != param.dtype:
            state[MASTER] = working
        self.state[param] = state

    def _step_size(self, group: Mapping[str, Any]) -> float:
        """Return lr x base step x schedule. A learning rate that is a tensor on an accelerator is waited for."""
        size = float(group["lr"]) * self._source.base_step
        total, elapsed = group["total_steps"], group["elapsed_steps"]
        schedule = self._source.schedule
        if total is None or (schedule is None and not self._source.needs_total_steps):
            return size
        if elapsed >= total and "past the end" not in self._told:
            self._told.add("past the end")
            place = f"step {elapsed + 1} is past total_steps={total}"
            end = "the rule stays at its end" if schedule is None else f"the step size stays at {schedule.final_frac:g} of its peak"
            warnings.warn(f"{place}: {end}; set_total_steps extends the run", stacklevel=4)
        if schedule is None:
            return size
        return size * float(schedule_factor(schedule, torch.tensor(elapsed), torch.tensor(total, dtype=torch.float64)))

    def _count_nonfinite(self, batches: Sequence[Sequence[Member]]) -> None:
        """Add to the count on each device, without waiting for it. The sum of magnitudes is finite only if every element is."""
        for members in batches:
            device, dtype = members[0].param.device, working_dtype(members[0].param)
            total = torch.stack(torch._foreach_norm([member.grad for member in members], 1, dtype=dtype))
            bad = (~torch.isfinite(total)).sum()
            self._nonfinite[device] = self._nonfinite[device] + bad if device in self._nonfinite else bad

    def _look_at_nonfinite(self) -> None:
        elapsed = self.param_groups[0]["elapsed_steps"]
        due = elapsed % _LOOK_EVERY == 0
        if "non-finite" not in self._told and any(count > 0 for device, count in self._nonfinite.items() if due or device.type == "cpu"):
            self._told.add("non-finite")
            count = f"{self.nonfinite_gradients} gradient tensors had NaN or infinity by step {elapsed}"
            warnings.warn(f"{count}; they are passed on as they are (see nonfinite_gradients, GradScaler, gradient clipping)", stacklevel=3)
