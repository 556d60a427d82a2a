"""What every method of a hypergradient says about itself, and does.

Costs are in gradient-equivalents: a training step (one gradient) is 1, a Hessian-vector product 2. The derivative of one inner step with
respect to its state, in either mode, is counted as one Hessian-vector product, the gradient of the outer loss as 1. Hyperparameters of an
update rule alone are cheaper than that at the first differentiated step, where only elementwise operations are differentiated.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from metaopt.errors import ConfigError
from metaopt.estimators.hypergradients.problem import Hyperparameters, Problem

__all__ = ["HypergradientRecipe", "Memory", "check_count"]

HVP = 2.0
STEP = 1.0


class Memory(NamedTuple):
    """What a method holds at its peak, beside one training step.

    Attributes:
        states: copies of the state (weights and accumulators).
        graphs: inner steps whose activations are held at once; of a column's tangents, as many as one step's.
    """

    states: int
    graphs: int


@dataclass(frozen=True)
class HypergradientRecipe(ABC):
    """Options of a method; frozen, its fields are its options.

    Attributes:
        name: registry name.
        bias: what the estimate leaves out, in one sentence.
        memory_formula: what `memory` computes, for tables. T steps, N columns (entries of all hyperparameters), K, C, S, n as `where` says.
        cost_formula: what `cost` computes.
        where: the other letters of both formulas.
    """

    name: ClassVar[str]
    bias: ClassVar[str]
    memory_formula: ClassVar[str]
    cost_formula: ClassVar[str]
    where: ClassVar[str] = ""

    @abstractmethod
    def memory(self, steps: int, columns: int) -> Memory:
        """Return what is held at the peak, for T `steps` and N `columns`."""

    @abstractmethod
    def cost(self, steps: int, columns: int) -> float:
        """Return the gradient-equivalents of one estimate, the T training steps among them."""

    @abstractmethod
    def compute(self, problem: Problem) -> Hyperparameters:
        """Return the estimate, shaped like the hyperparameters; called under `torch.no_grad`."""


def check_count(field: str, value: int, least: int = 1) -> None:
    """Raise unless an option is an integer of at least `least`.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{field} must be an integer >= {least}, got {value!r}")
