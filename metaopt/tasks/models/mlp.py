"""Fully connected networks.

Legend: B batch, D features, C classes. Weights are [out, in] (convolutions [out, in, height, width]), as in torch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.models.parametrisation import check_parametrisation
from metaopt.tasks.models.parts import ACTIVATIONS, check_parts, head_weight, linear, norm_params, normed, weight
from metaopt.tasks.task import Params

__all__ = ["MLP"]


@dataclass(frozen=True)
class MLP:
    """Fully connected layers `sizes[0] -> ... -> sizes[-1]`; between them a normalisation (one of `NORMS`), then an activation.

    With `parametrisation="mu"` (maximal update), step sizes that are good at one width stay good at others: input and hidden weights have
    variance 1 / fan_in (times the scale), biases are standard normal, the last layer's weights begin at zero and what it gives (bias
    included) is divided by its fan_in, and `step_scales` asks learners to divide the steps of hidden matrices by their fan_in.

    Source: Therien et al., 2024, "muLO", table 1, and its code release for the last bias; Yang et al., 2022, "Tensor Programs V", table 8.
    """

    sizes: tuple[int, ...]
    activation: str
    initialiser: str = "normal"
    norm: str = "none"
    parametrisation: str = "standard"

    def __post_init__(self) -> None:
        """Refuse parts that do not exist and sizes that make no network."""
        check_parts(self.activation, self.initialiser, self.norm)
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise TaskError(f"MLP sizes must be at least two numbers >= 1, got {self.sizes}")
        check_parametrisation(self.parametrisation, self.initialiser)
        if self.parametrisation == "mu" and len(self.sizes) < 3:
            raise TaskError(f"parametrisation 'mu' needs a hidden layer, got MLP sizes {self.sizes}")

    @property
    def step_scales(self) -> dict[str, float]:
        """Factors of the step size by parameter name; {} in the standard parametrisation."""
        hidden = range(1, len(self.sizes) - 2) if self.parametrisation == "mu" else ()
        return {f"layer{i}.weight": 1.0 / self.sizes[i] for i in hidden}

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights of the initialiser at `scale`, zero biases and unit gains (see `MLP` for the other parametrisation)."""
        params: Params = {}
        last = len(self.sizes) - 2
        mu = self.parametrisation == "mu"
        for i, (fan_in, fan_out) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            draw = weight if i < last else head_weight
            drawn = draw(seeds.fold_in(key, i), (fan_out, fan_in), scale, self.initialiser)
            params[f"layer{i}.weight"] = torch.zeros_like(drawn) if mu and i == last else drawn
            bias = seeds.normal(seeds.fold_in(key, len(self.sizes) + i), (fan_out,), scale.dtype) if mu else scale.new_zeros(fan_out)
            params[f"layer{i}.bias"] = bias
            if i < last:
                params |= norm_params(self.norm, f"norm{i}", fan_out, scale)
        return params

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, C] of inputs [B, ...], flattened to [B, D]."""
        return self.preactivations(params, inputs)[-1]

    def preactivations(self, params: Params, inputs: Tensor) -> list[Tensor]:
        """Return what each layer gives before normalisation and activation, [B, width] each; the last are the logits."""
        last = len(self.sizes) - 2
        hidden, found = inputs.reshape(inputs.shape[0], -1), []
        for i in range(last + 1):
            found.append(linear(params, f"layer{i}", hidden))
            if i < last:
                hidden = ACTIVATIONS[self.activation](normed(self.norm, params, f"norm{i}", found[i]))
        return [*found[:-1], found[-1] / self.sizes[-2]] if self.parametrisation == "mu" else found
