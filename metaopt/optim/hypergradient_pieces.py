"""A step's tensors in pieces that fit a cache, in batches that share all numbers, and the dot products that they give.

Everything here is about memory: large tensors are read in pieces, so that what a step does to one piece finds it in the cache, and small
ones share calls; the dot products of all pieces travel to the host together, once a device.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["MASTER", "Batch", "Layout", "Member", "make_batches", "read"]

MASTER = "master"  # state key of the float32 copy that 16-bit parameters get
# Elements in a batch. Adam holds seven arrays while it runs: 2^19 float32 elements of each are 15 MB, part of a third-level cache of 32 MB;
# smaller batches spent more on calls than they saved, and larger ones saved no more (2^16 to 2^20 tried, one thread, process time after a
# backward, 0.7 and 5 million weights). An accelerator wants many.
_CPU_PIECE, _PIECE = 1 << 19, 1 << 25
_ALIGNED = 64  # bytes, as torch's allocator gives them


@dataclass(frozen=True, eq=False)
class Layout:
    """What tensors of one group have in common in a step.

    Attributes:
        group: number of the group.
        maximize: climb instead of descend.
        h: hyperparameters of the base step, where nobody has learned them.
        base: accumulators of the base step.
        out: where it writes derivatives, by hyperparameter.
        changes: what the last step stored, in the order of `learn`.
        keys: all tensors of the state that a step touches.
    """

    group: int
    maximize: bool
    h: dict[str, float]
    base: tuple[str, ...]
    out: dict[str, str]
    changes: tuple[str, ...]
    keys: tuple[str, ...]


class Member(NamedTuple):
    """A parameter that takes this step.

    Attributes:
        param, grad: the parameter and its gradient.
        layout: what it has in common with others.
        scope: the tower that it belongs to.
        t: updates that it has had, this one included.
        coefficients: d parameter / d hyperparameter of the last step = coefficient * what is stored; all 0 if it did not move.
        state: of the optimizer.
    """

    param: Tensor
    grad: Tensor
    layout: Layout
    scope: int
    t: int
    coefficients: tuple[float, ...]
    state: dict[str, Any]


@dataclass
class Batch:
    """Pieces of tensors of one layout, scope, age, dtype and device.

    Attributes:
        layout, scope, t: of all of them.
        moved: whether the last step changed them.
        members: number of the member that each piece is of.
        params, grads: pieces; `tensors` those of the state by key.
        direction: u, where it has been computed before the rate was known.
        size: elements.
    """

    layout: Layout
    scope: int
    t: int
    moved: bool
    tensors: dict[str, list[Tensor]]
    members: list[int] = field(default_factory=list)
    params: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)
    direction: list[Tensor] | None = None
    size: int = 0

    @property
    def base(self) -> dict[str, list[Tensor]]:
        """The accumulators."""
        return {key: self.tensors[key] for key in self.layout.base}

    @property
    def out(self) -> dict[str, list[Tensor]]:
        """Where derivatives go."""
        return {name: self.tensors[key] for name, key in self.layout.out.items()}

    def working_grads(self) -> list[Tensor]:
        """Return gradients to descend, in the working dtype; never to be written to."""
        grads = self.grads
        if MASTER in self.tensors:
            grads = [grad.to(master.dtype) for grad, master in zip(grads, self.tensors[MASTER], strict=True)]
        return list(torch._foreach_neg(grads)) if self.layout.maximize else grads

    def working_params(self) -> list[Tensor]:
        """Return the parameters to step, or their masters."""
        return self.tensors.get(MASTER, self.params)

    def follow_params(self) -> None:
        """Let masters follow 16-bit parameters where somebody else has written to them."""
        for master, param in zip(self.tensors.get(MASTER, ()), self.params, strict=False):
            torch.where(master.to(param.dtype) == param, master, param.to(master.dtype), out=master)

    def round_params(self) -> None:
        """Round masters to the 16-bit parameters."""
        if MASTER in self.tensors:
            torch._foreach_copy_(self.params, self.tensors[MASTER])


def make_batches(members: Sequence[Member]) -> list[Batch]:
    """Return the batches of a step, in the order of the members."""
    batches: list[Batch] = []
    open_: dict[tuple[Any, ...], Batch] = {}
    for number, (param, grad, layout, scope, t, coefficients, state) in enumerate(members):
        device = param.device
        limit = _CPU_PIECE if device.type == "cpu" else _PIECE
        kind = (layout, scope, t, coefficients, param.dtype, device)
        tensors = [state[key] for key in layout.keys]
        size = param.numel()
        whole = size <= limit
        for piece in ((param, grad, *tensors),) if whole else zip(*_split([param, grad, *tensors], limit), strict=True):
            size = size if whole else piece[0].numel()
            batch = open_.get(kind)
            if batch is None or batch.size + size > limit:
                batch = open_[kind] = Batch(layout, scope, t, any(coefficients), {key: [] for key in layout.keys})
                batches.append(batch)
            batch.size += size
            batch.members.append(number)
            batch.params.append(piece[0])
            batch.grads.append(piece[1])
            for stack, one in zip(batch.tensors.values(), piece[2:], strict=True):
                stack.append(one)
    return batches


def read(batches: Sequence[Batch], members: Sequence[Member], norms: bool, early: Any = None) -> Iterator[tuple[Member, list[float]]]:
    """Yield, for each member, sums over its pieces: dots [J] of gradient and changes, and with `norms` their squares [J] and |gradient|^2.

    A member that has not moved gives one number instead: it is finite if its gradient is. So are dots only if gradient and changes are.

    Args:
        batches: of `make_batches` of the members.
        members: in order.
        norms: squares too.
        early: called with each batch after its dots, while it is in the cache.
    """
    found: list[Tensor] = []
    owners: list[tuple[int, int]] = []  # (member, which of its numbers)
    for batch in batches:
        grads = batch.working_grads()
        changes = [batch.tensors[key] for key in batch.layout.changes] if batch.moved else []
        for i, (number, grad) in enumerate(zip(batch.members, grads, strict=True)):
            stored = [change[i] for change in changes]
            numbers = [_dot(grad, one) for one in stored] if stored else [grad.sum()]
            if norms and stored:
                numbers += [*(_dot(one, one) for one in stored), _dot(grad, grad)]
            found += numbers
            owners += [(number, which) for which in range(len(numbers))]
        if early is not None:
            early(batch, grads)
    sums: list[list[float]] = [[] for _ in members]
    for (number, which), value in zip(owners, _to_host(found), strict=True):
        if which == len(sums[number]):
            sums[number].append(value)
        else:
            sums[number][which] += value
    yield from zip(members, sums, strict=True)


def _split(tensors: list[Tensor], limit: int) -> list[Sequence[Tensor]]:
    """Return each tensor's pieces, flat views of one part of memory each; whole tensors where their layouts differ."""
    first = tensors[0]
    if all(tensor.is_contiguous() for tensor in tensors):
        return [tensor.view(-1).split(limit) for tensor in tensors]  # type: ignore[no-untyped-call]
    layout = torch.channels_last if first.dim() == 4 else torch.channels_last_3d if first.dim() == 5 else None
    if layout is not None and all(tensor.is_contiguous(memory_format=layout) for tensor in tensors):
        return [tensor.as_strided((tensor.numel(),), (1,)).split(limit) for tensor in tensors]  # type: ignore[no-untyped-call]
    return [(tensor,) for tensor in tensors]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(_aligned(a), _aligned(b))


def _aligned(tensor: Tensor) -> Tensor:
    """Return a tensor, flat, where the last bit of a dot product does not depend on its place in memory: MKL's does otherwise.

    Gradients that are views, as DistributedDataParallel's are, begin anywhere, and elsewhere after a resume.
    """
    flat = tensor if tensor.dim() == 1 and tensor.is_contiguous() else tensor.reshape(-1)
    return flat.clone() if flat.data_ptr() % _ALIGNED and flat.device.type == "cpu" else flat


def _to_host(numbers: Sequence[Tensor]) -> list[float]:
    """Return 0-d tensors as floats, with one transfer for each device (and dtype) that they are on."""
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for place, number in enumerate(numbers):
        kinds.setdefault((number.device, number.dtype), []).append(place)
    values = [math.nan] * len(numbers)
    for places in kinds.values():
        for place, value in zip(places, torch.stack([numbers[place] for place in places]).tolist(), strict=True):
            values[place] = value
    return values
