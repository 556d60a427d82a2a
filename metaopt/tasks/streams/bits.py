"""Streams of sequences of bits, made as they are drawn: the parity of what came so far, and the sum of two numbers.

Legend: B batch, L positions, R held-out sequences.

A sequence is one whole number, its code, and a code is the scramble of an index: a fixed one-to-one map of the numbers of so many bits. An
eighth of the indices is held out. So a sequence's own scramble decides on which side it is, as a hash would; training draws evenly from
all the others and, however short the sequences are, never meets one that is held out.
"""

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.task import Batch

__all__ = ["Addition", "Parity"]

_FEWEST, _MOST = 6, 62  # bits of a code, which is a signed word of 64
_SIDE = 3  # bits of an index that say its side: all 0 is held out
_HELDOUT_ROWS = 128  # at most: an evaluation sees all of them, for every particle
_FACTOR, _SUMMAND = 0x2545F4914F6CDD1D, 0x14057B7EF767814F  # odd; of Marsaglia's xorshift* and of Knuth's MMIX generator
_ROUNDS = 3


class _Sequences(ABC):
    """What both streams do with codes; the dataclasses below say what a code stands for."""

    batch_size: int
    length: int

    def __post_init__(self) -> None:
        if not _FEWEST <= self.bits <= _MOST:
            name = type(self).__name__
            raise TaskError(f"{name} length must make {_FEWEST} to {_MOST} random bits, got length {self.length} with {self.bits} of them")

    @property
    @abstractmethod
    def bits(self) -> int:
        """Random bits of a sequence."""

    @abstractmethod
    def examples(self, codes: Tensor) -> Batch:
        """Return x and y [B, L] of codes [B], numbers of so many bits; int64."""

    def shared(self) -> Batch:
        """Return `heldout_x` and `heldout_y` [R, L], R at most 128; int64."""
        return dict(_heldout(self))

    def batch(self, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return x and y [B, L] of sequences that are not held out."""
        return self.examples(_training_codes(seeds.fold_in(key, step), self.batch_size, self.bits))

    def heldout(self, shared: Batch) -> Batch:
        """Return the held-out sequences."""
        return {"x": shared["heldout_x"], "y": shared["heldout_y"]}


@dataclass(frozen=True)
class Parity(_Sequences):
    """Random bits, and at each position whether the ones so far are odd in number: their exclusive or, at last that of all bits.

    Attributes:
        batch_size: B.
        length: L, in [6, 62].
    """

    batch_size: int
    length: int
    symbols: ClassVar[int] = 2
    classes: ClassVar[int] = 2

    @property
    def bits(self) -> int:
        """Random bits of a sequence: L."""
        return self.length

    def examples(self, codes: Tensor) -> Batch:
        """Return x, the bits of codes [B] from the lowest, and y, the parities of x so far; both [B, L]."""
        x = _digits(codes, self.length)
        return {"x": x, "y": x.cumsum(-1) & 1}


@dataclass(frozen=True)
class Addition(_Sequences):
    """Two random numbers of L - 1 bits, the lowest bits first, and the digits of their sum.

    A symbol is a pair of bits, a + 2 b. The last pair is of zeros: the last digit is what is carried there.

    Attributes:
        batch_size: B.
        length: L, in [4, 32].
    """

    batch_size: int
    length: int
    symbols: ClassVar[int] = 4
    classes: ClassVar[int] = 2

    @property
    def bits(self) -> int:
        """Random bits of a sequence: 2 (L - 1)."""
        return 2 * (self.length - 1)

    def examples(self, codes: Tensor) -> Batch:
        """Return x, pairs of bits of the lower and the upper halves of codes [B], and y, the digits of their sum; both [B, L]."""
        half = self.bits // 2
        one, two = codes & ((1 << half) - 1), codes >> half
        return {"x": _digits(one, self.length) + 2 * _digits(two, self.length), "y": _digits(one + two, self.length)}


def _digits(numbers: Tensor, count: int) -> Tensor:
    """Return the lowest binary digits [B, count] of numbers [B], the lowest first."""
    return (numbers.unsqueeze(-1) >> torch.arange(count, device=numbers.device)) & 1


def _scrambled(index: Tensor, bits: int) -> Tensor:
    """Return a number of so many bits for each such index, another one for another index."""
    mask = (1 << bits) - 1
    for _ in range(_ROUNDS):
        index = (index * _FACTOR + _SUMMAND) & mask  # multiplying carries upwards only
        index = index ^ (index >> (bits // 2))
    return index


def _training_codes(key: Tensor, count: int, bits: int) -> Tensor:
    """Return codes [count], all equally likely whose index does not begin with zeros."""
    below = bits - _SIDE
    side = 1 + seeds.randint(seeds.fold_in(key, 0), (count,), (1 << _SIDE) - 1)
    words = seeds.fold_in(seeds.fold_in(key, 1), torch.arange(count, device=key.device))
    return _scrambled((side << below) | (words & ((1 << below) - 1)), bits)


@functools.cache
def _heldout(stream: _Sequences) -> Batch:
    """Return the sequences of the lowest indices; all tasks share them."""
    rows = torch.arange(min(_HELDOUT_ROWS, 1 << (stream.bits - _SIDE)))
    return {f"heldout_{name}": value for name, value in stream.examples(_scrambled(rows, stream.bits)).items()}
