"""Which runs an environment or a trainer draws: families with weights, a fixed number of tasks of each template.

The tasks are fixed, because each needs reference curves of its baselines; how a run of one starts and what it may turn is new each time.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from metaopt.errors import TaskError
from metaopt.learners.policies.timing import decision_steps
from metaopt.seeds import stable_hash
from metaopt.tasks import get as get_family
from metaopt.tasks.sampling import Sampler
from metaopt_envs.settings import Bucket

__all__ = ["PoolFamily", "TaskPool"]

_KINDS = 2  # horizons of each template


@dataclass(frozen=True)
class PoolFamily:
    """A family of a pool.

    Attributes:
        name: registry name.
        horizon: closed range of inner steps, drawn log-uniform.
        weight: how often it is drawn, relative to the others.
        templates: at most so many of its templates, 0 for all.
    """

    name: str
    horizon: tuple[int, int]
    weight: float = 1.0
    templates: int = 0


@dataclass(frozen=True)
class TaskPool:
    """Buckets by family, template and horizon.

    Attributes:
        families: at least one.
        decisions: closed range of decisions, drawn log-uniform, but no more than a horizon has room for (`timing.decision_steps`).
        tasks: tasks of each template and horizon.
        split: of the templates.
        inner: inner optimizers, drawn uniformly.
        seed: of the tasks; pools of other seeds have other tasks of the same templates.
    """

    families: tuple[PoolFamily, ...]
    decisions: tuple[int, int] = (4, 32)
    tasks: int = 4
    split: str = "meta_train"
    inner: tuple[str, ...] = ("adamw",)
    seed: int = 0

    @cached_property
    def kinds(self) -> dict[str, list[Bucket]]:
        """Family -> its buckets, each with one decision: template by template, `_KINDS` horizons each."""
        found: dict[str, list[Bucket]] = {}
        for one in self.families:
            templates = get_family(one.name).templates(self.split)
            if not templates:
                raise TaskError(f"family {one.name} has no {self.split} templates to draw episodes from")
            for template in templates[: one.templates or None]:
                for kind in range(_KINDS):
                    sampler = Sampler(one.name, template, stable_hash("pool", self.seed, kind))
                    draws = tuple(stable_hash("pool task", self.seed, one.name, template, kind, i) for i in range(self.tasks))
                    horizon = sampler.log_integer("pool horizon", *one.horizon)
                    found.setdefault(one.name, []).append(Bucket(one.name, template, horizon, 1, draws))
        return found

    def bucket(self, seed: int, runs: int, allowed: Sequence[str] | None = None, most_decisions: int | None = None) -> Bucket:
        """Return the bucket of a group of `runs` runs by its seed.

        Args:
            seed: of the group.
            runs: of the group; a single run has a single task.
            allowed: families of this stage of a curriculum, None for all.
            most_decisions: bound on the decisions of this stage.
        """
        families = [one for one in self.families if allowed is None or one.name in allowed]
        ends = list(accumulate(one.weight for one in families))
        sampler = Sampler("pool", "", seed)
        family = families[min(bisect.bisect(ends, sampler.uniform("family", 0.0, ends[-1])), len(families) - 1)]
        kinds = self.kinds[family.name]
        kind = kinds[int(sampler.uniform("kind", 0, len(kinds)))]
        low, high = self.decisions
        high = len(decision_steps(kind.horizon, min(high, most_decisions or high)))
        decisions = sampler.log_integer("decisions", min(low, high), high)
        draws = kind.draws if runs >= len(kind.draws) else (kind.draws[int(sampler.uniform("task", 0, len(kind.draws)))],)
        inner = self.inner[int(sampler.uniform("inner", 0, len(self.inner)))]
        return Bucket(kind.family, kind.template, kind.horizon, decisions, draws, inner)
