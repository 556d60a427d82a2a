"""How many bytes of tensors a call holds at most: counted, not sampled, hence the same on every machine."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["peak_live_bytes", "storage_bytes"]


def storage_bytes(tensors: Any) -> int:
    """Return the bytes of the storages of a nest of tensors, each storage once."""
    storages = {leaf.untyped_storage()._cdata: leaf.untyped_storage().nbytes() for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor)}
    return sum(storages.values())


def peak_live_bytes(call: Callable[[], Any]) -> int:
    """Return the most bytes of tensors, made by an eager `call`, that lived at the same time; what was there before does not count.

    Works under `torch.func` transforms and on any device. Scratch memory inside an operator is not seen.
    """
    with _LiveBytes() as counted:
        call()
    peak: int = counted.peak
    return peak


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            self._meet(leaf, made_here=False)  # a result may be a view of it
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            self._meet(leaf, made_here=True)
        self.peak = max(self.peak, self.live)
        return result

    def _meet(self, leaf: Any, made_here: bool) -> None:
        if not isinstance(leaf, Tensor) or leaf.layout != torch.strided:
            return
        storage = leaf.untyped_storage()
        place = storage._cdata
        if place in self._known:
            return
        size = storage.nbytes() if made_here else 0
        self.live += size

        def freed(_: Any) -> None:
            self.live -= size
            self._known.pop(place, None)

        self._known[place] = weakref.ref(storage, freed)
