"""A meta-learned (or hand-made) update rule as a drop-in `torch.optim.Optimizer`."""

import functools
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from metaopt.artifacts import Artifact
from metaopt.errors import ConfigError, IncompatibleCheckpointError
from metaopt.learners import schedule_factor
from metaopt.learners.update_rules import Theta, UpdateRule, fresh_state
from metaopt.optim.apply import MASTER, Chunk, advance_chunks, working_dtype
from metaopt.optim.loading import load_exactly
from metaopt.optim.source import resolve

__all__ = ["LearnedOptimizer"]

# Weights in one stack. Learned rules hold some hundred bytes a weight while they run: on a CPU larger stacks leave the cache and took
# twice as long a weight (measured, 2^17 against 2^20); an accelerator wants many, and the memory of a step is bounded.
_CPU_CHUNK, _CHUNK = 1 << 17, 1 << 22
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
    - With `total_steps`, the card's warm-up and cosine multiply the step; past the end it stays at the floor and says so once.

    Args:
        params: parameters, dict groups or `named_parameters()`; a group may set `lr`, `weight_decay`, `maximize` and `embedding`.
        artifact: a path, a bundled or cached name, a loaded `Artifact`, or any update rule (with its initial meta-parameters).
        lr: multiplies the base step that the card states, [0, inf). Schedulers read and write it.
        total_steps: length of the run for the card's schedule, >= 1, or None for a constant step.
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
        artifact: str | os.PathLike[str] | Artifact | UpdateRule,
        lr: float | Tensor = 1.0,
        total_steps: int | None = None,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        compile: bool = False,
    ) -> None:
        self._source = resolve(artifact)
        _check_total_steps(total_steps)
        if total_steps is None and self._source.needs_total_steps:
            raise ConfigError(f"total_steps is missing: {self._source.identity} reads the length of the run")
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
            ConfigError: the rule reads the loss and got none (with lr = 0 none is needed: torch's loaders make state that way).
            RuntimeError: a sparse gradient; nothing has been changed.
        """
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if loss is None and self._source.needs_loss and any(float(group["lr"]) != 0 for group in self.param_groups):
            raise ConfigError("step() got no loss, which this rule reads: pass a closure or step(loss=loss)")
        rates = torch.tensor([[self._step_size(group), float(group["weight_decay"])] for group in self.param_groups], dtype=torch.float64)
        chunks = [self._chunk(members, rates) for members in self._batches()]
        self._count_nonfinite(chunks)
        self._advance(chunks)
        steps = [self.state[param]["step"] for chunk in chunks for param in chunk.params]
        if steps:
            torch._foreach_add_(steps, 1)
        for group in self.param_groups:
            group["elapsed_steps"] += 1
        self._look_at_nonfinite()
        return loss

    def set_total_steps(self, total_steps: int | None) -> None:
        """Set or extend the length of the run, from the next step on."""
        _check_total_steps(total_steps)
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
        self._theta_on: dict[tuple[torch.device, torch.dtype], Theta] = {}
        self._compiled: Callable[[list[Chunk]], None] | None = None

    def _advance(self, chunks: list[Chunk]) -> None:
        if not self._compile:
            advance_chunks(self._source.rule, chunks)
            return
        if self._compiled is None:
            self._compiled = torch.compile(functools.partial(advance_chunks, self._source.rule), dynamic=False)
        self._compiled(chunks)

    def _batches(self) -> list[list[tuple[Tensor, int]]]:
        """Return (parameter, number of its group) pairs, a list for each chunk: those that may step together."""
        batches: dict[tuple[Any, ...], list[list[tuple[Tensor, int]]]] = {}
        for number, group in enumerate(self.param_groups):
            names = group.get("param_names")
            for place, param in enumerate(group["params"]):
                grad = param.grad
                if grad is None or param.numel() == 0:
                    continue
                if grad.layout != torch.strided:
                    name = repr(names[place]) if names else f"{place} of group {number}"
                    raise RuntimeError(f"parameter {name} has a sparse gradient, which update rules cannot read; use a dense one")
                kind = (group["maximize"], _is_embedding(group))
                key = (param.shape, param.dtype, grad.dtype, param.device, type(param.data), *kind)
                full = max(1, (_CPU_CHUNK if param.device.type == "cpu" else _CHUNK) // param.numel())
                lists = batches.setdefault(key, [[]])
                if len(lists[-1]) == full:
                    lists.append([])
                lists[-1].append((param, number))
        return [members for lists in batches.values() for members in lists]

    def _chunk(self, members: list[tuple[Tensor, int]], rates: Tensor) -> Chunk:
        """Return a chunk; `rates` [groups, 2] holds step size and weight decay."""
        params = [param for param, _ in members]
        groups = [self.param_groups[number] for _, number in members]
        states = [self.state[param] or self._init_state(param, group) for param, group in zip(params, groups, strict=True)]
        device, dtype = params[0].device, working_dtype(params[0])
        lr, weight_decay = rates[[number for _, number in members]].T.to(dtype).to(device).unbind(0)
        return Chunk(
            params=params,
            grads=[param.grad for param in params if param.grad is not None],
            state={key: [state[key] for state in states] for key in states[0] if key != "step"},
            t=torch.stack([state["step"] for state in states]).to(device, non_blocking=True),
            lr=lr,
            weight_decay=weight_decay,
            theta=self._theta_for(device, dtype),
            maximize=groups[0]["maximize"],
        )

    def _init_state(self, param: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Give a parameter its state before its first step; `step` is a CPU tensor, as in `torch.optim`."""
        working = param.detach().to(working_dtype(param))
        fresh = fresh_state(self._source.rule, working, _is_embedding(group))
        assert not {"step", MASTER} & fresh.keys(), f"rule {self._source.rule.name} uses a state key of the optimizer"
        state: dict[str, Tensor] = {"step": torch.tensor(0), **fresh}
        if working.dtype != param.dtype:
            state[MASTER] = working
        self.state[param] = state
        return state

    def _theta_for(self, device: torch.device, dtype: torch.dtype) -> Theta:
        if (device, dtype) not in self._theta_on:
            self._theta_on[device, dtype] = {key: value.to(device, dtype) for key, value in self._source.theta.items()}
        return self._theta_on[device, dtype]

    def _step_size(self, group: Mapping[str, Any]) -> float:
        """Return lr x base step x schedule. A learning rate that is a tensor on an accelerator is waited for."""
        size = float(group["lr"]) * self._source.base_step
        total, elapsed = group["total_steps"], group["elapsed_steps"]
        if self._source.schedule is None or total is None:
            return size
        if elapsed >= total and "past the end" not in self._told:
            self._told.add("past the end")
            place = f"step {elapsed + 1} is past total_steps={total}"
            floor = f"the step size stays at {self._source.schedule.final_frac:g} of its peak; set_total_steps extends the run"
            warnings.warn(f"{place}: {floor}", stacklevel=4)
        return size * float(schedule_factor(self._source.schedule, torch.tensor(elapsed), torch.tensor(total, dtype=torch.float64)))

    def _count_nonfinite(self, chunks: list[Chunk]) -> None:
        """Add to the count on each device, without waiting for it. The sum of magnitudes is finite only if every element is."""
        for chunk in chunks:
            device = chunk.params[0].device
            total = torch.stack(torch._foreach_norm(chunk.grads, 1, dtype=working_dtype(chunk.params[0])))
            bad = (~torch.isfinite(total)).sum()
            self._nonfinite[device] = self._nonfinite[device] + bad if device in self._nonfinite else bad

    def _look_at_nonfinite(self) -> None:
        elapsed = self.param_groups[0]["elapsed_steps"]
        due = elapsed % _LOOK_EVERY == 0
        if "non-finite" not in self._told and any(count > 0 for device, count in self._nonfinite.items() if due or device.type == "cpu"):
            self._told.add("non-finite")
            count = f"{self.nonfinite_gradients} gradient tensors had NaN or infinity by step {elapsed}"
            warnings.warn(f"{count}; they are passed on as they are (see nonfinite_gradients, GradScaler, gradient clipping)", stacklevel=3)


def _is_embedding(group: Mapping[str, Any]) -> bool:
    return bool(group.get("embedding", False))  # a state_dict of an earlier version has no such key


def _check_total_steps(total_steps: int | None) -> None:
    if total_steps is not None and (isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 1):
        raise ConfigError(f"total_steps must be an integer >= 1 or None, got {total_steps!r}")
