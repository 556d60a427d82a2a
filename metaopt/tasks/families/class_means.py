"""Gaussian classes with random means: family `class_means`, endless fresh problems for learners that learn from examples alone.

Class means are standard normal, an example is its class's mean plus standard normal noise, and all is divided by its root mean square; in
mixed templates a random matrix turns and stretches the features. Features, classes and batch size are static, hence a template; the means,
the matrix and the horizon vary inside it. Training examples are fresh draws; held out are others of the same classes.

Learners that use gradients train a softmax regression. The reference of the loss is a uniform guess, log C; the floor is 0.

Online SGD on a softmax regression from zero weights, at the best of eight constant rates, predicts this share of examples right, each
before it sees its label, means over 64 tasks:

    features8-classes2-batch1, 24 examples     0.870    (rate 0.1)
    features16-classes5-batch1, 100 examples   0.876    (rate 0.1)
    features4-classes3-batch1, 60 examples     0.685    (rate 0.1)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.families.drawn import DrawnFamily
from metaopt.tasks.families.supervised import cross_entropy
from metaopt.tasks.models.mlp import MLP
from metaopt.tasks.models.small_head import SmallHead
from metaopt.tasks.task import Batch, Numbers, Params

__all__ = ["CLASS_MEANS", "ClassMeans"]

_HELDOUT_ROWS = 128


@dataclass(frozen=True)
class ClassMeans:
    """Examples (mu_y + noise) M of one task's classes, and a softmax regression on them.

    Numbers: `means` mu [C, A], `mix` M [A, A], `init_scale` (of the regression's weights), `horizon`.

    Attributes:
        features: A, >= 1.
        classes: C, >= 2.
        batch_size: B, >= 1.
        mixed: whether M is random, or a multiple of the identity.
    """

    features: int
    classes: int
    batch_size: int
    mixed: bool = False
    cap: float = 10.0

    def __post_init__(self) -> None:
        """Refuse a task without anything to tell apart."""
        if self.features < 1 or self.classes < 2 or self.batch_size < 1:
            sizes = f"{self.features} features, {self.classes} classes and batches of {self.batch_size}"
            raise TaskError(f"class means need at least 1 feature, 2 classes and batches of 1, got {sizes}")

    @property
    def model(self) -> SmallHead:
        """The softmax regression."""
        return SmallHead(MLP((self.features, self.classes), "relu"))

    def shared(self) -> Batch:
        """Return nothing: there is no data set."""
        return {}

    def init(self, numbers: Numbers, key: Tensor) -> Params:
        """Return small weights and zero biases."""
        return self.model.init(key, numbers["init_scale"])

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return x [B, A] and y [B] of fresh examples, classes equally likely."""
        return self._examples(numbers, seeds.fold_in(key, step), self.batch_size)

    def heldout(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return 128 examples, the same at every step."""
        return self._examples(numbers, seeds.fold_in(key, -1), _HELDOUT_ROWS)  # no step is negative

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the mean cross-entropy in nats."""
        return cross_entropy(self.model.apply(params, batch["x"]), batch["y"])

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        """Return the loss in units of that of a uniform guess."""
        return raw / math.log(self.classes)

    def _examples(self, numbers: Numbers, key: Tensor, count: int) -> Batch:
        means = numbers["means"]
        labels = seeds.randint(seeds.fold_in(key, 0), (count,), self.classes)
        noise = seeds.normal(seeds.fold_in(key, 1), (count, self.features), means.dtype)
        return {"x": (means[labels] + noise) @ numbers["mix"], "y": labels}


def _problem(program: ClassMeans, key: Tensor) -> Numbers:
    """Return standard normal means, and the matrix that examples of unit mean square come out of."""
    a = program.features
    means = seeds.normal(seeds.fold_in(key, 0), (program.classes, a), torch.float64)
    mix = seeds.normal(seeds.fold_in(key, 1), (a, a), torch.float64) if program.mixed else torch.eye(a, dtype=torch.float64)
    # E |x|^2 / A, over classes and noise.
    square = ((means @ mix).square().sum() / program.classes + mix.square().sum()) / a
    return {"means": means, "mix": mix / square.sqrt()}


def _grid(*programs: ClassMeans) -> Mapping[str, ClassMeans]:
    def name(p: ClassMeans) -> str:
        return f"features{p.features}-classes{p.classes}-batch{p.batch_size}{'-mixed' if p.mixed else ''}"

    return {name(p): p for p in programs}


CLASS_MEANS = DrawnFamily(
    "class_means",
    {
        "meta_train": _grid(
            ClassMeans(8, 2, 1),
            ClassMeans(8, 3, 1),
            ClassMeans(6, 2, 1, mixed=True),
            ClassMeans(10, 3, 1, mixed=True),
            ClassMeans(12, 4, 1),
            ClassMeans(6, 5, 1),
            ClassMeans(8, 3, 4),
            ClassMeans(10, 4, 4, mixed=True),
        ),
        "meta_valid": _grid(ClassMeans(9, 3, 1), ClassMeans(7, 2, 1, mixed=True), ClassMeans(12, 3, 4)),
        "meta_test": _grid(
            ClassMeans(16, 5, 1), ClassMeans(4, 3, 1), ClassMeans(16, 4, 1, mixed=True), ClassMeans(24, 8, 1), ClassMeans(16, 5, 8)
        ),
    },
    _problem,
    init_scale=(0.5, 2.0),
    offers=("stream",),
)
