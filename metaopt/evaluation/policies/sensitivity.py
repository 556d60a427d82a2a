"""What a policy's choice of the learning rate depends on: a group of its inputs is taken from another run, and the choice compared.

Runs with equally many decisions trade places, each decision with the same decision of the other run, so that what is swapped is what such
a run sees at that time. It is done twice: at one decision alone, which leaves the memory as it was, and through the whole run, which gives
the memory the other run's past as well. All of them share the share of the run that is spent; of that the decisions of a run trade places.

Legend: T decisions, E runs, I inputs, C choices of the rate's head, L logits.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metaopt import seeds
from metaopt.evaluation.policies.loop import Play
from metaopt.learners.policies.knobs import HEADS, TABLES
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec, split_heads
from metaopt.learners.policies.observation import LAYOUT, NAMES
from metaopt.learners.policies.unitless import STATISTICS

__all__ = ["GROUPS", "PROGRESS", "sensitivity"]

PROGRESS = "progress"
SWAPS = 4  # other runs that each run trades with
_LR = HEADS.index("lr")


def _columns() -> dict[str, list[int]]:
    """Return the groups of the layout, and each statistic with its CDFs."""
    groups = {name: list(range(*part.indices(len(NAMES)))) for name, part in LAYOUT.items()}
    for name in STATISTICS:
        groups[f"statistic {name}"] = [i for i, one in enumerate(NAMES) if one == name or one.startswith(f"{name}_cdf_")]
    return groups


GROUPS = _columns()


@torch.no_grad()
def sensitivity(network: PolicyNetwork, plays: Sequence[Play]) -> pd.DataFrame:
    """Return, for each group of `GROUPS`, by how much the choice of the rate changes, averaged over runs and decisions.

    Columns: group; `kl_now` and `kl_history`, the Kullback-Leibler divergence in nats from the choice as it was, with the group swapped at
    one decision and in the whole run; `shift_now` and `shift_history`, the mean size of the change of the expected log factor; `agree`, the
    share of decisions whose most likely choice stays with the whole run swapped.

    Args:
        network: the policy.
        plays: its closed loops, with inputs; those with equally many decisions trade with each other.
    """
    by_count: dict[int, list[Tensor]] = {}
    for one in plays:
        by_count.setdefault(len(one.steps), []).append(one.pi)
    pools = [torch.cat(parts, dim=1) for _, parts in sorted(by_count.items())]
    rows = []
    for group, columns in GROUPS.items():
        found = [_effects(network, pi, columns, group == PROGRESS) for pi in pools if pi.shape[1 if group != PROGRESS else 0] > 1]
        means = np.average([one[0] for one in found], axis=0, weights=[one[1] for one in found]) if found else np.full(5, np.nan)
        names = ("kl_now", "kl_history", "shift_now", "shift_history", "agree")
        rows.append({"group": group, **dict(zip(names, means.tolist(), strict=True))})
    return pd.DataFrame(rows)


def _effects(network: PolicyNetwork, pi: Tensor, columns: list[int], along_time: bool) -> tuple[list[float], int]:
    """Return the five numbers of a group on runs [T, E, I], and the number of decisions that they are means of."""
    decisions, runs = pi.shape[:2]
    own, states = _walked(network, pi)
    totals = np.zeros(5)
    for swap in range(SWAPS):
        other = _other(decisions if along_time else runs, swap)
        swapped = pi.clone()
        swapped[..., columns] = pi[other][..., columns] if along_time else pi[:, other][..., columns]
        now = torch.stack([network.step(x, state)[0] for x, state in zip(swapped, states, strict=True)])
        history = _walked(network, swapped)[0]
        (kl_now, shift_now, _), (kl_history, shift_history, agree) = (_apart(network, own, logits) for logits in (now, history))
        totals += np.array([kl_now, kl_history, shift_now, shift_history, agree]) / SWAPS
    return totals.tolist(), decisions * runs


def _walked(network: PolicyNetwork, pi: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Return the logits [T, E, L] of runs, and the memory before each decision."""
    state, logits, states = network.initial_state((pi.shape[1],)), [], []
    for x in pi:
        states.append(state)
        out, state = network.step(x, state)
        logits.append(out)
    return torch.stack(logits), states


def _apart(network: PolicyNetwork, own: Tensor, other: Tensor) -> tuple[float, float, float]:
    """Return divergence, size of the shift of the expected log factor, and share of equal choices, between logits [T, E, L]."""
    assert isinstance(network.spec, PolicySpec)
    count = network.nvec[_LR]
    p, q = (split_heads(logits.double(), network.nvec)[..., _LR, :count] for logits in (own, other))
    log_factors = torch.tensor(TABLES[network.spec.table].factors[_LR - 1], dtype=torch.float64).log()
    kl = (p.exp() * (p - q)).sum(-1)
    shift = ((p.exp() - q.exp()) * log_factors).sum(-1).abs()
    agree = (p.argmax(-1) == q.argmax(-1)).double()
    return float(kl.mean()), float(shift.mean()), float(agree.mean())


def _other(count: int, swap: int) -> Tensor:
    """Return a permutation without fixed points: a random order, rotated by one."""
    order = seeds.uniform(seeds.key("swap", count, swap), (count,), torch.float64).argsort()
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other
