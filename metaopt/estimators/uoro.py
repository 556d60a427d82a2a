"""Unbiased online recurrent optimization: the derivative of the inner state is carried as one product of two vectors.

Legend: M single particles (twice the number of antithetic pairs that an evolution strategy would have), W window steps, P
meta-parameters, S floating entries of a carry.

Let G [S, P] be the derivative of the inner state with respect to theta. Instead of G a particle carries s [S] and q [P] with E[s q'] = G.
A step s' = F(s, theta) has G' = F_s G + F_theta, and with independent signs v [S]

    s <- a F_s s + b v,    q <- q / a + F_theta' v / b

keeps the expectation, whatever a, b > 0 (even in v): the cross terms vanish. a and b make the two factors of each product equally long,
which keeps the variance small. The gradient of a loss is (L_s . s) q + L_theta: one tangent and one cotangent a step, whatever P and the
horizon.

Entries are measured in units of their own change in the step: the second moments of Adam are millions of times smaller than its weights,
and signs of one size for all would drown them (on the digits of `study.py`, noise of 7e7 times the derivative became some
18 times).

Source: Tallec, Ollivier, 2017, "Unbiased online recurrent optimization", algorithm 1. Differs: a product with a factor of zero is dropped
instead of adding a small number to a and b; entries have units of their own; initial states may depend on theta. None of it changes an
expectation.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.estimators.estimator import MetaGradient, check_differentiable
from metaopt.estimators.flat import flatten
from metaopt.estimators.tangents import floating, pulled, pushed, signs, summed_window
from metaopt.inner.particles import Episodes, Pairs
from metaopt.learners.learner import Carry, Learner, StepRecord
from metaopt.learners.update_rules import Theta
from metaopt.tasks.task import Batch, Numbers, Params, Program, Task

__all__ = ["UORO", "SketchLearner", "UOROEstimator", "balanced"]

_SIGNS, _INITIAL = 2, 3  # below the keys of batches and of initial states


def balanced(left: Sequence[Tensor], right: Tensor, sizes: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Return two factors with the same product and equal lengths, zeros if either is zero.

    Args:
        left: one vector in pieces.
        right: the other one.
        sizes: the units of the entries of each piece, > 0.
    """
    squares = [(piece / size).square().sum() for piece, size in zip(left, sizes, strict=True)]
    left_norm, right_norm = torch.sqrt(sum(squares, torch.zeros_like(right[0]))), right.norm()
    alive = (left_norm > 0) & (right_norm > 0)
    ratio = torch.where(alive, torch.sqrt(right_norm / left_norm), 0.0)
    inverse = torch.where(alive, torch.sqrt(left_norm / right_norm), 0.0)
    return [ratio * piece for piece in left], inverse * right


def _sizes(leaves: Sequence[Tensor]) -> list[Tensor]:
    """Return the size of each entry, its leaf's root mean square added, 1 where that is 0."""
    found = [leaf.abs() + leaf.square().mean().sqrt() for leaf in leaves]
    return [torch.where(size > 0, size, 1.0) for size in found]


def _probed(draw: Tensor, sizes: Sequence[Tensor], pull: Callable[[tuple[Tensor, ...]], Theta]) -> tuple[list[Tensor], Tensor]:
    """Return the balanced product that stands for a derivative with respect to theta, given what pulls cotangents back.

    Args:
        draw: the signs [S].
        sizes: units of the entries, shaped like the leaves.
        pull: turns cotangents of the leaves into theta's.
    """
    probe = _shaped(draw, sizes)
    left = [size * piece for size, piece in zip(sizes, probe, strict=True)]
    return balanced(left, flatten(pull(tuple(piece / size for size, piece in zip(sizes, probe, strict=True)))), sizes)


@dataclass(frozen=True)
class _SignedProgram:
    """A program whose batches also hold the signs of their step ("signs" [S]); they are drawn outside the step, as all numbers are."""

    program: Program
    entries: int

    @property
    def cap(self) -> float:
        return self.program.cap

    def shared(self) -> Batch:
        return self.program.shared()

    def init(self, numbers: Numbers, key: Tensor) -> Params:
        return self.program.init(numbers, key)

    def batch(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        draw = seeds.fold_in(seeds.fold_in(seeds.fold_in(key, _SIGNS), numbers["sign_seed"]), step)
        return {**self.program.batch(numbers, shared, key, step), "signs": signs(draw, (self.entries,), numbers["horizon"].dtype)}

    def heldout(self, numbers: Numbers, shared: Batch, key: Tensor, step: Tensor) -> Batch:
        return self.program.heldout(numbers, shared, key, step)

    def loss(self, numbers: Numbers, params: Params, batch: Batch) -> Tensor:
        return self.program.loss(numbers, params, batch)

    def normalise(self, numbers: Numbers, raw: Tensor) -> Tensor:
        return self.program.normalise(numbers, raw)


class _SignedEpisodes:
    """Episodes whose tasks draw signs."""

    def __init__(self, episodes: Episodes, learner: Learner, seed: int) -> None:
        self.episodes, self.learner = episodes, learner
        self.run_seed, self.stagger = episodes.run_seed, episodes.stagger
        self.sign_seed = seeds.key("uoro", seed)
        self.theta: Theta = {}  # known with the first estimate; only its shapes matter
        self.entries: dict[Program, int] = {}

    @property
    def stage(self) -> int:
        """That of the episodes that begin now."""
        return getattr(self.episodes, "stage", 0)

    def task(self, particle: int, episode: int, stage: int = 0) -> Task:
        """Return the task of an episode, with signs."""
        task = self.episodes.task(particle, episode, stage) if stage else self.episodes.task(particle, episode)
        if task.program not in self.entries:
            leaves, _ = floating(self.learner.init(self.theta, task, seeds.key("shapes")))
            self.entries[task.program] = sum(leaf.numel() for leaf in leaves)
        program = _SignedProgram(task.program, self.entries[task.program])
        return replace(task, program=program, numbers={**task.numbers, "sign_seed": self.sign_seed})


@dataclass(frozen=True)
class SketchLearner:
    """A learner that carries another one's run ("run") and a product of two vectors in place of its derivative ("left" in the shapes of the
    run's floating leaves, "right" [P]), and adds up the gradients of its normalised losses ("sum" [P]).

    Batches hold "signs" [S] besides what the other learner's task gave.
    """

    learner: Learner

    def init_theta(self, seed: int) -> Theta:
        """Return the other learner's initial theta."""
        return self.learner.init_theta(seed)

    def init(self, theta: Theta, task: Task, key: Tensor) -> Carry:
        """Return a fresh run and the product that stands for the derivative of its beginning."""

        def begin(values: Theta) -> tuple[tuple[Tensor, ...], Carry]:
            run = self.learner.init(values, _unsigned(task), key)
            return floating(run)[0], run

        leaves, pull, run = pulled(begin, theta)
        draw = signs(seeds.fold_in(key, _INITIAL), (sum(leaf.numel() for leaf in leaves),), flatten(theta).dtype)
        left, right = _probed(draw, _sizes(leaves), pull)
        return {"run": run, "left": left, "right": right, "sum": torch.zeros_like(right)}

    def advance(self, theta: Theta, task: Task, carry: Carry, batch: Batch) -> tuple[Carry, StepRecord]:
        """Return the carry after one step of the run and of the product, and the run's own record."""
        leaves, rebuild = floating(carry["run"])
        given = {name: value for name, value in batch.items() if name != "signs"}

        def step(values: Theta, state: tuple[Tensor, ...]) -> tuple[tuple[tuple[Tensor, ...], Tensor], tuple[Carry, Tensor]]:
            run, record = self.learner.advance(values, _unsigned(task), rebuild(state), given)
            return (floating(run)[0], task.normalise(record.loss)), (run, record.loss)

        (moved, loss_slope), _ = pushed(lambda state: step(theta, state), (leaves,), (tuple(carry["left"]),))
        (new_leaves, loss), pull, (run, raw) = pulled(lambda values: step(values, leaves), theta)
        # Forward mode promotes a float32 number times a Python one to float64.
        moved = [tangent.to(leaf.dtype) for tangent, leaf in zip(moved, new_leaves, strict=True)]
        sizes = _sizes([new - old for new, old in zip(new_leaves, leaves, strict=True)])
        left, right = balanced(moved, carry["right"], sizes)
        new_left, new_right = _probed(batch["signs"], sizes, lambda cotangent: pull((cotangent, torch.zeros_like(loss))))
        direct = pull((tuple(torch.zeros_like(leaf) for leaf in new_leaves), torch.ones_like(loss)))
        total = carry["sum"] + loss_slope.to(loss.dtype) * carry["right"] + flatten(direct)
        product = {"left": [old + new for old, new in zip(left, new_left, strict=True)], "right": right + new_right}
        return {"run": run, **product, "sum": total}, StepRecord(raw)


def _unsigned(task: Task) -> Task:
    program = task.program
    return replace(task, program=program.program) if isinstance(program, _SignedProgram) else task


def _shaped(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return a vector cut into pieces shaped like some tensors."""
    pieces = torch.split(vector, [leaf.numel() for leaf in like])
    return [piece.reshape(leaf.shape).to(leaf.dtype) for piece, leaf in zip(pieces, like, strict=True)]


class UOROEstimator:
    """An estimator with its particles.

    Args:
        learner: what is meta-trained, differentiable in theta and in its carry.
        episodes: where the particles' tasks come from.
        particles: M.
        window: W, inner steps per estimate.
        seed: of the signs.
        device: where the runs live.
        clip: largest size of an entry of a particle's gradient, or None.
    """

    def __init__(
        self, learner: Learner, episodes: Episodes, particles: int, window: int, seed: int, device: str = "cpu", clip: float | None = None
    ) -> None:
        self.window, self.clip = window, clip
        self.episodes = _SignedEpisodes(episodes, learner, seed)
        self.pairs = Pairs(SketchLearner(learner), self.episodes, particles, device, members=1)

    @torch.no_grad()
    def estimate(self, theta: Theta, outer_step: int) -> MetaGradient:
        """Return the meta-gradient of one window at `theta`; advances the particles. A pure function of (theta, the particles' state)."""
        self.episodes.theta = {name: torch.zeros_like(value, device="cpu") for name, value in theta.items()}
        rows = {name: torch.stack([value] * self.pairs.pairs) for name, value in theta.items()}

        def pieces() -> Iterator[tuple[Theta, int]]:
            for steps, _ in self.pairs.pieces(self.window):
                yield rows, steps

        def harvest(carry: Carry) -> tuple[Tensor, Carry]:
            return carry["sum"], {**carry, "sum": torch.zeros_like(carry["sum"])}

        return summed_window(self.pairs, theta, self.window, self.clip, pieces(), harvest)

    def state(self) -> dict[str, Any]:
        """Return all that the next estimate depends on besides theta: nested dicts of tensors and lists of integers."""
        like = [torch.zeros_like(value) for value in self.episodes.theta.values()]
        return {"pairs": self.pairs.state(), "shapes": dict(zip(self.episodes.theta, like, strict=True))}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.episodes.theta = dict(state["shapes"])
        self.pairs.load(state["pairs"])


@dataclass(frozen=True)
class UORO:
    """UORO: forward mode at the cost of one tangent for any number of meta-parameters, and with much noise."""

    name: ClassVar[str] = "uoro"
    window: Annotated[int, Ge(1)]
    clip: Annotated[float, Gt(0)] | None = None

    def build(
        self, learner: Learner, episodes: Episodes, pairs: int, seed: int, device: str = "cpu", compiled: bool = False
    ) -> UOROEstimator:
        """Return an estimator with 2 N particles that has not begun."""
        check_differentiable(learner, self.name)
        if compiled:
            raise ConfigError(f"estimator {self.name} runs uncompiled only, got compile=true; set compile: false")
        return UOROEstimator(learner, episodes, 2 * pairs, self.window, seed, device, self.clip)
