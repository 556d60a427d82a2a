"""A loss in other units: the same problem with loss and gradient times a constant."""

from dataclasses import dataclass

from torch import Tensor

from metaopt.tasks.augmentations.wrapper import Wrapper
from metaopt.tasks.task import Batch, GradientState, Numbers, Params

__all__ = ["WithScaledLoss"]


@dataclass(frozen=True)
class WithScaledLoss(Wrapper):
    """c L instead of L: loss and gradient are c times those of the program inside, and the normalised loss divides c out again.

    For c = 2**j both are exact as long as nothing leaves the range of its dtype.

    Numbers: those of `program`, and `loss_scale` (c > 0).
    """

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return c times the inner program's loss."""
        return numbers["loss_scale"] * self.program.loss(numbers, params, batch)

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        """Return the inner program's normalised loss of raw / c."""
        return self.program.normalise(numbers, raw / numbers["loss_scale"])

    def gradients(self, numbers: Numbers, params: Params, batch: Batch, state: GradientState) -> tuple[Params, Tensor, GradientState]:
        """Return c times the inner program's gradients and loss, and its state."""
        grads, loss, state = super().gradients(numbers, params, batch, state)
        c = numbers["loss_scale"]
        return {name: c * g for name, g in grads.items()}, c * loss, state
