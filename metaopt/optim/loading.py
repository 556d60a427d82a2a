"""Loading a state_dict without torch's casts, after a check that may refuse it."""

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["load_exactly"]


def load_exactly(optimizer: torch.optim.Optimizer, load: Callable[[], None], check: Callable[[dict[str, Any]], None]) -> None:
    """Call `load`, so that state tensors keep the dtypes that they were saved with.

    torch casts all but `step` to the parameter's dtype, which would round float32 accumulators of 16-bit parameters.

    Args:
        optimizer: that loads.
        load: its `load_state_dict` of torch, with the argument.
        check: raises where the state_dict does not fit; before anything changes, and after hooks of the user.
    """
    seen: dict[str, Any] = {}

    def before(_: torch.optim.Optimizer, incoming: dict[str, Any]) -> None:
        check(incoming)
        seen.update(incoming)

    def restore(_: torch.optim.Optimizer) -> None:
        saved_ids = (index for group in seen["param_groups"] for index in group["params"])
        params = (param for group in optimizer.param_groups for param in group["params"])
        for index, param in zip(saved_ids, params, strict=True):
            for key, value in seen["state"].get(index, {}).items():
                if isinstance(value, torch.Tensor):
                    device = torch.device("cpu") if key == "step" else param.device
                    optimizer.state[param][key] = value.detach().to(device=device, copy=True)

    # Appended and prepended: hooks of the user may rewrite the state before, and see it restored after.
    hooks = optimizer.register_load_state_dict_pre_hook(before), optimizer.register_load_state_dict_post_hook(restore, prepend=True)
    try:
        load()
    finally:
        for hook in hooks:
            hook.remove()
