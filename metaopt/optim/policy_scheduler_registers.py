"""Three registers over the callbacks of a user: what a policy's choices load and save, and where.

A swap puts the present run where the register was and the register where the run is. Callbacks cannot exchange, so there is one place more
than there are registers: the run is saved to the free one, and the old one becomes free. Slots that callbacks get are 0, 1, 2 and 3.

As in training, an empty register loads nothing, and a swap with one saves.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from metaopt.learners.policies.knobs import REGISTERS

__all__ = ["SLOTS", "Registers"]

SLOTS = REGISTERS + 1
Slot = Callable[[int], Any]


@dataclass
class Registers:
    """What is known of each register; the weights themselves are the user's.

    Attributes:
        loss: evaluation loss when saved, training loss without one.
        progress: share of the budget that was spent then.
        filled: whether anything was saved.
        slot: where, for callbacks.
        free: the slot that no register has.
    """

    loss: list[float] = field(default_factory=lambda: [0.0] * REGISTERS)
    progress: list[float] = field(default_factory=lambda: [0.0] * REGISTERS)
    filled: list[bool] = field(default_factory=lambda: [False] * REGISTERS)
    slot: list[int] = field(default_factory=lambda: list(range(REGISTERS)))
    free: int = REGISTERS

    def act(self, action: int, loss: float, progress: float, save: Slot, load: Slot) -> bool:
        """Carry out a choice of the register head and return whether the run was replaced.

        Args:
            action: index into `REGISTER_ACTIONS`: 0 none, then loads, saves and swaps.
            loss, progress: of the run as it is now.
            save: stores the run in a slot.
            load: puts back what a slot holds.
        """
        if action == 0:
            return False
        verb, register = divmod(action - 1, REGISTERS)
        loads, saves = verb in (0, 2) and self.filled[register], verb in (1, 2)
        old = self.slot[register]
        if saves and loads:
            save(self.free)
            self.slot[register], self.free = self.free, old
        elif saves:
            save(old)
        if loads:
            load(old)
        if saves:
            self.loss[register], self.progress[register], self.filled[register] = loss, progress, True
        return loads

    def best(self) -> int | None:
        """Return the filled register of the least loss; None if no filled one has a finite loss."""
        usable = [i for i in range(REGISTERS) if self.filled[i] and math.isfinite(self.loss[i])]
        return min(usable, key=lambda i: self.loss[i], default=None)
