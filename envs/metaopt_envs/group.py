"""A group of episodes of hyperparameter control: E inner runs of one shape, E policies' turns at once.

An episode is one inner run of N steps with T decisions. It begins with a few probe steps at perturbed knobs, so that the first decision
has something to look at. Everything is a pure function of (bucket, settings, seed, actions).

Legend: E runs, H = 9 heads, K = 8 knobs, R = 3 registers, I = 161 policy inputs, V critic inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap

from metaopt import seeds, tasks
from metaopt.baselines.power_curve import WORST
from metaopt.learners.policies.knobs import KNOBS, REGISTERS, find_table, perturbed, turned
from metaopt.learners.policies.observation import Measured, observation_start, observe
from metaopt.learners.policies.starts import inner_knobs, inner_start
from metaopt.learners.policies.timing import decision_steps, measured_steps
from metaopt.tasks.halves import DECIDING, SCORING
from metaopt_envs.critic_inputs import critic_inputs
from metaopt_envs.inner_runs import InnerRuns, choose
from metaopt_envs.reward import Scorer
from metaopt_envs.settings import Bucket, Settings

__all__ = ["Group", "Seen", "inner_start"]

_NO_ACTION = -1


@dataclass(frozen=True)
class Seen:
    """What there is to see at a decision, or at the end.

    Attributes:
        pi: policy inputs [E, I] float32.
        v: critic inputs [E, V] float32.
        ended: runs that are over [E] bool.
        failed: runs that left the finite range [E] bool.
        reward: what each run gets at this look [E] float64.
        final_loss: normalised loss on the half that scores [E]; None before the end.
    """

    pi: Tensor
    v: Tensor
    ended: Tensor
    failed: Tensor
    reward: NDArray[np.float64]
    final_loss: Tensor | None = None


class Group:
    """E episodes in step; `begin` once, then `act` T times.

    Args:
        bucket: which runs.
        settings: what they have in common.
        seed: 63-bit; decides seeds of the runs, perturbations and what is missing.
        runs: E.
        given: knob values that every run starts from instead of perturbed ones [K] (evaluation), or None.
        missing: whether to leave things out at random as the settings say.
        run_seeds: seeds of the inner runs [E], to pair them with other runs; None for seeds that belong to `seed`.
        scorer: of E runs of the bucket's tasks, where it is known already; None has its references looked up or computed.
    """

    def __init__(
        self,
        bucket: Bucket,
        settings: Settings,
        seed: int,
        runs: int,
        given: Tensor | None = None,
        missing: bool = True,
        run_seeds: Sequence[int] | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        self.bucket, self.settings, self.runs = bucket, settings, runs
        self.table = find_table(settings.table)
        self.scorer = Scorer.of(bucket.specs(), runs, settings.against) if scorer is None else scorer
        built = [tasks.build(spec) for spec in self.scorer.specs]
        self.seeds = [seeds.stable_hash("policy run", seed, i) for i in range(runs)] if run_seeds is None else list(run_seeds)
        self.inner = InnerRuns([built[row] for row in self.scorer.rows], self.seeds, bucket.inner)
        draws = seeds.uniform(seeds.key("episode", seed), (runs, 2 * len(KNOBS) + 3), torch.float64)
        noise, missing_knob, rest = draws[:, : len(KNOBS)], draws[:, len(KNOBS) : 2 * len(KNOBS)], draws[:, 2 * len(KNOBS) :]
        has = inner_knobs(bucket.inner, settings.knobs)
        off = float(missing)
        self.knob_mask = has & (missing_knob >= off * settings.knob_missing)
        has_registers = (rest[:, 0] >= off * settings.registers_missing) & settings.registers
        self.has_eval = rest[:, 1] >= off * settings.eval_missing
        self.head_mask = torch.cat([has_registers.unsqueeze(1), self.knob_mask], 1)
        away = (rest[:, 2] < settings.perturbed).unsqueeze(1) & (given is None)
        self.noise = torch.where(away, noise, 0.5)
        start = (inner_start(bucket.inner) if given is None else given).expand(runs, -1)
        # Users have their own beta2, whether or not the policy turns it.
        moves = has | (torch.arange(len(KNOBS)) == KNOBS.index("one_minus_beta2"))
        self.start = self.values = self._capped(perturbed(start, noise, moves & away))
        self.decisions = decision_steps(bucket.horizon, bucket.decisions)
        self.at = 0
        self.failed = torch.zeros(runs, dtype=torch.bool)
        self.ended = torch.zeros(runs, dtype=torch.bool)
        self.over = np.zeros(runs, np.bool_)
        self.state: Any = torch.utils._pytree.tree_map(lambda x: x.expand(runs, *x.shape).clone(), observation_start())
        self.saved: list[Any] = [None] * REGISTERS
        self.register_loss = torch.zeros(runs, REGISTERS, dtype=torch.float64)
        self.register_progress = torch.zeros(runs, REGISTERS, dtype=torch.float64)
        self.filled = torch.zeros(runs, REGISTERS, dtype=torch.bool)
        self.last_action = torch.full((runs, len(KNOBS) + 1), _NO_ACTION, dtype=torch.int64)

    def begin(self) -> Seen:
        """Make the probe steps and return what the first decision sees."""
        self.last_weights = self.inner.weights()
        self._advance(self.decisions[0])
        return self._look()

    def act(self, action: Tensor) -> Seen:
        """Turn knobs and registers by actions [E, H], run to the next decision or the end, and return what is seen there."""
        self._registers(action[:, 0])
        self.values = self._capped(turned(self.table, self.values, action, self.knob_mask))
        self.last_action = action
        self.at += 1
        last = self.at == len(self.decisions)
        self._advance(self.bucket.horizon if last else self.decisions[self.at])
        return self._look(last)

    def _capped(self, values: Tensor) -> Tensor:
        return torch.cat([values[:, :1].clamp(max=self.settings.highest_lr), values[:, 1:]], 1)

    def _advance(self, until: int) -> None:
        begin = self.inner.step
        # Nothing reads what would be measured after the last decision.
        last = until == self.bucket.horizon
        self.inner.advance(self.values, until, () if last else measured_steps(begin, until))

    def _look(self, last: bool = False) -> Seen:
        statistics, train_loss = self.inner.seen()
        eval_loss, eval_normalised = self.inner.heldout(DECIDING)
        weights = self.inner.weights()
        progress = torch.full((self.runs,), self.inner.step / self.bucket.horizon, dtype=torch.float64)
        self.loss = torch.where(self.has_eval, eval_loss, train_loss)
        measured = Measured(
            statistics=statistics,
            train_loss=train_loss,
            eval_loss=eval_loss,
            has_eval=self.has_eval,
            update_norm=torch.linalg.vector_norm(weights - self.last_weights, dim=1),
            param_norm=torch.linalg.vector_norm(weights, dim=1),
            progress=progress,
            values=self.values,
            start=self.start,
            action=self.last_action,
            head_mask=self.head_mask,
            register_loss=self.register_loss,
            register_filled=self.filled,
            register_progress=self.register_progress,
        )
        self.last_weights = weights
        self.progress = progress
        self.state, pi = vmap(partial(observe, table=self.table))(self.state, measured)
        finite = torch.isfinite(train_loss) & torch.isfinite(eval_loss) & torch.isfinite(weights).all(1)
        saved = self.filled.any(1) & self.head_mask[:, 0] & self.settings.rescue
        lost = ~finite & (self.failed | ~saved)  # `failed` from the look before: the one more decision did not help
        self.failed = torch.where(self.ended, self.failed, ~finite)  # what is over stays as it ended
        self.ended = self.ended | lost | last
        v = critic_inputs(
            self.bucket.family,
            (weights.shape[1], len(self.inner.carry["params"]), self.bucket.horizon, len(self.decisions)),
            progress,
            self.noise,
            self.values,
            self.knob_mask,
            self.has_eval,
            (self.inner.stacked.program.normalise(self.inner.stacked.numbers, train_loss), eval_normalised),
            torch.as_tensor(self.scorer.score(eval_normalised, self.failed)),
            self.scorer.columns(),
        )
        before, final_loss = self.over, self.inner.heldout(SCORING)[1] if last else None
        worth = np.full(self.runs, WORST) if final_loss is None else self.scorer.score(final_loss, self.failed)
        self.over = self.ended.numpy().copy()
        return Seen(pi, v, self.ended, self.failed, np.where(self.over & ~before, worth, 0.0), final_loss)

    def _registers(self, action: Tensor) -> None:
        """Carry out register actions [E]: 0 none, 1..3 load, 4..6 save, 7..9 swap.

        An empty register has nothing to load, and a swap with it saves.
        """
        action = torch.where(self.head_mask[:, 0] & ~self.ended, action, 0)
        for r in range(REGISTERS):
            loads, saves, swaps = action == 1 + r, action == 4 + r, action == 7 + r
            if not (loads | saves | swaps).any():
                continue
            now = self.inner.copy()
            if self.saved[r] is None:
                self.saved[r] = now
            gets = (loads | swaps) & self.filled[:, r]
            before = self.saved[r]
            stores = saves | swaps
            self.saved[r] = choose(stores, now, before)
            self.inner.restore(before, gets)
            self.register_loss[:, r] = torch.where(stores, self.loss.double(), self.register_loss[:, r])
            self.register_progress[:, r] = torch.where(stores, self.progress, self.register_progress[:, r])
            self.filled[:, r] |= stores
            self.last_weights = self.inner.weights() if gets.any() else self.last_weights
