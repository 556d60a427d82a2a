"""A world without inner runs, with the spaces of the real one: a policy has to remember what it was told at its first decision.

Each episode shows a bit at the first decision alone and asks for it at the last one: the choice of the first knob must be above the middle
for 1, at or below it for 0. Reward 1 for the right answer, -1 for the wrong one, -3 for a failure.
"""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metaopt.config import PolicyConfig, parse_config
from metaopt.errors import TaskError
from metaopt.learners.policies.knobs import TABLES
from metaopt.learners.policies.observation import INPUTS
from metaopt.outer.ppo.worlds import Met
from metaopt.seeds import fold_in, key, uniform

V = 3
TABLE = TABLES["wide"]

TOY = """\
name: toy
learner: {kind: policy, hidden: 8, knobs: [lr]}
tasks:
  - {family: quadratic, horizon: [16, 64]}
  - {family: digits_mlp, horizon: [16, 64], weight: 3.0}
outer:
  steps: 8
  groups_per_step: 3
  group_runs: 4
  decisions: [2, 5]
  ppo: {lr: 3e-3, epochs: 2, batches: 2}
checkpoint: {every_steps: 3}
"""


def toy_config(*overrides: str) -> PolicyConfig:
    config = parse_config(TOY, "toy.yaml", overrides)
    assert isinstance(config, PolicyConfig)
    return config


@dataclass(frozen=True)
class ToyBucket:
    family: str
    horizon: int
    decisions: int
    reject: bool = False


class ToyGroup:
    """Remember a bit; episodes fail at random where the world says so."""

    def __init__(self, world: "ToyWorld") -> None:
        self.world, self.begun = world, 0

    def _seen(self) -> dict[str, np.ndarray]:
        pi = np.zeros((self.runs, INPUTS), np.float32)
        pi[:, 0] = self.t / self.bucket.decisions
        pi[:, 1] = (2.0 * self.bit - 1.0) * (self.t == 0)
        pi[:, 2] = 1.0
        v = np.stack([self.bit.astype(np.float32), np.full(self.runs, self.bucket.decisions, np.float32), self.noise], 1)
        return {"pi": pi, "v": v}

    def reset(self, *, seed: int, options: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.bucket, self.runs, self.t = options["bucket"], self.world.runs, 0
        self.begun += 1
        if self.bucket.reject:
            raise TaskError("the toy's baseline is flat")
        u = uniform(key("toy", seed), (self.runs, 3)).numpy()
        self.bit, self.noise = u[:, 0] < 0.5, u[:, 1]
        self.fails_at = np.where(u[:, 2] < self.world.failing, 0, self.bucket.decisions)
        self.over = np.zeros(self.runs, bool)
        mask = np.zeros((self.runs, len(TABLE.nvec)), bool)
        mask[:, 1] = True
        if self.world.registers:
            mask[::2, 0] = True
        return self._seen(), {"head_mask": mask, "decisions": self.bucket.decisions}

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        assert actions.shape == (self.runs, len(TABLE.nvec))
        assert (actions[:, 2:] == 0).all(), "masked heads leave no trace"
        if self.world.kill is not None and self.begun >= self.world.kill_at and not Path(self.world.kill).exists():
            Path(self.world.kill).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        failed = (self.fails_at <= self.t) & ~self.over
        self.t += 1
        last = self.t == self.bucket.decisions
        right = (actions[:, 1] > TABLE.nvec[1] // 2) == self.bit
        reward = np.where(failed, -3.0, np.where(last, np.where(right, 1.0, -1.0), 0.0))
        reward = np.where(self.over, 9.0, reward)  # an environment that pays idle runs: nobody may believe it
        ended = failed | self.over | last
        self.over = ended
        cut = np.full(self.runs, self.world.cut)
        return self._seen(), reward, ended & ~cut, ended & cut, {"failed": failed}


@dataclass(frozen=True)
class ToyWorld:
    """`failing` and `rejecting` are shares of episodes and of buckets; with `cut` episodes are truncated at their end.

    `kill`: a file; the first process to begin its `kill_at`-th group while there is none makes it, and dies in the middle of the group.
    """

    runs: int = 4
    failing: float = 0.0
    rejecting: float = 0.0
    registers: bool = False
    cut: bool = False
    kill: str | None = None
    kill_at: int = 4
    critic_inputs: int = V
    families: tuple[str, ...] = ("quadratic", "digits_mlp")

    def make(self) -> ToyGroup:
        return ToyGroup(self)

    def draw(self, seed: int, stage: Any) -> ToyBucket:
        u = uniform(fold_in(key("toy bucket"), seed), (3,))
        families = stage.families or self.families
        most = stage.most_decisions or 5
        decisions = 2 + int(float(u[1]) * (most - 1))
        return ToyBucket(families[int(float(u[0]) * len(families))], 8 * decisions, decisions, float(u[2]) < self.rejecting)

    def met(self) -> Met:
        return Met(("0123456789abcdef",), {"horizon": [16, 40], "family": sorted(self.families)})

    def prepare(self, pool: Any, progress: Any, stopped: Any) -> dict[str, int]:
        return {}


def committed(run_dir: Path) -> dict[str, bytes]:
    """Everything that must not depend on workers, kills and resumes."""
    files = {"metrics": (run_dir / "metrics.jsonl").read_bytes(), "weights": (run_dir / "artifact/weights.safetensors").read_bytes()}
    newest = sorted((run_dir / "checkpoints").glob("step-*"))[-1]
    return files | {path.name: path.read_bytes() for path in newest.iterdir() if path.name != "manifest.json"}
