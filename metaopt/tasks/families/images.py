"""Image classification on scikit-learn's digits: families `digits_mlp` and `digits_conv`.

Width, depth, activation and batch size are static, hence a template; initial scale and horizon vary inside it. Templates of different
splits share no (hidden sizes, activation, batch) combination.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from metaopt.errors import TaskError
from metaopt.tasks.models import MLP, ConvNet
from metaopt.tasks.sampling import Sampler, split_of
from metaopt.tasks.streams import Digits
from metaopt.tasks.task import Batch, Numbers, Params, Task, TaskSpec

__all__ = ["DIGITS_CONV", "DIGITS_MLP", "Classification", "DigitsFamily"]

Model = MLP | ConvNet


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of a model on a stream; the normaliser is the loss of a uniform guess, log C.

    Numbers: `init_scale`, `horizon`.
    """

    stream: Digits
    model: Model
    cap: float = 4.0

    def shared(self) -> Batch:
        """Return the stream's data set."""
        return self.stream.shared()

    def init(self, numbers: Numbers, key: Tensor) -> Params:
        """Return the model's fresh weights at the task's initial scale."""
        return self.model.init(key, numbers["init_scale"])

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return a training batch of the stream."""
        return self.stream.batch(shared, key, step)

    def heldout(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return all held-out examples."""
        return self.stream.heldout(shared)

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the mean cross-entropy in nats."""
        log_probs = F.log_softmax(self.model.apply(params, batch["x"]), -1)
        return -log_probs.gather(-1, batch["y"].unsqueeze(-1)).mean()

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        """Return nats / log C: 1 for a uniform guess, 0 when every label is certain."""
        return raw / math.log(self.stream.classes)


@dataclass(frozen=True)
class DigitsFamily:
    """Models of one architecture class on digits.

    Attributes:
        grid: split -> {template: (hidden sizes, activation, batch size)}.
        init_scale: closed range of the log-uniform initial scale.
    """

    name: str
    grid: dict[str, dict[str, tuple[tuple[int, ...], str, int]]]
    init_scale: tuple[float, float] = (0.5, 2.0)
    offers: tuple[str, ...] = ("stream", "model")

    def templates(self, split: str) -> tuple[str, ...]:
        """Return the templates of a split."""
        return tuple(self.grid.get(split, {}))

    def sample(self, template: str, seed: int, horizon: tuple[int, int]) -> TaskSpec:
        """Return a spec with a log-uniform initial scale and horizon."""
        draw = Sampler(self.name, template, seed)
        values = {"init_scale": draw.log_uniform("init_scale", *self.init_scale)}
        return TaskSpec(self.name, template, split_of(self, template), values, draw.log_integer("horizon", *horizon))

    def build(self, spec: TaskSpec) -> Task:
        """Return the task of a spec."""
        if spec.template not in self.grid.get(spec.split, {}):
            raise TaskError(
                f"{self.name} has no template {spec.template!r} in {spec.split}; it has {', '.join(self.templates(spec.split)) or 'none'}"
            )
        sizes, activation, batch_size = self.grid[spec.split][spec.template]
        stream = Digits(batch_size)
        model: Model
        if self.name == "digits_conv":
            model = ConvNet((1, 8, 8), sizes, stream.classes, activation)
        else:
            model = MLP((stream.features, *sizes, stream.classes), activation)
        program = Classification(stream, model)
        numbers = {name: torch.tensor(float(spec.values[name])) for name in ("init_scale",)}
        return Task(program, {**numbers, "horizon": torch.tensor(float(spec.horizon))}, program.shared())


def _grid(*rows: tuple[tuple[int, ...], str, int]) -> dict[str, tuple[tuple[int, ...], str, int]]:
    return {
        f"{'x'.join(map(str, sizes)) or 'linear'}-{activation}-b{batch}": (sizes, activation, batch) for sizes, activation, batch in rows
    }


DIGITS_MLP = DigitsFamily(
    "digits_mlp",
    {
        "meta_train": _grid(
            ((32,), "relu", 64),
            ((16,), "tanh", 32),
            ((64,), "relu", 32),
            ((32, 32), "relu", 64),
            ((24,), "gelu", 16),
            ((16, 16), "tanh", 64),
            ((48,), "silu", 128),
            ((), "relu", 64),
            ((16, 16, 16), "relu", 32),
            ((32,), "sigmoid", 64),
        ),
        "meta_valid": _grid(((96,), "relu", 64), ((40, 40), "tanh", 32), ((20, 20, 20), "gelu", 64)),
        "meta_test": _grid(((128,), "relu", 64), ((48, 48), "silu", 48), ((32, 32, 32), "tanh", 64), ((56,), "selu", 24)),
    },
)

DIGITS_CONV = DigitsFamily("digits_conv", {"meta_test": _grid(((8, 16), "relu", 32), ((12,), "tanh", 48))})
