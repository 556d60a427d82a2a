"""Parameter groups of a model: embeddings, and the step sizes of maximal update parametrisation."""

from collections.abc import Collection, Iterable
from typing import Any

from torch import Tensor, nn

from metaopt.errors import ConfigError
from metaopt.names import nearest

__all__ = ["embedding_groups", "mu_groups"]

Named = nn.Module | Iterable[tuple[str, Tensor]]


def embedding_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return two groups for `LearnedOptimizer`: the tables of `nn.Embedding` and `nn.EmbeddingBag`, marked so, and all else.

    A table that is tied to another layer's weight counts as an embedding.
    """
    tables = _tables(model)
    kinds: dict[bool, list[tuple[str, Tensor]]] = {False: [], True: []}
    for name, param in model.named_parameters():
        kinds[id(param) in tables].append((name, param))
    return [{"params": members, "embedding": kind} for kind, members in kinds.items() if members]


def mu_groups(params: Named, *, inputs: Collection[str], outputs: Collection[str], lr: float = 1.0) -> list[dict[str, Any]]:
    """Return groups for `LearnedOptimizer` in which hidden matrices have lr / fan_in and everything else lr.

    Hidden is what has rank >= 2 and belongs to no input layer, no output layer and no `nn.Embedding`; a weight is [out, in, ...] and
    fan_in the product of all but its first axis. The model itself must be parametrised so too: hidden and input weights of variance
    1 / fan_in, an output layer that begins at zero and whose output is divided by its fan_in (and attention logits by the width of a
    head instead of its root). Step sizes found at one width then hold at others.

    Args:
        params: a model, or (name, parameter) pairs.
        inputs: names of the layers that read the data, or of their parameters: "embed", "blocks.0.in", "positions".
        outputs: names of the layers that make the logits.
        lr: as in `LearnedOptimizer`, [0, inf).

    Raises:
        ConfigError: a name that fits no parameter, or fits both lists.

    Source: Therien et al., 2024, "muLO", table 1; Yang et al., 2022, "Tensor Programs V", table 8.
    """
    named = list(params.named_parameters() if isinstance(params, nn.Module) else params)
    tables = _tables(params) if isinstance(params, nn.Module) else set()
    edges = [*inputs, *outputs]
    for edge in edges:
        if not any(_belongs(name, edge) for name, _ in named):
            raise ConfigError(f"mu_groups: no parameter belongs to {edge!r}{nearest(edge, [name for name, _ in named])}")
    for name, _ in named:
        if any(_belongs(name, edge) for edge in inputs) and any(_belongs(name, edge) for edge in outputs):
            raise ConfigError(f"mu_groups: {name!r} belongs to inputs and to outputs; name it in one of them")
    groups: dict[tuple[float, bool], list[tuple[str, Tensor]]] = {}
    for name, param in named:
        table = id(param) in tables
        hidden = param.dim() >= 2 and not table and not any(_belongs(name, edge) for edge in edges)
        fan_in = param[0].numel() if hidden else 1
        groups.setdefault((lr / fan_in, table), []).append((name, param))
    return [{"params": members, "lr": size, "embedding": table} for (size, table), members in groups.items()]


def _belongs(param: str, layer: str) -> bool:
    return param == layer or param.startswith(f"{layer}.")


def _tables(model: nn.Module) -> set[int]:
    kinds = (nn.Embedding, nn.EmbeddingBag)
    return {id(module.weight) for module in model.modules() if isinstance(module, kinds)}
