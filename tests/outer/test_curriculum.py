"""Curricula: horizons that grow, and templates that are admitted in the order of their cost."""

import pytest
import torch

from metaopt import learners, tasks
from metaopt.config import load_config
from metaopt.outer.curriculum import Curriculum, stage_horizons, template_cost
from metaopt.outer.shards import shard_sources

STAGES = "outer.curriculum=[{from_frac: 0, horizon_frac: 0.1, template_frac: 0.3}, {from_frac: 0.25, horizon_frac: 0.5}, {from_frac: 0.5}]"


def config(*changes: str):
    return load_config("quickstart", [STAGES, "outer.steps=20", "tasks.0.shards=5", "tasks.1.shards=5", *changes])


def test_stages_by_step() -> None:
    outer = config().outer
    assert [outer.stage_at(step) for step in range(20)] == [0] * 5 + [1] * 5 + [2] * 10
    assert {load_config("quickstart").outer.stage_at(step) for step in (0, 299)} == {0}


def test_the_longest_horizon_is_scaled_and_the_shortest_kept() -> None:
    assert stage_horizons(config().outer, (50, 300)) == ((50, 50), (50, 150), (50, 300))
    assert stage_horizons(config().outer, (50, 1000)) == ((50, 100), (50, 500), (50, 1000))
    assert stage_horizons(load_config("quickstart").outer, (50, 300)) == ()


def test_sources_have_the_stages_of_their_own_horizon_and_phase() -> None:
    sources = shard_sources(config("tasks.0.horizon=[50, 1000]", "outer.phases=[{}, {horizon: [60, 80]}]"))
    assert sources[0].stages == ((50, 100), (50, 500), (50, 1000))
    assert sources[9].stages == ((50, 50), (50, 150), (50, 300))
    later = shard_sources(config("outer.phases=[{}, {horizon: [60, 80]}]"), phase=1)
    assert {source.stages for source in later} == {((60, 60), (60, 60), (60, 80))}
    assert [source.template for source in later] == [source.template for source in sources]
    assert not {source.seed for source in later} & {source.seed for source in sources}  # new tasks
    assert shard_sources(load_config("quickstart"))[0].stages == ()


def test_cost_is_weights_times_batch() -> None:
    class Batch:
        def __init__(self, **tensors: torch.Tensor) -> None:
            self.tensors = tensors

        def sample(self, template, seed, horizon):
            return self

        def build(self, spec):
            return self

        def init(self, key):
            return {"w": torch.zeros(3, 5), "b": torch.zeros(5)}

        def batch(self, key, step):
            return self.tensors

    assert template_cost(Batch(x=torch.zeros(8, 4), y=torch.zeros(8)), "any") == 20 * 8
    assert template_cost(Batch(noise=torch.zeros(5)), "any") == 20
    quadratic, digits = (tasks.get(name) for name in ("quadratic", "digits_mlp"))
    dearest = max(template_cost(quadratic, template) for template in quadratic.templates("meta_train"))
    assert dearest < min(template_cost(digits, template) for template in digits.templates("meta_train"))


def test_the_cheapest_templates_come_first_and_all_of_them_later() -> None:
    c = config()
    sources = shard_sources(c)
    curriculum = Curriculum(c.outer, sources)
    early = curriculum.admitted(0, range(10))
    cost = [template_cost(source.family, source.template) for source in sources]
    names = {(source.family.name, source.template) for source in sources}
    assert len({(sources[i].family.name, sources[i].template) for i in early}) == -(-len(names) * 3 // 10)
    assert max(cost[i] for i in early) <= min(cost[i] for i in range(10) if i not in early)
    assert curriculum.admitted(5, range(10)) == list(range(10))
    assert curriculum.admitted(0, [9]) == [9]  # the cheap ones were given up: better an expensive one than none
    assert curriculum.admitted(0, [early[0], 9]) == [early[0]] or 9 in early


def test_without_template_stages_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_config("quickstart", ["outer.curriculum=[{from_frac: 0, horizon_frac: 0.5}]"])
    sources = shard_sources(plain)
    monkeypatch.setattr("metaopt.outer.curriculum.template_cost", lambda *args: 1 / 0)
    assert Curriculum(plain.outer, sources).admitted(0, [2, 3]) == [2, 3]


def test_truncated_windows_meet_longer_runs_stage_by_stage() -> None:
    """100, then up to 200, 500 and 1,000 steps, in windows of 20; a run that is under way keeps its horizon."""
    stages = [(0.0, 0.1), (0.3, 0.2), (0.55, 0.5), (0.8, 1.0)]
    section = ", ".join(f"{{from_frac: {start}, horizon_frac: {part}}}" for start, part in stages)
    grown = load_config(
        "quickstart",
        [f"outer.curriculum=[{section}]", "outer.estimator={name: truncated_backprop, window: 20}", "tasks.0.horizon=[100, 1000]"],
    )
    source = shard_sources(grown)[0]
    assert source.stages == ((100, 100), (100, 200), (100, 500), (100, 1000))
    learner = learners.get("learnable_adam")
    estimator = grown.outer.estimator.recipe.build(learner, source, 2, 0)
    horizons = []
    for start, _ in stages:
        source.stage = grown.outer.stage_at(round(start * grown.outer.steps))
        estimator.pairs.length = list(estimator.pairs.clock)  # whatever was under way ends here
        estimate = estimator.estimate(learner.init_theta(0), 0)
        assert (estimate.inner_steps, estimate.nonfinite) == (4 * 20, 0)
        horizons.append(list(estimator.pairs.length))
    assert max(horizons[0]) <= 100  # the first runs are staggered
    assert all(min(now) >= 100 and max(now) <= high for now, (_, high) in zip(horizons[1:], source.stages[1:], strict=True))
    assert max(horizons[3]) > 500
