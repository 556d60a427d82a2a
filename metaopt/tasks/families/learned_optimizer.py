"""Training a learned optimizer, as a task: family `learned_optimizer_task`.

One inner step differentiates through a short unroll of a small update rule on a handful of problems. Kind, size and number of the problems,
the length of the unroll, the rule's width and what is minimised are static, hence a template; initial scale and horizon vary inside.

Legend: P problems, D variables, K steps of an unroll.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from metaopt import seeds
from metaopt.tasks.families.shaped import ShapedFamily
from metaopt.tasks.models.unrolled_rule import UnrolledRule
from metaopt.tasks.sampling import Choices, LogIntegers, Shape, draw_templates
from metaopt.tasks.streams.problems import Logistic, Problems, Quadratic
from metaopt.tasks.task import Batch, Numbers, Params

__all__ = ["LEARNED_OPTIMIZER_TASK", "Unroll", "gradient_descent_floor"]

_HELDOUT_PROBLEMS = 64
_RATES = tuple(0.02 * 2.0 ** (k / 2) for k in range(20))  # curvatures lie between 0.001 and 10
_PROBLEMS: dict[str, type[Problems]] = {"quadratic": Quadratic, "logistic": Logistic}


@dataclass(frozen=True)
class Unroll:
    """Losses of problems along an unroll, each over the problem's first loss: their mean over problems, and over steps or at the last one.

    The scale has 1 at a rule that does not move and 0 at gradient descent with the best constant step for each problem.

    Attributes:
        problems: what the rule works on.
        rule: the rule; its weights are the inner parameters.
        count: problems in a training batch.
        steps: length of an unroll, K.
        objective: "mean" over the steps or "final".

    Numbers: `init_scale`, `floor`, `horizon`.
    """

    problems: Problems
    rule: UnrolledRule
    count: int
    steps: int
    objective: str
    cap: float = 10.0

    def shared(self) -> Batch:
        """Return nothing: problems are drawn."""
        return {}

    def init(self, numbers: Numbers, key: Tensor) -> Params:
        """Return the rule's fresh weights at the task's initial scale."""
        return self.rule.init(key, numbers["init_scale"])

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return the problems of one step, [P, ...] each entry."""
        return self.problems.draw(seeds.fold_in(key, step), self.count, numbers["floor"].dtype)

    def heldout(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        """Return 64 problems, always the same ones: their key is none that training draws from."""
        fixed = seeds.key("learned_optimizer_task", "heldout").to(key.device)
        return self.problems.draw(fixed, _HELDOUT_PROBLEMS, numbers["floor"].dtype)

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        """Return the mean of the relative losses; no randomness."""
        visited = self.rule.apply(params, lambda x: self.problems.gradient(batch, x), batch["start"], self.steps)
        return self.relative(batch, visited).mean()

    def relative(self, batch: Batch, visited: list[Tensor]) -> Tensor:
        """Return the objective of each problem [P] from the variables [P, D] visited after each step."""
        first = self.problems.loss(batch, batch["start"])
        counted = visited[-1:] if self.objective == "final" else visited
        return torch.stack([self.problems.loss(batch, x) / first for x in counted]).mean(0)

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        """Return the objective with the floor at 0: 1 for a rule that does not move."""
        return (raw - numbers["floor"]) / (1.0 - numbers["floor"])


@functools.cache
def gradient_descent_floor(program: Unroll) -> float:
    """Return the objective of gradient descent on the held-out problems, with the best constant step for each of them, to four digits."""
    like = torch.zeros((), dtype=torch.float64)
    batch = program.heldout({"floor": like}, {}, seeds.key(), like)
    objectives = []
    for rate in _RATES:
        x, visited = batch["start"], []
        for _ in range(program.steps):
            x = x - rate * program.problems.gradient(batch, x)
            visited.append(x)
        objectives.append(program.relative(batch, visited))
    return float(f"{float(torch.stack(objectives).min(0).values.mean()):.4g}")


def _program(shape: Shape) -> Unroll:
    rule = UnrolledRule(int(shape["hidden"]), str(shape["activation"]))
    problems = _PROBLEMS[str(shape["problem"])](int(shape["size"]))
    return Unroll(problems, rule, int(shape["problems"]), int(shape["steps"]), str(shape["objective"]))


def _constants(program: Unroll) -> dict[str, float]:
    return {"floor": gradient_descent_floor(program)}


_NAME = "learned_optimizer_task"


def _canonical(shape: Shape) -> Shape:
    return {**shape, "objective": "final"} if shape["steps"] == 1 else shape  # the mean over one step is that step


LEARNED_OPTIMIZER_TASK = ShapedFamily(
    _NAME,
    draw_templates(
        _NAME,
        {
            "problem": Choices(("quadratic", "logistic")),
            "size": LogIntegers(3, 12),
            "problems": LogIntegers(1, 8),
            "steps": LogIntegers(1, 20),
            "objective": Choices(("mean", "final")),
            "hidden": LogIntegers(4, 16),
            "activation": Choices(("relu", "tanh", "silu")),
        },
        {"meta_train": 8, "meta_valid": 3, "meta_test": 4},
        _canonical,
    ),
    _program,
    _constants,
    init_scale=(0.5, 1.4),
    offers=(),
)
