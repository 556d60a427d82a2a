"""Whole episodes as padded tensors, and their decisions packed without padding.

Legend: T decisions of the longest episode, E episodes, I policy inputs, V critic-only inputs, A heads, N decisions that were taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Episodes", "Packing", "pack"]

_PER_DECISION = ("pi", "v", "action", "log_prob", "value", "reward", "valid")


@dataclass(frozen=True)
class Episodes:
    """What a policy saw, did and got, episode beside episode; entries where `valid` is False are padding and may hold anything.

    Attributes:
        pi: raw policy inputs, [T, E, I] float32.
        v: raw critic-only inputs, [T, E, V] float32; V may be 0.
        action: [T, E, A] int64.
        head_mask: [E, A] bool, heads that were there in this episode.
        log_prob: of the action, under the policy that chose it, [T, E].
        value: what the critic expected then, in units of reward, [T, E].
        reward: [T, E].
        valid: [T, E] bool, True from decision 0 up to the last one that was taken.
        bootstrap: the critic's value after the last decision if the episode was cut there, else 0, [E].
        version: of the policy that acted; of several, the oldest.
    """

    pi: Tensor
    v: Tensor
    action: Tensor
    head_mask: Tensor
    log_prob: Tensor
    value: Tensor
    reward: Tensor
    valid: Tensor
    bootstrap: Tensor
    version: int = 0

    def __post_init__(self) -> None:
        steps, episodes = self.valid.shape
        for name in _PER_DECISION:
            if (shape := getattr(self, name).shape[:2]) != (steps, episodes):
                raise ValueError(f"Episodes.{name} must begin with [T, E] = [{steps}, {episodes}] of `valid`, got {list(shape)}")
        for name in ("head_mask", "bootstrap"):
            if (rows := len(getattr(self, name))) != episodes:
                raise ValueError(f"Episodes.{name} must have E = {episodes} rows, got {rows}")
        if bool((self.valid[1:] & ~self.valid[:-1]).any()):
            raise ValueError("Episodes.valid must not become True again after the end of an episode")

    @property
    def decisions(self) -> int:
        """Decisions that were taken."""
        return int(self.valid.sum())

    @staticmethod
    def join(parts: Sequence["Episodes"]) -> "Episodes":
        """Return the episodes of all parts in their order, padded to the longest."""
        steps = max(part.valid.shape[0] for part in parts)
        joined = {}
        for field in fields(Episodes)[:-1]:
            tensors = [getattr(part, field.name) for part in parts]
            if field.name in _PER_DECISION:
                joined[field.name] = torch.cat([_lengthened(tensor, steps) for tensor in tensors], dim=1)
            else:
                joined[field.name] = torch.cat(tensors)
        return Episodes(**joined, version=min(part.version for part in parts))

    def select(self, index: Tensor) -> "Episodes":
        """Return some of the episodes, by number, [n] int64."""
        chosen = {name: getattr(self, name)[:, index] for name in _PER_DECISION}
        return replace(self, **chosen, head_mask=self.head_mask[index], bootstrap=self.bootstrap[index])


class Packing(NamedTuple):
    """Where the decisions of some episodes are, in the order in which a packed sequence wants them.

    Attributes:
        row: place of each packed decision in a flattened [T, E], [N] int64.
        episode: number of its episode, [N] int64.
        sizes: how many episodes have a decision t, for each t up to the longest; never rising.
    """

    row: Tensor
    episode: Tensor
    sizes: tuple[int, ...]

    def take(self, padded: Tensor) -> Tensor:
        """Return the packed decisions [N, ...] of a padded tensor [T, E, ...]."""
        return padded.flatten(0, 1).index_select(0, self.row)

    def put(self, packed: Tensor, like: Tensor) -> Tensor:
        """Return packed numbers [N] in their places of a [T, E] tensor, zeros elsewhere; `like` gives T and E."""
        return packed.new_zeros(like.numel()).index_copy(0, self.row, packed).reshape(like.shape)


def pack(valid: Tensor, index: Tensor | None = None) -> Packing:
    """Return the packing of the valid decisions of the episodes `index` (None: all), longest episodes first.

    Args:
        valid: [T, E] bool, as in `Episodes`; at least one decision among the chosen.
        index: [n] int64; episodes of equal length keep its order, and those without a decision drop out.
    """
    index = torch.arange(valid.shape[1], device=valid.device) if index is None else index
    length = valid.sum(0)[index]
    index = index[torch.argsort(length, descending=True, stable=True)]
    step, place = torch.nonzero(valid[:, index], as_tuple=True)
    episode = index[place]
    return Packing(step * valid.shape[1] + episode, episode, tuple(torch.bincount(step).tolist()))


def _lengthened(tensor: Tensor, steps: int) -> Tensor:
    missing = steps - tensor.shape[0]
    return F.pad(tensor, (0, 0) * (tensor.dim() - 1) + (0, missing)) if missing else tensor
