"""What only the critic sees in training: quantities with units, which a policy must not depend on, because the critic is never shipped.

Legend: E runs, K = 8 knobs, V critic inputs.
"""

import torch
from torch import Tensor

from metaopt.learners.policies.knobs import KNOBS
from metaopt.seeds import stable_hash

__all__ = ["CRITIC_INPUTS", "FAMILY_SLOTS", "critic_inputs", "family_slot"]

FAMILY_SLOTS = 24  # families by hash: two may share a slot, which costs the critic a little and the policy nothing
_LARGEST = 20.0
CRITIC_INPUTS = FAMILY_SLOTS + 4 + 1 + 3 * len(KNOBS) + 1 + 4 + 1 + 4


def family_slot(family: str) -> int:
    """Return the slot of a family, the same in every process."""
    return stable_hash("critic family", family) % FAMILY_SLOTS


def critic_inputs(
    family: str,
    sizes: tuple[float, float, float, float],
    progress: Tensor,
    noise_EK: Tensor,
    values_EK: Tensor,
    knob_mask_EK: Tensor,
    has_eval: Tensor,
    losses: tuple[Tensor, Tensor],
    potential: Tensor,
    references: Tensor,
) -> Tensor:
    """Return the critic's inputs [E, V] float32, finite and in [-20, 20].

    Args:
        family: of the tasks.
        sizes: weights, tensors, inner steps and decisions of the runs, each > 0.
        progress: share of the steps that is done [E].
        noise_EK: the uniform numbers that the start was perturbed with.
        values_EK: knobs now.
        knob_mask_EK: knobs that the policy may turn.
        has_eval: whether it sees an evaluation loss [E].
        losses: normalised training and evaluation loss [E], any number.
        potential: what the present loss is worth [E].
        references: what is known of the baselines [E, 4].
    """
    runs = len(progress)
    slot = torch.zeros(runs, FAMILY_SLOTS, dtype=torch.float64)
    slot[:, family_slot(family)] = 1.0
    shape = torch.tensor(sizes, dtype=torch.float64).log().expand(runs, -1)
    logit = (values_EK / (1 - values_EK).clamp(min=1e-12)).log()
    columns = [
        slot,
        shape,
        progress.unsqueeze(1),
        2 * noise_EK - 1,
        logit,
        knob_mask_EK.double(),
        has_eval.double().unsqueeze(1),
        *(torch.stack([loss.double(), loss.double().abs().log()], 1) for loss in losses),
        potential.double().unsqueeze(1),
        references.double(),
    ]
    found = torch.cat(columns, 1)
    return torch.nan_to_num(found, nan=_LARGEST, posinf=_LARGEST, neginf=-_LARGEST).clamp(-_LARGEST, _LARGEST).float()
