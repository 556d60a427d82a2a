"""Several independent choices at once: log-probabilities, entropies and samples of a vector of categorical heads.

A head that is masked is not there: it counts 0 in log-probabilities and entropies, gets no gradient, and its action is of no consequence.

Legend: [...] leading dims of any kind, A heads, K the most choices that a head has, L = sum(nvec) logits, head after head.
All functions are pure, work under `torch.func.vmap` and are independent for each head.
"""

import torch
from torch import Tensor

__all__ = ["entropy", "greedy", "head_entropy", "log_prob", "log_prob_and_entropy", "sample", "split_heads"]

HALF_CELL = 2.0**-25
NEVER = -1e9  # the log-probability of a choice that a head does not have; finite, so that 0 times it is 0


def _padded(logits: Tensor, nvec: tuple[int, ...]) -> Tensor:
    heads = torch.split(logits, list(nvec), dim=-1)
    most = max(nvec)
    return torch.stack([torch.nn.functional.pad(head, (0, most - head.shape[-1]), value=NEVER) for head in heads], dim=-2)


def split_heads(logits: Tensor, nvec: tuple[int, ...]) -> Tensor:
    """Return the log-probabilities of every choice, [..., A, K]; choices that a head does not have get about -1e9."""
    return torch.log_softmax(_padded(logits, nvec), dim=-1)


def log_prob(logits: Tensor, action: Tensor, nvec: tuple[int, ...], head_mask: Tensor | None = None) -> Tensor:
    """Return the log-probability of actions, [...]: the sum over heads that are not masked.

    Args:
        logits: [..., L].
        action: [..., A] int64; entries of masked heads may be anything.
        nvec: choices of each head.
        head_mask: [..., A] bool, True where a head is there; None: all are.
    """
    return log_prob_and_entropy(logits, action, nvec, head_mask)[0]


def log_prob_and_entropy(logits: Tensor, action: Tensor, nvec: tuple[int, ...], head_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return `log_prob` and `head_entropy` for the price of one."""
    log_p = split_heads(logits, nvec)
    index = action.clamp(min=0).minimum(torch.tensor(nvec, device=action.device) - 1)
    chosen = log_p.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    return _visible(chosen, head_mask).sum(-1), _visible(-(log_p.exp() * log_p).sum(-1), head_mask)


def head_entropy(logits: Tensor, nvec: tuple[int, ...], head_mask: Tensor | None = None) -> Tensor:
    """Return the entropy of each head in nats, [..., A]; 0 where masked."""
    log_p = split_heads(logits, nvec)
    return _visible(-(log_p.exp() * log_p).sum(-1), head_mask)


def entropy(logits: Tensor, nvec: tuple[int, ...], head_mask: Tensor | None = None) -> Tensor:
    """Return the entropy of the whole action in nats, [...]: the sum over heads that are not masked."""
    return head_entropy(logits, nvec, head_mask).sum(-1)


def sample(logits: Tensor, uniform: Tensor, nvec: tuple[int, ...]) -> Tensor:
    """Return actions, [..., A] int64, by inversion of the distribution function in float64.

    Args:
        logits: [..., L].
        uniform: [..., A] numbers in [0, 1), which decide everything: no generator is consumed. Those of float32 stand for cells of width
            2**-24, of which the middle is taken, so that 0 does not choose what has a probability of 1e-100.
        nvec: choices of each head.
    """
    reached = torch.softmax(_padded(logits.detach().double(), nvec), dim=-1).cumsum(-1)
    threshold = (uniform.double() + HALF_CELL).unsqueeze(-1) * reached[..., -1:]
    return (reached <= threshold).sum(-1).minimum(torch.tensor(nvec, device=logits.device) - 1)


def greedy(logits: Tensor, nvec: tuple[int, ...]) -> Tensor:
    """Return the most likely choice of each head, [..., A] int64; of equals, the first."""
    return _padded(logits, nvec).argmax(-1)


def _visible(per_head: Tensor, head_mask: Tensor | None) -> Tensor:
    return per_head if head_mask is None else torch.where(head_mask, per_head, 0.0)
