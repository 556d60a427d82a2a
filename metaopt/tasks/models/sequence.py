"""What models of sequences are made of: vectors of symbols, attention, transformer layers.

Legend: B batch, S positions, V symbols, M width, H heads. Weights are [out, in], as in torch.
"""

import math

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.tasks.models.parts import ACTIVATIONS, linear, norm_params, normed, weight
from metaopt.tasks.task import Params

__all__ = ["attention", "embed", "init_layer", "symbol_vectors", "transform"]


def symbol_vectors(key: Tensor, symbols: int, width: int, scale: Tensor) -> Tensor:
    """Return initial vectors [V, M] of symbols, N(0, scale^2): each symbol is one input, so its fan in is 1."""
    return seeds.normal(key, (symbols, width), scale.dtype) * scale


def embed(params: Params, name: str, inputs: Tensor) -> Tensor:
    """Return the vectors [..., M] of symbols [...] (int64).

    A product with one-hot vectors rather than a lookup: the gradient of a compiled lookup adds up in order of arrival, so that with more
    than one thread the bits would differ from run to run.
    """
    table = params[f"{name}.weight"]
    one_hot = inputs.unsqueeze(-1) == torch.arange(table.shape[-2], device=inputs.device)
    return one_hot.to(table.dtype) @ table


def attention(params: Params, name: str, tokens: Tensor, heads: int, causal: bool, mu: bool = False) -> Tensor:
    """Return what each position reads from all positions [B, S, M], or from itself and earlier ones if `causal`.

    Source: Vaswani et al., 2017, "Attention Is All You Need", section 3.2; with `mu`, Yang et al., 2022, "Tensor Programs V", section 5:
    scores are divided by the width of a head instead of its root.
    """

    def split(which: str) -> Tensor:
        values = linear(params, f"{name}.{which}", tokens)
        return values.reshape(*values.shape[:-1], heads, -1).transpose(-3, -2)  # [B, H, S, M / H]

    query = split("query")
    scores = query @ split("key").transpose(-2, -1) / (query.shape[-1] if mu else math.sqrt(query.shape[-1]))
    if causal:
        place = torch.arange(tokens.shape[-2], device=tokens.device)
        scores = torch.where(place > place.unsqueeze(-1), -math.inf, scores)
    read = scores.softmax(-1) @ split("value")
    return linear(params, f"{name}.out", read.transpose(-3, -2).flatten(-2))


def init_layer(key: Tensor, name: str, width: int, hidden: int, norm: str, initialiser: str, scale: Tensor, mu: bool = False) -> Params:
    """Return the weights of one transformer layer: two norms, attention, and a two-layer net of `hidden` units.

    Biases are zero, or standard normal with `mu`.
    """
    params = norm_params(norm, f"{name}.norm0", width, scale) | norm_params(norm, f"{name}.norm1", width, scale)
    shapes = dict.fromkeys(("query", "key", "value", "out"), (width, width)) | {"up": (hidden, width), "down": (width, hidden)}
    for i, (which, shape) in enumerate(shapes.items()):
        params[f"{name}.{which}.weight"] = weight(seeds.fold_in(key, i), shape, scale, initialiser)
        bias = seeds.normal(seeds.fold_in(key, len(shapes) + i), shape[:1], scale.dtype) if mu else scale.new_zeros(shape[0])
        params[f"{name}.{which}.bias"] = bias
    return params


def transform(params: Params, name: str, hidden: Tensor, heads: int, activation: str, norm: str, causal: bool, mu: bool = False) -> Tensor:
    """Return hidden [B, S, M] after one pre-norm layer: attention (see there for `mu`), then the two-layer net, each added to its input."""
    hidden = hidden + attention(params, name, normed(norm, params, f"{name}.norm0", hidden), heads, causal, mu)
    inner = linear(params, f"{name}.up", normed(norm, params, f"{name}.norm1", hidden))
    return hidden + linear(params, f"{name}.down", ACTIVATIONS[activation](inner))
