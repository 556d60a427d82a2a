"""Forward-mode derivatives, without the warning that torch's own loading of their rules gives."""

import functools
import warnings
from typing import Any

import torch

__all__ = ["jvp"]


@functools.cache
def _load_forward_rules() -> None:
    """Make torch load its forward-mode rules now: its own way of compiling them warns of a deprecation, once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


def jvp(*arguments: Any, **options: Any) -> Any:
    """Return what `torch.func.jvp` does."""
    _load_forward_rules()
    return torch.func.jvp(*arguments, **options)
