"""Autoencoders: a fully connected encoder and decoder around a narrow code.

Legend: B batch, D pixels, Z code. Weights are [out, in], as in torch.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.models.parts import ACTIVATIONS
from metaopt.tasks.models.small_head import SmallHead
from metaopt.tasks.task import Params

__all__ = ["Autoencoder", "VariationalAutoencoder", "gaussian_kl"]


def _under(name: str, params: Params) -> Params:
    return {f"{name}.{key}": value for key, value in params.items()}


def _below(name: str, params: Params) -> Params:
    return {key.removeprefix(f"{name}."): value for key, value in params.items() if key.startswith(f"{name}.")}


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of N(mean, variance) from N(0, 1), summed over the last axis, in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(-1)


@dataclass(frozen=True)
class _AroundACode(ABC):
    """What both kinds have: D -> widths -> an encoder's outputs; Z -> reversed widths -> D, the last layer at a tenth of its usual size."""

    features: int
    widths: tuple[int, ...]
    code: int
    activation: str
    initialiser: str = "normal"

    @property
    @abstractmethod
    def encoder(self) -> MLP | SmallHead:
        """The net from pixels to what the code is made of."""

    @property
    def decoder(self) -> SmallHead:
        """The net from the code to pixels."""
        return SmallHead(MLP((self.code, *reversed(self.widths), self.features), self.activation, self.initialiser))

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights of the initialiser at `scale` and zero biases."""
        encoder, decoder = self.encoder.init(seeds.fold_in(key, 0), scale), self.decoder.init(seeds.fold_in(key, 1), scale)
        return _under("encoder", encoder) | _under("decoder", decoder)


class Autoencoder(_AroundACode):
    """D -> widths -> Z -> reversed widths -> D; an activation follows every layer but the last, the code included.

    Source: Metz et al., 2022, "VeLO", appendix on tasks (MLP autoencoders). Differs: the output layer begins at a tenth of its usual size.
    """

    @property
    def encoder(self) -> MLP:
        """The net from pixels to the code, before its activation."""
        return MLP((self.features, *self.widths, self.code), self.activation, self.initialiser)

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return the reconstruction [B, D] of inputs [B, D], unbounded: pixels, or the logits of pixels."""
        code = ACTIVATIONS[self.activation](self.encoder.apply(_below("encoder", params), inputs))
        return self.decoder.apply(_below("decoder", params), code)


class VariationalAutoencoder(_AroundACode):
    """D -> widths -> mean and log variance of Z latents; a draw of them -> reversed widths -> D.

    Source: Kingma, Welling, 2014, "Auto-Encoding Variational Bayes", appendix C. Differs: both nets' output layers begin at a tenth of
    their usual size, so that codes begin near the prior.
    """

    @property
    def encoder(self) -> SmallHead:
        """The net from pixels to means, then log variances."""
        return SmallHead(MLP((self.features, *self.widths, 2 * self.code), self.activation, self.initialiser))

    def apply(self, params: Params, inputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction [B, D], mean and log variance [B, Z] of inputs [B, D], given standard normal noise [B, Z]."""
        mean, log_variance = self.encoder.apply(_below("encoder", params), inputs).chunk(2, -1)
        code = mean + torch.exp(0.5 * log_variance) * noise
        return self.decoder.apply(_below("decoder", params), code), mean, log_variance
