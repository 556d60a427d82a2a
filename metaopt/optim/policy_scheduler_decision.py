"""One decision: from what was seen to a choice for every head, on the host, and the same bits wherever the weights are.

Legend: I = 161 inputs, H = 9 heads, K = 8 knobs.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metaopt.learners.policies.knobs import HEADS, KNOBS, REGISTER_ACTIONS, TABLES, head_mask, turned
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec, greedy
from metaopt.learners.policies.observation import INPUTS, Measured, ObservationState, observation_start, observe
from metaopt.optim.policy_scheduler_registers import Registers
from metaopt.optim.policy_scheduler_seen import Numbers

__all__ = ["Decider", "Decision", "Situation"]

_NONE = -1


class Situation(NamedTuple):
    """What a decision depends on.

    Attributes:
        numbers: measured since the last one.
        eval_loss: None where there is none.
        progress: share of the run that is spent.
        values: knobs in the policy's coordinates [K].
        knobs: those that may be turned now.
        saves: whether there are registers.
        registers: what is known of them.
    """

    numbers: Numbers
    eval_loss: float | None
    progress: float
    values: Tensor
    knobs: list[str]
    saves: bool
    registers: Registers


class Decision(NamedTuple):
    """What was decided.

    Attributes:
        action: choice of each head [H] int64; -1 where masked.
        values: knobs after it, in the policy's coordinates [K].
        inputs: what the network saw [I] float32.
        train_loss, eval_loss: mean training loss, and evaluation loss, NaN for none.
        has_eval: whether there is one.
        hand_over: a guard rail takes the rate away from the policy.
        rescue: a guard rail chose the register to load.
    """

    action: Tensor
    values: Tensor
    inputs: Tensor
    train_loss: float
    eval_loss: float
    has_eval: bool
    hand_over: bool
    rescue: bool

    @property
    def register_action(self) -> int:
        """Index into `REGISTER_ACTIONS`."""
        return max(0, int(self.action[0]))

    @property
    def loss(self) -> float:
        """What a register is remembered by."""
        return self.eval_loss if self.has_eval else self.train_loss

    def vector(self) -> Tensor:
        """Return all of it as numbers, float64, for other ranks."""
        rest = torch.tensor([self.train_loss, self.eval_loss, self.has_eval, self.hand_over, self.rescue], dtype=torch.float64)
        return torch.cat([self.action.double(), self.values, self.inputs.double(), rest])

    @classmethod
    def from_vector(cls, numbers: Tensor) -> "Decision":
        """Return the decision that `vector` came from, with the same bits."""
        action, values, inputs, rest = torch.split(numbers, [len(HEADS), len(KNOBS), INPUTS, 5])
        train_loss, eval_loss, *flags = rest.tolist()
        return cls(action.long(), values, inputs.float(), train_loss, eval_loss, *map(bool, flags))

    @classmethod
    def empty(cls) -> "Decision":
        """Return one of the right size, for a rank that does not decide."""
        return cls.from_vector(torch.zeros(len(HEADS) + len(KNOBS) + INPUTS + 5, dtype=torch.float64))


class Decider:
    """The policy's network with its memory.

    Args:
        network: of a `PolicySpec`.
        start: knobs at the start of the run, in the policy's coordinates [K].
        limits: least and largest rate in these coordinates.
        guard: whether a run that is not finite is taken away from the policy.
    """

    def __init__(self, network: PolicyNetwork, start: Tensor, limits: tuple[float, float], guard: bool) -> None:
        assert isinstance(network.spec, PolicySpec)
        self.start = start
        self._network, self._spec, self._table = network, network.spec, TABLES[network.spec.table]
        self._limits, self._guard = limits, guard
        self._memory = network.initial_state(())
        self._observation = observation_start()
        self._action = torch.full((len(HEADS),), _NONE)

    def decide(self, now: Situation) -> Decision:
        """Return the most likely choice of each head, and move the memory on."""
        numbers, has_eval = now.numbers, now.eval_loss is not None
        eval_loss = math.nan if now.eval_loss is None else now.eval_loss
        mask = head_mask([name for name in now.knobs if name in self._spec.knobs], now.saves and self._spec.registers)
        self._observation, inputs = observe(self._observation, self._measured(now, mask), self._table)
        logits, self._memory = self._network.step(inputs, self._memory)
        action = torch.where(mask, greedy(logits, self._spec.nvec), _NONE)
        looked_at = (numbers.train_loss, numbers.param_norm, *((eval_loss,) if has_eval else ()))
        lost = self._guard and not all(map(math.isfinite, looked_at))
        register = now.registers.best() if lost and now.saves else None
        if register is not None:
            action[0] = 1 + register
        self._action = action
        values = turned(self._table, now.values, action, mask[1:])
        if mask[1]:
            values[0] = values[0].clamp(*self._limits)
        hand_over = lost and register is None and "lr" in now.knobs
        if hand_over:
            values = torch.cat([now.values[:1] * 0.5, now.values[1:]])
        return Decision(action, values, inputs, numbers.train_loss, eval_loss, has_eval, hand_over, register is not None)

    def described(self, decision: Decision) -> dict[str, Any]:
        """Return the entry of the log: numbers and texts."""
        chosen: dict[str, Any] = {}
        for name, index, choices in zip(HEADS, decision.action.tolist(), (REGISTER_ACTIONS, *self._table.factors), strict=True):
            if index != _NONE:
                chosen[name] = choices[index]
        notes = []
        if decision.hand_over:
            notes.append("the run is not finite and no register is filled: lr is halved and falls along a cosine from here on")
        if decision.rescue:
            notes.append(f"the run is not finite: register {decision.register_action - 1} is loaded, which was the best one")
        losses = {"train_loss": decision.train_loss, "eval_loss": decision.eval_loss if decision.has_eval else None}
        return {**losses, "action": chosen, "inputs": decision.inputs.tolist(), "notes": notes}

    def state_dict(self) -> dict[str, Any]:
        """Return memory, histories and the last action."""
        h, c = (part.clone() for part in self._memory)
        observation = {name: value.clone() for name, value in self._observation.flat().items()}
        return {"h": h, "c": c, "observation": observation, "action": self._action.clone(), "start": self.start.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._memory = state["h"].clone(), state["c"].clone()
        self._observation = ObservationState.from_flat({name: value.clone() for name, value in state["observation"].items()})
        self._action, self.start = state["action"].clone(), state["start"].clone()

    def _measured(self, now: Situation, mask: Tensor) -> Measured:
        def number(value: float) -> Tensor:
            return torch.tensor(value, dtype=torch.float64)

        numbers, registers = now.numbers, now.registers
        return Measured(
            statistics=torch.tensor(numbers.statistics, dtype=torch.float64),
            train_loss=number(numbers.train_loss),
            eval_loss=number(0.0 if now.eval_loss is None else now.eval_loss),
            has_eval=torch.tensor(now.eval_loss is not None),
            update_norm=number(numbers.update_norm),
            param_norm=number(numbers.param_norm),
            progress=number(now.progress),
            values=now.values,
            start=self.start,
            action=self._action,
            head_mask=mask,
            register_loss=torch.tensor(registers.loss, dtype=torch.float64),
            register_filled=torch.tensor(registers.filled),
            register_progress=torch.tensor(registers.progress, dtype=torch.float64),
        )
