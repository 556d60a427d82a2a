"""One policy on a group of inner runs, as it is deployed: from the optimizer's default start, greedy, behind the guard rails.

What `PolicyScheduler` does for one run happens here for many: the rate stays within the limits, a run that is no longer finite loads its
best register, and without one it halves the rate and lets it fall along a cosine to the end.

Legend: E runs, T decisions, H = 9 heads, K = 8 knobs, I policy inputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaopt import seeds, tasks
from metaopt.learners.policies.knobs import HEADS, KNOBS, find_table
from metaopt.learners.policies.network import PolicyNetwork, PolicySpec, greedy
from metaopt.learners.policies.observation import NAMES
from metaopt.learners.policies.starts import inner_start
from metaopt.learners.policies.timing import decision_steps, measured_steps
from metaopt.optim.policy_scheduler_guard import Handover, rate_limits
from metaopt.tasks.halves import SCORING
from metaopt_envs.group import Group, Seen
from metaopt_envs.inner_runs import InnerRuns
from metaopt_envs.reward import Scorer
from metaopt_envs.settings import Bucket, Settings

__all__ = ["Actor", "GuardedGroup", "Play", "Rails", "greedy_actor", "play", "random_actor", "replay"]

_KEEP = -1
_LOST_COLUMNS = [NAMES.index(f"{of}_loss_is_{what}") for of in ("train", "eval") for what in ("nan", "inf")]

Actor = Callable[[int, Tensor], Tensor]
"""Return the actions [E, H] of decision t, from the policy inputs [E, I] at it."""


@dataclass(frozen=True)
class Rails:
    """What keeps a policy from harm.

    Attributes:
        guard: as `PolicyScheduler` has it: True, False, or two factors of the rate's start.
        highest: rate that the policy's card allows, None for any.
    """

    guard: bool | tuple[float, float] = True
    highest: float | None = None


@dataclass(frozen=True)
class Play:
    """What E runs did.

    Attributes:
        steps: inner steps before each decision [T].
        start: knobs at the start [E, K].
        values: knobs after each decision [T, E, K] float64.
        pi: policy inputs at each decision [T, E, I]; empty for a replay.
        final_loss: normalised, on the half that scores [E] float64; what was not finite is NaN.
        handed_over: runs that a guard rail took from the policy [E] bool.
    """

    steps: tuple[int, ...]
    start: Tensor
    values: Tensor
    pi: Tensor
    final_loss: Tensor
    handed_over: Tensor


class _Unpaid(Scorer):
    """Scores nothing: tasks whose baseline cannot be inverted are played too."""

    def score(self, loss: Tensor, failed: Tensor) -> NDArray[np.float64]:
        return np.zeros(len(loss))

    def columns(self) -> Tensor:
        return torch.zeros(len(self.rows), 4, dtype=torch.float64)


class GuardedGroup(Group):
    """A group from the inner optimizer's start behind guard rails, whose runs nobody pays: they need no baseline to be compared with.

    Arguments as of `Group`, with `rails`.
    """

    def __init__(self, bucket: Bucket, settings: Settings, run_seeds: Sequence[int], rails: Rails) -> None:
        start = inner_start(bucket.inner)
        self._guards = rails.guard is not False
        # The start of an inner optimizer is the published one, in which the limits are told.
        self._limits = rate_limits(rails.guard, float(start[0]), rails.highest)
        self._handovers: dict[int, Handover] = {}
        runs = len(run_seeds)
        self._lost = torch.zeros(runs, dtype=torch.bool)
        specs = tuple(bucket.specs())
        unpaid = _Unpaid(specs, (), tuple(i % len(specs) for i in range(runs)), "default")
        super().__init__(bucket, settings, 0, runs, start, True, run_seeds, unpaid)

    @property
    def handed_over(self) -> Tensor:
        """Runs that were taken from the policy [E] bool."""
        return torch.tensor([i in self._handovers for i in range(self.runs)])

    def act(self, action: Tensor) -> Seen:
        """Turn knobs and registers by actions [E, H] as far as the guard rails let them, and run to the next decision or the end."""
        action = torch.where(self.handed_over.unsqueeze(1), _KEEP, action)
        for i in torch.nonzero(self._lost & ~self.handed_over).flatten().tolist() if self._guards else ():
            if self.head_mask[i, 0] and self.filled[i].any():
                action[i, 0] = 1 + int(torch.where(self.filled[i], self.register_loss[i].nan_to_num(torch.inf), torch.inf).argmin())
                continue
            action[i, HEADS.index("lr")] = _KEEP
            self.values = self.values.clone()  # the start is the same tensor before the first action
            self.values[i, 0] *= 0.5
            self._handovers[i] = Handover(self.inner.step, float(self.values[i, 0]))
        return super().act(action)

    def _capped(self, values: Tensor) -> Tensor:
        return torch.cat([values[:, :1].clamp(*self._limits), values[:, 1:]], 1)

    def _advance(self, until: int) -> None:
        if not self._handovers:
            return super()._advance(until)
        begin, horizon = self.inner.step, self.bucket.horizon
        measured = () if until == horizon else measured_steps(begin, until)
        for step in range(begin, until):
            for i, handover in self._handovers.items():
                self.values[i, 0] = handover.rate(step, horizon)
            self.inner.advance(self.values, step + 1, measured)
        return None

    def _look(self, last: bool = False) -> Seen:
        seen = super()._look(last)
        self._lost = seen.pi[:, _LOST_COLUMNS].any(1) | ~torch.isfinite(self.last_weights).all(1)
        return seen


def play(
    actor: Actor,
    bucket: Bucket,
    settings: Settings,
    run_seeds: Sequence[int],
    rails: Rails = Rails(),  # frozen
) -> Play:
    """Return what an actor makes of E runs; run i works on task i % (number of tasks) with inner seed `run_seeds[i]`.

    Args:
        actor: decides.
        bucket: which runs.
        settings: what they see and may turn; nothing else of it counts, for starts are those of the inner optimizer.
        run_seeds: [E].
        rails: what keeps them from harm.
    """
    group = GuardedGroup(bucket, settings, run_seeds, rails)
    seen, inputs, values = group.begin(), [], []
    for t in range(len(group.decisions)):
        inputs.append(seen.pi)
        seen = group.act(torch.where(group.head_mask, actor(t, seen.pi), _KEEP))
        values.append(group.values.clone())
    assert seen.final_loss is not None
    final = seen.final_loss.double()
    final = torch.where(torch.isfinite(final), final, torch.nan)
    return Play(group.decisions, group.start, torch.stack(values), torch.stack(inputs), final, group.handed_over)


def replay(values: Tensor, bucket: Bucket, run_seeds: Sequence[int]) -> Play:
    """Return what E runs make of knobs that nobody chooses: `values` [T, E, K] after each decision, [E, K] of them for all."""
    decisions = decision_steps(bucket.horizon, bucket.decisions)
    built = [tasks.build(spec) for spec in bucket.specs()]
    inner = InnerRuns([built[i % len(built)] for i in range(len(run_seeds))], run_seeds, bucket.inner)
    start = inner_start(bucket.inner).expand(len(run_seeds), -1)
    inner.advance(start, decisions[0], ())
    for now, until in zip(values, (*decisions[1:], bucket.horizon), strict=True):
        inner.advance(now, until, ())
    final = inner.heldout(SCORING)[1].double()
    final = torch.where(torch.isfinite(final), final, torch.nan)
    nobody = torch.zeros(len(run_seeds), dtype=torch.bool)
    return Play(decisions, start, values, torch.empty(len(decisions), len(run_seeds), 0), final, nobody)


def greedy_actor(network: PolicyNetwork, runs: int) -> Actor:
    """Return the actor of a policy that makes its most likely choices, with the memory of E runs."""
    state = network.initial_state((runs,))

    @torch.no_grad()
    def decide(t: int, pi: Tensor) -> Tensor:
        nonlocal state
        logits, state = network.step(pi, state)
        return greedy(logits, network.nvec)

    return decide


def random_actor(spec: PolicySpec, runs: int, seed: int) -> Actor:
    """Return an actor that makes every choice with equal probability."""
    assert len(find_table(spec.table).nvec) == len(KNOBS) + 1
    count = torch.tensor(spec.nvec)
    key = seeds.key("random policy", seed)

    def decide(t: int, pi: Tensor) -> Tensor:
        uniform = seeds.uniform(seeds.fold_in(key, t), (runs, len(spec.nvec)), torch.float64)
        return torch.minimum((uniform * count).long(), count - 1)

    return decide
