"""Sampled gradients: evolution strategies on the inner loss, and gradients seen along random directions only.

Legend: K pairs or directions, P weights of the whole model.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import vmap

from metaopt.tasks.augmentations.draws import normal, normal_like
from metaopt.tasks.augmentations.norms import dot, safe_norm
from metaopt.tasks.augmentations.wrapper import Augmentation, Count, Keyed, Positive, wrapped
from metaopt.tasks.sampling import Sampler
from metaopt.tasks.task import Batch, GradientState, Numbers, Params, Task, program_gradients

__all__ = ["EvolutionGradients", "RandomDirections", "WithEvolutionGradients", "WithRandomDirections"]


@dataclass(frozen=True)
class WithEvolutionGradients(Keyed):
    """Antithetic ES instead of backpropagation: mean over K pairs of (L(p + std e) - L(p - std e)) / (2 std) e, e ~ N(0, I).

    Unbiased for a quadratic loss, whatever `std`; costs 2 K + 1 forward passes. The recorded loss is that of the weights themselves.

    Numbers: those of `program`, and `evolution_gradients` (std, in units of the inner program's weights). Batches carry
    `evolution_gradients.key`.
    """

    drawn_as: ClassVar[str] = "evolution_gradients"
    pairs: int = 1

    def gradients(self, numbers: Numbers, params: Params, batch: Batch, state: GradientState) -> tuple[Params, Tensor, GradientState]:
        """Return the ES gradients and the exact loss; the inner program's own gradients, if any, are not used."""
        std = numbers[self.drawn_as]
        noise = normal_like(self.key(batch), params, self.pairs)

        def moved(sign: float) -> Tensor:
            return vmap(lambda e: self.loss(numbers, {k: p + sign * std * e[k] for k, p in params.items()}, batch))(noise)

        slope_K = (moved(1.0) - moved(-1.0)) / (2.0 * std * self.pairs)
        grads = {name: torch.tensordot(slope_K, e, dims=1) for name, e in noise.items()}
        return grads, self.loss(numbers, params, batch), state


@dataclass(frozen=True)
class EvolutionGradients(Augmentation):
    """Options of ES gradients.

    Attributes:
        std: closed range of the log-uniform standard deviation of a perturbation.
        pairs: closed range of the number of antithetic pairs; static, hence one of the powers of two in the range (its lower end if
            there is none), each as likely as the others, so that few programs have to be compiled.
    """

    name: ClassVar[str] = "evolution_gradients"
    std: tuple[Positive, Positive] = (1e-3, 0.1)
    pairs: tuple[Count, Count] = (1, 16)

    def settle(self, seed: int) -> "EvolutionGradients":
        """Return the same with its number of pairs drawn."""
        low, high = self.pairs
        choices = [2**i for i in range(high.bit_length()) if low <= 2**i <= high] or [low]
        count = choices[int(Sampler("augmentation", self.name, seed).uniform("pairs", 0, len(choices)))]
        return self if low == high else replace(self, pairs=(count, count))

    def apply(self, task: Task, seed: int) -> Task:
        """Return the task with ES gradients."""
        std = Sampler("augmentation", self.name, seed).log_uniform("std", *self.std)
        program = WithEvolutionGradients(task.program, self.settle(seed).pairs[0])
        return wrapped(task, program, {self.name: torch.tensor(std, dtype=task.horizon.dtype)})


@dataclass(frozen=True)
class WithRandomDirections(Keyed):
    """The mean over K random directions d ~ N(0, I) of (d . g) d: the gradient g as K forward derivatives would show it, unbiased.

    Drawn in one piece, not direction by direction. With u = g / |g| and a_k = d_k . u, the mean is |g| / K (sum a_k^2 u + sum a_k d'_k),
    where d'_k, the part of d_k across u, is independent of a_k. So it has the distribution of

        (S / K) g + (sqrt(S) / K) |g| (z - (z . u) u),    S ~ chi-squared with K degrees of freedom, z ~ N(0, I),

    at the cost of one draw of P numbers for any K. K is therefore a number, and one program serves all of them. It is a smooth function of
    g, so that antithetic members see the same directions.

    Numbers: those of `program`, and `random_directions` (K). Batches: `random_directions.key`.
    """

    drawn_as: ClassVar[str] = "random_directions"
    most: int = 1024

    def gradients(self, numbers: Numbers, params: Params, batch: Batch, state: GradientState) -> tuple[Params, Tensor, GradientState]:
        """Return the inner program's gradients along random directions, and its loss."""
        grads, loss, state = program_gradients(self.program, numbers, params, batch, state)
        count, key = numbers[self.drawn_as], self.key(batch)
        across = {name: z[0] for name, z in normal_like(key, grads, 1).items()}
        squares = normal(key, self.most, loss.dtype, stream=1).square()
        chi = torch.where(torch.arange(self.most, device=key.device) < count, squares, 0.0).sum()
        norm, divisor = safe_norm(grads)
        along = dot(across, grads) / divisor  # z . u
        keep, spread = chi / count, torch.sqrt(chi) / count
        seen = {name: keep * g + spread * (norm * across[name] - along * g) for name, g in grads.items()}
        return seen, loss, state


@dataclass(frozen=True)
class RandomDirections(Augmentation):
    """Options of random-direction gradients.

    Attributes:
        directions: closed range of the log-uniform number of directions.
    """

    name: ClassVar[str] = "random_directions"
    directions: tuple[Count, Count] = (1, 1024)

    def apply(self, task: Task, seed: int) -> Task:
        """Return the task with its gradients along random directions."""
        count = Sampler("augmentation", self.name, seed).log_integer("directions", *self.directions)
        program = WithRandomDirections(task.program, self.directions[1])
        return wrapped(task, program, {self.name: torch.tensor(float(count), dtype=task.horizon.dtype)})
