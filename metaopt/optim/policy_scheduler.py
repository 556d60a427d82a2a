"""A trained policy that sets the hyperparameters of any optimizer of `torch.optim` while it runs."""

import copy
import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from metaopt.artifacts import Artifact
from metaopt.artifacts.policy import find_policy, load_policy
from metaopt.errors import ConfigError, IncompatibleCheckpointError
from metaopt.learners.policies.network import PolicySpec
from metaopt.learners.policies.timing import decision_steps, measured_steps
from metaopt.optim.policy_scheduler_decision import Decider, Decision, Situation
from metaopt.optim.policy_scheduler_guard import Handover, rate_limits
from metaopt.optim.policy_scheduler_knobs import Coordinates, frozen_steps, initial_knobs, knows_highest_rate, read_knobs, write_knobs
from metaopt.optim.policy_scheduler_ranks import from_rank_zero, is_rank_zero, refuse_shards
from metaopt.optim.policy_scheduler_registers import Registers
from metaopt.optim.policy_scheduler_seen import Seen
from metaopt.optim.policy_scheduler_statistics import Before, before_step, check_step, step_statistics

__all__ = ["PolicyScheduler"]

_STATE_VERSION = 1


class PolicyScheduler:
    """Set hyperparameters of an optimizer by a policy, at some tens of decisions over a run of known length.

    Call `step(train_loss=...)` after each `optimizer.step()`. At a decision the policy looks at statistics of the last steps,
    which hooks of the optimizer measured, and turns each hyperparameter that the optimizer has by a factor. What the optimizer, the loop or
    the policy's training lacks is masked, as it was at random in training: knobs, registers without callbacks, evaluation losses.

    - The policy begins with what the optimizer was built with and changes it relatively; groups keep their proportions of `lr`,
      `weight_decay` and `eps`. See `metaopt.optim.policy_scheduler_knobs` for which knobs an optimizer has.
    - Steps that an optimizer did not take (a `GradScaler` that found an overflow) do not count, because its hooks do not run.
    - In a data-parallel run rank 0 decides for all; every rank calls `step`, and `eval_fn`, `save_fn` and `load_fn` are called on each.
    - Copies and pickles of the optimizer are without its hooks; copies of the scheduler have a copy of the optimizer with hooks.

    Attributes:
        decision_log: a plain dict for each decision: when, what was seen, chosen and set, and what guard rails did.
        artifact: name and fingerprint of the policy.

    Args:
        optimizer: any of `torch.optim` but LBFGS, or with its interface, with a learning rate above 0.
        artifact: path, bundled or cached name, or a loaded `Artifact`, with interface `hyperparameter_policy/1`.
        total_steps: length of the run in optimizer steps, >= 1. A policy plans by the share of it that is spent.
        decisions: how many, evenly spaced; fewer where the run is too short for them.
        eval_fn: returns a loss on held-out data, always the same; called at decisions, without gradients. It switches the modes of layers.
        save_fn: called with a slot from 0 to 3, stores model and optimizer there.
        load_fn: puts back what a slot holds. Both or neither.
        guard: keeps the rate within 1e-3 and 100 times its start, loads the best register when the loss is not finite, and without one
            halves the rate and lets it fall along a cosine from there on. Two factors widen or narrow the range; False is none of it.
        dry_run: log decisions and set nothing.

    Raises:
        ConfigError: an argument out of range, an artifact of another kind, an optimizer that cannot be controlled.
        UnsafeArtifactError: a damaged artifact.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        artifact: str | os.PathLike[str] | Artifact,
        total_steps: int | None = None,
        decisions: int = 64,
        eval_fn: Callable[[], Any] | None = None,
        save_fn: Callable[[int], Any] | None = None,
        load_fn: Callable[[int], Any] | None = None,
        guard: bool | tuple[float, float] = True,
        dry_run: bool = False,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise ConfigError("LBFGS takes many evaluations a step and chooses its own step sizes; PolicyScheduler needs another optimizer")
        if total_steps is None:
            raise ConfigError("PolicyScheduler needs total_steps, the length of the run in optimizer steps: a policy plans by it")
        if (save_fn is None) != (load_fn is None):
            raise ConfigError("registers need both save_fn and load_fn; give the other one too, or neither")
        refuse_shards(optimizer)
        self._steps = decision_steps(total_steps, decisions)
        source = find_policy(artifact)
        network = load_policy(source)
        assert isinstance(network.spec, PolicySpec)
        self.optimizer, self.total_steps, self.decisions = optimizer, total_steps, decisions
        self.artifact = f"{source.name}@{source.fingerprint}"
        self.decision_log: list[dict[str, Any]] = []
        self._eval_fn, self._save, self._load, self._guard, self._dry_run = eval_fn, save_fn, load_fn, guard, dry_run
        self._start = initial_knobs(optimizer)
        self._units = Coordinates(optimizer, self._start)
        highest = source.card["limits"].get("max_lr") if knows_highest_rate(optimizer) else None
        limits = rate_limits(guard, self._start["lr"], highest)
        self._decider = Decider(network, self._units.to_policy(self._start), limits, guard is not False)
        self._values = self._decider.start
        self._shares: dict[str, list[float]] = {}
        self._set({})  # notes the groups' proportions
        self._registers, self._seen = Registers(), Seen()
        self._taken = self._counted = self._index = 0  # steps of the optimizer, of them followed by `step`, decisions
        self._eval_loss: float | None = None
        self._handover: Handover | None = None
        self._told: set[str] = set()
        self._hooks: list[RemovableHandle] = []
        self._attach()

    @torch.no_grad()
    def step(self, train_loss: Tensor | float, eval_loss: Tensor | float | None = None) -> None:
        """Count the optimizer's step, and decide if a decision is due.

        Args:
            train_loss: of that step, 0-d or a number; a tensor is not waited for. The policy sees its mean since the last decision.
            eval_loss: on held-out data, where there is no `eval_fn`; a decision uses the last one since the decision before.
        """
        if eval_loss is not None:
            self._eval_loss = float(eval_loss.detach() if isinstance(eval_loss, Tensor) else eval_loss)
        if self._counted == self._taken:
            return  # the optimizer has skipped its step
        self._counted = self._taken
        self._seen.add_loss(train_loss)
        if self._taken > self.total_steps:
            self._tell(
                "past the end", f"step {self._taken} is past total_steps={self.total_steps} of {self.artifact}: the last values stay"
            )
        elif self._handover is not None:
            self._set({"lr": self._handover.rate(self._taken, self.total_steps)})
        elif self._index < len(self._steps) and self._taken >= self._steps[self._index]:
            while self._index + 1 < len(self._steps) and self._taken >= self._steps[self._index + 1]:
                self._index += 1  # `step` was not called for a while: what was missed stays out
            self._decide()

    def close(self) -> None:
        """Take the hooks off the optimizer; its hyperparameters stay as they are."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def __enter__(self) -> "PolicyScheduler":
        """Return the scheduler, for a block that ends with `close`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next steps depend on beside the optimizer, as tensors, numbers and texts; as large as the weights.

        Where several ranks run, take that of rank 0, which alone has looked.
        """
        plain = {key: copy.deepcopy(self.__dict__[f"_{key}"]) for key in _PLAIN}
        handover = None if self._handover is None else [self._handover.step, self._handover.lr]
        own = {"version": _STATE_VERSION, "artifact": self.artifact, "total_steps": self.total_steps, "decisions": self.decisions}
        parts = {"seen": self._seen.state_dict(), "decider": self._decider.state_dict(), "registers": copy.deepcopy(vars(self._registers))}
        log = copy.deepcopy(self.decision_log)
        return {**own, **plain, **parts, "values": self._values.clone(), "handover": handover, "told": sorted(self._told), "log": log}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned, bit for bit, once the optimizer and the model have been loaded too.

        Raises:
            IncompatibleCheckpointError: saved from another artifact, run length or optimizer; nothing has been changed.
        """
        own = {"version": _STATE_VERSION, "artifact": self.artifact, "total_steps": self.total_steps, "decisions": self.decisions}
        for key, value in own.items():
            if state_dict.get(key) != value:
                raise IncompatibleCheckpointError(
                    f"state_dict has {key} {state_dict.get(key)!r}, the scheduler {value!r}; build it with that one"
                )
        if list(state_dict["start"]) != list(self._start):
            had, has = (", ".join(names) for names in (state_dict["start"], self._start))
            raise IncompatibleCheckpointError(f"state_dict is of an optimizer with {had}, this one has {has}; build the same optimizer")
        self._seen.load_state_dict(state_dict["seen"], self.optimizer)
        self._decider.load_state_dict(state_dict["decider"])
        self._registers = Registers(**copy.deepcopy(state_dict["registers"]))
        for key in _PLAIN:
            setattr(self, f"_{key}", copy.deepcopy(state_dict[key]))
        self._units = Coordinates(self.optimizer, self._start)
        self._values, self._told = state_dict["values"].clone(), set(state_dict["told"])
        self._handover = None if state_dict["handover"] is None else Handover(*state_dict["handover"])
        self.decision_log = copy.deepcopy(state_dict["log"])
        self._plan_measurements()

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and other processes need: hooks are attached again."""
        return {**self.__dict__, "_hooks": [], "_before": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of `__getstate__`."""
        self.__dict__.update(state)
        self._attach()

    def _attach(self) -> None:
        self._before: Before | None = None
        register = self.optimizer.register_step_pre_hook, self.optimizer.register_step_post_hook
        self._hooks = [register[0](self._pre_hook), register[1](self._post_hook)]
        self._plan_measurements()

    def _plan_measurements(self) -> None:
        """Note the steps to measure before the next decision."""
        over = self._handover is not None or self._index >= len(self._steps)
        begin = self._steps[self._index - 1] if self._index else 0
        self._measured = frozenset(() if over else measured_steps(begin, self._steps[self._index]))

    @torch.no_grad()
    def _pre_hook(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        check_step(optimizer, args, kwargs)
        if not self._seen.remembers and is_rank_zero():
            self._seen.remember(optimizer)
        self._before = before_step(optimizer) if self._taken in self._measured and is_rank_zero() else None

    @torch.no_grad()
    def _post_hook(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._taken += 1
        if self._before is not None:
            row = step_statistics(optimizer, self._before, self._taken)
            self._before = None
            if row is not None:
                self._seen.add_row(row)

    def _decide(self) -> None:
        eval_loss = self._eval_loss if self._eval_fn is None else float(self._eval_fn())
        others = self._notice_others()
        before = self._units.to_policy(read_knobs(self.optimizer, self._start)) if self._dry_run else self._values
        decision = Decision.empty()
        if is_rank_zero():
            decision = self._decider.decide(self._situation(before, eval_loss))
        decision = Decision.from_vector(from_rank_zero(decision.vector(), self._device))
        if not self._dry_run:
            self._apply(decision)
        told: dict[str, Any] = {"decision": self._index, "step": self._taken, "progress": self._taken / self.total_steps}
        told |= self._decider.described(decision) | {"values": self._units.from_policy(decision.values), "applied": not self._dry_run}
        self.decision_log.append({**told, "notes": [*told["notes"], *others]})
        self._index += 1
        self._eval_loss = None
        self._seen.forget()
        if is_rank_zero():
            self._seen.remember(self.optimizer)
        self._plan_measurements()

    def _situation(self, values: Tensor, eval_loss: float | None) -> Situation:
        frozen = self._taken < frozen_steps(self.optimizer)
        knobs = [name for name in self._start if not (frozen and name.startswith("one_minus_beta"))]
        numbers = self._seen.numbers(self.optimizer)
        return Situation(numbers, eval_loss, self._taken / self.total_steps, values, knobs, self._save is not None, self._registers)

    def _apply(self, decision: Decision) -> None:
        replaced = False
        if self._save is not None and self._load is not None:
            now = decision.loss, self._taken / self.total_steps
            replaced = self._registers.act(decision.register_action, *now, self._save, self._load)
        old, new = self._units.from_policy(self._values), self._units.from_policy(decision.values)
        self._values = decision.values
        self._set({name: value for name, value in new.items() if replaced or value != old[name]})  # a load brings old values back
        if decision.hand_over:
            self._handover = Handover(self._taken, new["lr"])

    def _set(self, values: dict[str, float]) -> None:
        write_knobs(self.optimizer, values, self._start, self._shares)

    def _notice_others(self) -> list[str]:
        """Return a note if somebody else has set the rate since the last decision."""
        found, expected = read_knobs(self.optimizer, self._start)["lr"], self._units.from_policy(self._values)["lr"]
        if self._dry_run or math.isclose(found, expected, rel_tol=1e-6):
            return []
        note = f"something else has set lr to {found:g}, where this scheduler had left {expected:g}"
        self._tell("others", f"{note}; use one of them")
        return [note]

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            warnings.warn(text, stacklevel=4)

    @property
    def _device(self) -> torch.device:
        return torch.device(self.optimizer.param_groups[0]["params"][0].device)


_PLAIN = ("start", "shares", "taken", "counted", "index", "eval_loss")  # attributes that are numbers and texts
