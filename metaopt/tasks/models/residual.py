"""Residual networks: groups of blocks that add to what they were given.

Legend: B batch, C classes. Weights are [out, in, height, width], as in torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.models.conv import convolution
from metaopt.tasks.models.parts import ACTIVATIONS, check_parts, head_weight, linear, norm_params, normed, weight
from metaopt.tasks.task import Params

__all__ = ["ResidualNet"]


@dataclass(frozen=True)
class ResidualNet:
    """A convolution, groups of pre-activation blocks, normalisation, mean pooling and one linear layer.

    A block is norm, activation, 3 x 3 convolution, twice; its input is added to the result. The first block of every group but the first
    has stride 2, and its input passes a 1 x 1 convolution of the same stride.

    Attributes:
        shape: channels, height and width of an input.
        widths: channels of each group, at least one.
        blocks: blocks in each group, >= 1.

    Source: He, Zhang, Ren, Sun, 2016, "Identity Mappings in Deep Residual Networks", figure 4 (e). Differs: normalisation of the current
    batch or example only, nothing is remembered.
    """

    shape: tuple[int, ...]
    widths: tuple[int, ...]
    blocks: int
    classes: int
    activation: str
    initialiser: str = "normal"
    norm: str = "layer_norm"

    def __post_init__(self) -> None:
        """Refuse parts that do not exist and shapes that make no network."""
        check_parts(self.activation, self.initialiser, self.norm)
        if not self.widths or min(self.widths) < 1 or self.blocks < 1:
            raise TaskError(f"ResidualNet widths and blocks must be numbers >= 1, got {self.widths} and {self.blocks}")
        if len(self.shape) != 3:
            raise TaskError(f"ResidualNet shape must be (channels, height, width), got {self.shape}")

    def _layout(self) -> Iterator[tuple[str, int, int, int]]:
        """Yield (name, channels in, channels out, stride) of each block."""
        before = self.widths[0]
        for g, width in enumerate(self.widths):
            for b in range(self.blocks):
                yield f"group{g}.block{b}", before, width, 2 if g > 0 and b == 0 else 1
                before = width

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights of the initialiser at `scale`, zero biases and unit gains."""
        params: Params = {}
        layer = 0

        def add(name: str, *shape: int) -> None:
            nonlocal layer
            draw = head_weight if name == "head" else weight
            params[f"{name}.weight"] = draw(seeds.fold_in(key, layer), shape, scale, self.initialiser)
            params[f"{name}.bias"] = scale.new_zeros(shape[0])
            layer += 1

        add("stem", self.widths[0], self.shape[0], 3, 3)
        for name, inside, outside, stride in self._layout():
            params |= norm_params(self.norm, f"{name}.norm0", inside, scale)
            add(f"{name}.conv0", outside, inside, 3, 3)
            params |= norm_params(self.norm, f"{name}.norm1", outside, scale)
            add(f"{name}.conv1", outside, outside, 3, 3)
            if stride > 1:
                add(f"{name}.skip", outside, inside, 1, 1)
        params |= norm_params(self.norm, "norm", self.widths[-1], scale)
        add("head", self.classes, self.widths[-1])
        return params

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, C] of inputs [B, *shape], flattened or not."""
        act = ACTIVATIONS[self.activation]
        hidden = convolution(params, "stem", inputs.reshape(-1, *self.shape), 1)
        for name, _, _, stride in self._layout():
            inner = act(normed(self.norm, params, f"{name}.norm0", hidden, channel_axis=1))
            inner = convolution(params, f"{name}.conv0", inner, stride)
            inner = act(normed(self.norm, params, f"{name}.norm1", inner, channel_axis=1))
            inner = convolution(params, f"{name}.conv1", inner, 1)
            hidden = inner + (convolution(params, f"{name}.skip", hidden, stride) if stride > 1 else hidden)
        hidden = act(normed(self.norm, params, "norm", hidden, channel_axis=1))
        return linear(params, "head", hidden.mean((-2, -1)))
