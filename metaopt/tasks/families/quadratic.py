"""Quadratic bowls: rotated, ill-conditioned, with gradient noise or a minimum that moves. Family `quadratic`.

The bare objective 0.5 (x - m)' H (x - m) has no stream and no model; only learners that use gradients run on it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.sampling import Sampler, split_of
from metaopt.tasks.task import Batch, Numbers, Params, Task, TaskSpec

__all__ = ["QUADRATIC", "Quadratic", "QuadraticFamily"]

NOISES = ("none", "gradient", "minimum")


@dataclass(frozen=True)
class Quadratic:
    """0.5 (x - m)' H (x - m) in `rows * columns` dimensions, x0 ~ N(0, 1).

    With noise "gradient" every batch adds n' (x - m), n ~ N(0, noise^2); with "minimum" it moves m by N(0, noise^2).

    Numbers: `hessian` [d, d], `minimum` [d], `noise`, `initial_loss` (its expectation over x0), `horizon`.
    """

    rows: int
    columns: int
    noise: str
    cap: float = 10.0

    def shared(self) -> Batch:
        """Return nothing: there is no data."""
        return {}

    def init(self, numbers: Numbers, key: Tensor) -> Params:
        """Return x0 [rows, columns], standard normal."""
        return {"x": seeds.normal(key, (self.rows, self.columns), numbers["minimum"].dtype)}

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return the noise vector [d] of one step."""
        draw = seeds.normal(seeds.fold_in(key, step), (self.rows * self.columns,), numbers["minimum"].dtype)
        return {"noise": draw * numbers["noise"]}

    def heldout(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return zero noise: evaluation sees the true objective."""
        return {"noise": torch.zeros_like(numbers["minimum"])}

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the noisy quadratic."""
        minimum = numbers["minimum"] + batch["noise"] if self.noise == "minimum" else numbers["minimum"]
        error = params["x"].reshape(-1) - minimum
        value = 0.5 * (error * (numbers["hessian"] @ error)).sum()
        return value + (batch["noise"] * error).sum() if self.noise == "gradient" else value

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        """Return the loss over its expected initial value."""
        return raw / numbers["initial_loss"]


@dataclass(frozen=True)
class QuadraticFamily:
    """Bowls whose spectrum is log-uniform on [1 / condition, 1] times a log-uniform scale, in a random rotation.

    Attributes:
        grid: split -> {template: (rows, columns, noise)}.
    """

    grid: dict[str, dict[str, tuple[int, int, str]]]
    name: str = "quadratic"
    offers: tuple[str, ...] = ()

    def templates(self, split: str) -> tuple[str, ...]:
        """Return the templates of a split."""
        return tuple(self.grid.get(split, {}))

    def sample(self, template: str, seed: int, horizon: tuple[int, int]) -> TaskSpec:
        """Return a spec: condition number in [1, 1e3), scale in [0.1, 10), noise in [0.01, 0.3), all log-uniform."""
        draw = Sampler(self.name, template, seed)
        values = {
            "condition": draw.log_uniform("condition", 1.0, 1e3),
            "scale": draw.log_uniform("scale", 0.1, 10.0),
            "noise": draw.log_uniform("noise", 0.01, 0.3),
            "seed": seed,
        }
        return TaskSpec(self.name, template, split_of(self, template), values, draw.log_integer("horizon", *horizon))

    def build(self, spec: TaskSpec) -> Task:
        """Return the task of a spec; rotation, spectrum and minimum follow from its seed."""
        if spec.template not in self.grid.get(spec.split, {}):
            raise TaskError(f"quadratic has no template {spec.template!r} in {spec.split}; it has {', '.join(self.templates(spec.split))}")
        rows, columns, noise = self.grid[spec.split][spec.template]
        d = rows * columns
        key = seeds.key("quadratic", spec.template, spec.values["seed"])
        rotation, _ = torch.linalg.qr(seeds.normal(seeds.fold_in(key, 0), (d, d), torch.float64))
        exponent = -seeds.uniform(seeds.fold_in(key, 1), (d,), torch.float64)
        spectrum = float(spec.values["scale"]) * float(spec.values["condition"]) ** exponent
        hessian = (rotation * spectrum) @ rotation.T
        minimum = seeds.normal(seeds.fold_in(key, 2), (d,), torch.float64)
        initial_loss = 0.5 * (spectrum.sum() + minimum @ hessian @ minimum)
        # Noise is in units of the objective, so that its share of the gradient does not depend on the scale.
        noise_std = float(spec.values["noise"]) * (float(spec.values["scale"]) if noise == "gradient" else 1.0)
        numbers = {
            "hessian": hessian,
            "minimum": minimum,
            "noise": torch.tensor(noise_std if noise != "none" else 0.0),
            "initial_loss": initial_loss,
            "horizon": torch.tensor(float(spec.horizon)),
        }
        return Task(Quadratic(rows, columns, noise), {k: v.to(torch.float32) for k, v in numbers.items()}, {})


def _grid(*rows: tuple[int, int, str]) -> dict[str, tuple[int, int, str]]:
    return {f"{r}x{c}-{noise}": (r, c, noise) for r, c, noise in rows}


QUADRATIC = QuadraticFamily(
    {
        "meta_train": _grid((10, 1, "none"), (10, 1, "gradient"), (8, 4, "minimum"), (16, 2, "gradient"), (5, 5, "none")),
        "meta_valid": _grid((12, 1, "gradient"), (8, 6, "none")),
        "meta_test": _grid((20, 1, "gradient"), (6, 6, "minimum"), (15, 3, "none")),
    }
)
