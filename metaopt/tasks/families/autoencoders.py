"""Autoencoders of small images: families `digits_autoencoder`, `digits_log_autoencoder`, `digits_vae`, and those of other data sets.

Widths, depth, code, activation, batch size and the side of an image are static, hence a template; initial scale and horizon vary inside it.
Plain autoencoders minimise the squared error of standardised pixels, those with `log` in their name the cross-entropy of a pixel's
intensity, variational ones the negative evidence lower bound. The reference is what the best constant pixel reaches (squared errors: the
variance) or an even guess (log 2).

Legend: B batch, D pixels, Z code.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.tasks import data
from metaopt.tasks.families.architectures import number, word
from metaopt.tasks.families.shaped import ShapedFamily
from metaopt.tasks.families.supervised import StreamProgram
from metaopt.tasks.floors import floor
from metaopt.tasks.models.autoencoder import Autoencoder, VariationalAutoencoder, gaussian_kl
from metaopt.tasks.sampling import Axis, Choices, Integers, LogIntegers, Shape, draw_templates
from metaopt.tasks.streams.pixels import Pixels
from metaopt.tasks.task import Batch, Numbers, Params

__all__ = [
    "DIGITS_AUTOENCODER",
    "DIGITS_LOG_AUTOENCODER",
    "DIGITS_VAE",
    "FACES_AUTOENCODER",
    "MNIST_AUTOENCODER",
    "MNIST_VAE",
    "PIXEL_VARIANCE",
    "NegativeELBO",
    "Reconstruction",
    "pixel_loss",
]


PIXEL_VARIANCE = 0.1  # of a variational autoencoder's pixels, given its latents


@dataclass(frozen=True)
class Reconstruction(StreamProgram):
    """Squared error a pixel, or the cross-entropy a pixel if the stream's pixels are intensities."""

    stream: Pixels
    model: Autoencoder
    cap: float = 4.0

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the mean loss a pixel."""
        return pixel_loss(self.model.apply(params, batch["x"]), batch["x"], self.stream.intensities)


@dataclass(frozen=True)
class NegativeELBO(StreamProgram):
    """Negative evidence lower bound a pixel, by one draw of the latents for each image; draws are part of the batch.

    Standardised pixels are normal with variance 0.1, about what a good code leaves unexplained: intensities as probabilities would tell the
    code so little that most nets ignore it. The constant log(2 pi 0.1) / 2 is left out, so that the bound is positive.

    Source: Kingma, Welling, 2014, "Auto-Encoding Variational Bayes", equation (7).
    """

    stream: Pixels
    model: VariationalAutoencoder
    cap: float = 4.0

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return training images x [B, D] and standard normal noise [B, Z]."""
        images = self.stream.batch(shared, key, step)
        return {**images, "noise": self._noise(images["x"], seeds.fold_in(seeds.fold_in(key, step), 0))}

    def heldout(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return the held-out images with noise that is always the same."""
        images = self.stream.heldout(shared)
        return {**images, "noise": self._noise(images["x"], seeds.key("vae", "heldout").to(key.device))}

    def _noise(self, images: Tensor, key: Tensor) -> Tensor:
        return seeds.normal(key, (images.shape[-2], self.model.code), images.dtype)

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the mean over images of (squared errors / 0.2 + divergence of the code from the prior) / D."""
        outputs, mean, log_variance = self.model.apply(params, batch["x"], batch["noise"])
        errors = pixel_loss(outputs, batch["x"], False)
        return errors / (2.0 * PIXEL_VARIANCE) + gaussian_kl(mean, log_variance).mean() / self.stream.features


def pixel_loss(outputs: Tensor, pixels: Tensor, intensities: bool) -> Tensor:
    """Return the mean squared error, or the mean cross-entropy of intensities and the logits `outputs`."""
    if intensities:
        return F.binary_cross_entropy_with_logits(outputs, pixels)
    return (outputs - pixels).square().mean()


def _space(sides: tuple[int, ...], batch: int) -> dict[str, Axis]:
    return {
        "side": Choices(sides),
        "width": LogIntegers(16, 64, multiple=4),
        "depth": Integers(0, 2),
        "code": LogIntegers(4, 16),
        "activation": Choices(("relu", "relu", "tanh", "gelu", "silu", "sin", "selu")),
        "batch": LogIntegers(16, batch, multiple=8),
    }


def _plain(shape: Shape) -> Shape:
    return _without(shape, "width") if shape["depth"] == 0 else shape


def _variational(shape: Shape) -> Shape:
    return _without(shape, "width", "activation") if shape["depth"] == 0 else shape  # latents pass no activation


def _without(shape: Shape, *axes: str) -> Shape:
    return {axis: value for axis, value in shape.items() if axis not in axes}


_COUNTS = {"meta_train": 8, "meta_valid": 2, "meta_test": 3}


def _net(shape: Shape) -> tuple[tuple[int, ...], int, str]:
    """Return the encoder's widths (each layer has half the units of the one before), the code, and the activation."""
    code = number(shape, "code")
    widths = tuple(max(number(shape, "width") >> i, code) for i in range(number(shape, "depth")))
    return widths, code, word(shape, "activation", "relu")


def _reconstruction(source: str, log_loss: bool, shape: Shape) -> Reconstruction:
    stream = Pixels(data.get(source), number(shape, "side"), number(shape, "batch"), log_loss)
    return Reconstruction(stream, Autoencoder(stream.features, *_net(shape)))


def _elbo(source: str, shape: Shape) -> NegativeELBO:
    stream = Pixels(data.get(source), number(shape, "side"), number(shape, "batch"))
    return NegativeELBO(stream, VariationalAutoencoder(stream.features, *_net(shape)))


def _constants(name: str, program: Reconstruction | NegativeELBO) -> Mapping[str, float]:
    if program.stream.intensities:
        return {"reference": math.log(2.0), "floor": floor(name)}
    unit = 2.0 * PIXEL_VARIANCE if isinstance(program, NegativeELBO) else 1.0
    return {"reference": float(program.shared()["train_x"].var(correction=0)) / unit, "floor": floor(name)}


def _autoencoder_family(
    name: str, source: str, sides: tuple[int, ...], batch: int, log_loss: bool = False
) -> ShapedFamily[Reconstruction | NegativeELBO]:
    grid = draw_templates(name, _space(sides, batch), _COUNTS, _plain)
    return ShapedFamily(name, grid, partial(_reconstruction, source, log_loss), partial(_constants, name))


def _vae_family(name: str, source: str, sides: tuple[int, ...], batch: int) -> ShapedFamily[Reconstruction | NegativeELBO]:
    grid = draw_templates(name, _space(sides, batch), _COUNTS, _variational)
    return ShapedFamily(name, grid, partial(_elbo, source), partial(_constants, name))


DIGITS_AUTOENCODER = _autoencoder_family("digits_autoencoder", "digits", (8,), batch=128)
DIGITS_LOG_AUTOENCODER = _autoencoder_family("digits_log_autoencoder", "digits", (8,), batch=128, log_loss=True)
DIGITS_VAE = _vae_family("digits_vae", "digits", (8,), batch=128)
MNIST_AUTOENCODER = _autoencoder_family("mnist_autoencoder", "mnist", (8, 14), batch=64)
MNIST_VAE = _vae_family("mnist_vae", "mnist", (8, 14), batch=64)
FACES_AUTOENCODER = _autoencoder_family("faces_autoencoder", "faces", (8, 12), batch=64)
