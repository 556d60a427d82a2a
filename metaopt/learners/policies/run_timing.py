"""When a run looks and acts, for runs whose lengths are tensors: what `timing` says, step by step and under `torch.func.vmap`."""

import torch
from torch import Tensor

from metaopt.learners.policies.timing import EVERY, MOST, PROBE_STEPS, SHORTEST_SEGMENT

__all__ = ["run_timing"]


def run_timing(t: Tensor, horizon: Tensor, decisions: int) -> tuple[Tensor, Tensor]:
    """Return whether a decision falls before step t, and whether step t is measured for the next one; 0-d bool each.

    Args:
        t: steps taken, 0-d int64, [0, inf).
        horizon: length of the run, 0-d int64, >= 1.
        decisions: how many are wanted, >= 1.
    """
    probe = torch.minimum(torch.full_like(horizon, PROBE_STEPS), horizon // 2)
    rest = horizon - probe
    count = (rest // SHORTEST_SEGMENT).clamp(1, decisions)

    def place(k: Tensor) -> Tensor:
        return torch.where(k < 0, 0, probe + k * rest // count)

    # The next decision at or after t: s_k >= t where k rest // count >= t - probe.
    k = torch.where(t <= probe, 0, ((t - probe) * count + rest - 1) // rest.clamp(min=1))
    k = torch.where((k > 0) & (place(k - 1) >= t), k - 1, k)
    runs = horizon > 1
    due = runs & (k < count) & (place(k) == t)
    # The segment that step t lies in ends with the first decision after it.
    after = torch.where(place(k) > t, k, k + 1)
    begin, end = place(after - 1), place(after)
    length = end - begin
    marks = (length // EVERY).clamp(1, MOST)
    j = torch.arange(1, MOST + 1, device=t.device)
    measured = runs & (after < count) & ((j <= marks) & (t == begin + j * length // marks - 1)).any()
    return due, measured
