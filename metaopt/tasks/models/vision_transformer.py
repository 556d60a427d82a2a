"""Vision transformers: attention over the patches of an image.

Legend: B batch, S patches, M width, H heads, C classes. Weights are [out, in], as in torch.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.models.parts import check_parts, head_weight, linear, norm_params, normed, weight
from metaopt.tasks.models.sequence import transform
from metaopt.tasks.task import Params

__all__ = ["VisionTransformer"]


@dataclass(frozen=True)
class VisionTransformer:
    """Patches, learned positions, pre-norm layers of attention and a two-layer net, normalisation, mean over patches, one linear layer.

    Attributes:
        shape: channels, height and width of an input; the patch divides both.
        patch: side of a patch, in pixels.
        width: features of a token, a multiple of `heads`.
        hidden: width of the two-layer nets.
        layers: number of layers, >= 1.

    Source: Dosovitskiy et al., 2021, "An Image is Worth 16x16 Words", section 3.1. Differs: the mean over patches instead of a class token.
    """

    shape: tuple[int, ...]
    patch: int
    width: int
    heads: int
    hidden: int
    layers: int
    classes: int
    activation: str = "gelu"
    initialiser: str = "normal"
    norm: str = "layer_norm"

    def __post_init__(self) -> None:
        """Refuse parts that do not exist and shapes that do not divide."""
        check_parts(self.activation, self.initialiser, self.norm)
        if len(self.shape) != 3 or any(side % self.patch for side in self.shape[1:]):
            raise TaskError(f"VisionTransformer patch must divide height and width, got {self.patch} for the shape {self.shape}")
        if self.width % self.heads:
            raise TaskError(f"VisionTransformer heads must divide width, got {self.heads} for {self.width}")

    @property
    def patches(self) -> int:
        """Number of patches of an image, S."""
        return math.prod(side // self.patch for side in self.shape[1:])

    def init(self, key: Tensor, scale: Tensor) -> Params:
        """Return weights of the initialiser at `scale`, zero biases, unit gains, and positions of a tenth of the tokens' deviation."""
        params: Params = {}
        layer = 0

        def add(name: str, fan_out: int, fan_in: int) -> None:
            nonlocal layer
            draw = head_weight if name == "head" else weight
            params[f"{name}.weight"] = draw(seeds.fold_in(key, layer), (fan_out, fan_in), scale, self.initialiser)
            params[f"{name}.bias"] = scale.new_zeros(fan_out)
            layer += 1

        add("embed", self.width, self.shape[0] * self.patch**2)
        positions = seeds.normal(seeds.fold_in(key, 1 << 20), (self.patches, self.width), scale.dtype)
        params["positions"] = positions * (0.1 * scale)
        for i in range(self.layers):
            params |= norm_params(self.norm, f"layer{i}.norm0", self.width, scale)
            for name in ("query", "key", "value", "out"):
                add(f"layer{i}.{name}", self.width, self.width)
            params |= norm_params(self.norm, f"layer{i}.norm1", self.width, scale)
            add(f"layer{i}.up", self.hidden, self.width)
            add(f"layer{i}.down", self.width, self.hidden)
        params |= norm_params(self.norm, "norm", self.width, scale)
        add("head", self.classes, self.width)
        return params

    def _tokens(self, inputs: Tensor) -> Tensor:
        """Return the pixels of each patch [B, S, channels * patch * patch], rows first."""
        channels, height, width = self.shape
        rows, columns = height // self.patch, width // self.patch
        cut = inputs.reshape(-1, channels, rows, self.patch, columns, self.patch)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, rows * columns, channels * self.patch**2)

    def apply(self, params: Params, inputs: Tensor) -> Tensor:
        """Return logits [B, C] of inputs [B, *shape], flattened or not."""
        hidden = linear(params, "embed", self._tokens(inputs)) + params["positions"]
        for i in range(self.layers):
            hidden = transform(params, f"layer{i}", hidden, self.heads, self.activation, self.norm, causal=False)
        return linear(params, "head", normed(self.norm, params, "norm", hidden).mean(-2))
