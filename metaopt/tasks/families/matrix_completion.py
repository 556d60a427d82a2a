"""Filling in a low-rank matrix by a product of factors: family `matrix_completion`.

Sizes, rank, number of factors and the share of entries that are seen are static, hence a template; the matrix, which entries are seen, the
initial scale and the horizon vary inside it. There is no stream and no model: only learners that use gradients run on it. Only a test
split: no rule is meta-trained on it.

Legend: R rows, C columns, L factors.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.tasks.families.drawn import DrawnFamily
from metaopt.tasks.models.parts import weight
from metaopt.tasks.task import Batch, Numbers, Params

__all__ = ["MATRIX_COMPLETION", "MatrixCompletion"]

_START = 0.01  # deviation of the first product's entries at initial scale 1; near zero training prefers low ranks


@dataclass(frozen=True)
class MatrixCompletion:
    """Mean squared error of the product W1 W2 ... WL on the entries of a matrix that are seen, or on the others.

    The matrix has mean square 1, so that a product of zero has a loss of about 1; the matrix itself has 0. All inner sizes are the smaller
    side: no factor limits the rank, and only the way that training takes can find a low one.

    Numbers: `matrix` [R, C], `seen` [R, C] (1 or 0), `init_scale`, `horizon`.

    Source: Arora et al., 2019, "Implicit regularization in deep matrix factorization", section 2.
    """

    rows: int
    columns: int
    rank: int
    factors: int
    seen_percent: int
    cap: float = 10.0

    def shared(self) -> Batch:
        """Return nothing: each task has a matrix of its own."""
        return {}

    def init(self, numbers: Numbers, key: Tensor) -> Params:
        """Return factors whose product has entries of deviation 0.01 init_scale^L: normal, variance over the fan in."""
        inner = min(self.rows, self.columns)
        sizes = (self.rows, *[inner] * (self.factors - 1), self.columns)
        scale = numbers["init_scale"] * (_START * self.columns**0.5) ** (1.0 / self.factors)
        return {f"factor{i}": weight(seeds.fold_in(key, i), shape, scale) for i, shape in enumerate(pairwise(sizes))}

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return which entries count [R, C]: those that are seen."""
        return {"counted": numbers["seen"]}

    def heldout(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return which entries count [R, C]: those that are not seen."""
        return {"counted": 1.0 - numbers["seen"]}

    def product(self, params: Params) -> Tensor:
        """Return the product of the factors [R, C]."""
        found = params["factor0"]
        for i in range(1, self.factors):
            found = found @ params[f"factor{i}"]
        return found

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the mean squared error on the entries that count."""
        error = (self.product(params) - numbers["matrix"]) * batch["counted"]
        return error.square().sum() / batch["counted"].sum()

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        """Return the loss, which is on the common scale as it is."""
        return raw


def _problem(program: MatrixCompletion, key: Tensor) -> Numbers:
    """Return a product of two random factors, scaled to mean square 1, and the entries that are seen, chosen at random."""
    sides = ((program.rows, program.rank), (program.rank, program.columns))
    left, right = (seeds.normal(seeds.fold_in(key, i), side, torch.float64) for i, side in enumerate(sides))
    matrix = left @ right
    count = program.rows * program.columns
    order = seeds.uniform(seeds.fold_in(key, 2), (count,), torch.float64).argsort(stable=True)
    seen = torch.zeros(count)
    seen[order[: round(count * program.seen_percent / 100)]] = 1.0
    return {"matrix": matrix / matrix.square().mean().sqrt(), "seen": seen.reshape(program.rows, program.columns)}


def _grid(*programs: MatrixCompletion) -> dict[str, MatrixCompletion]:
    return {f"{p.rows}x{p.columns}-rank{p.rank}-factors{p.factors}-seen{p.seen_percent}": p for p in programs}


MATRIX_COMPLETION = DrawnFamily(
    "matrix_completion",
    {"meta_test": _grid(MatrixCompletion(24, 24, 2, 2, 50), MatrixCompletion(32, 20, 2, 3, 50), MatrixCompletion(40, 40, 3, 2, 40))},
    _problem,
    init_scale=(0.5, 1.4),
)
