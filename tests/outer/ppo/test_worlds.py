"""The world that configs mean: the environments of `metaopt_envs`, and a distribution that follows the config."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from metaopt import tasks
from metaopt.cluster import LocalPool
from metaopt.config.policy import PolicyStageConfig
from metaopt.errors import ConfigError
from metaopt.outer.ppo.worker import CollectSetup
from metaopt.outer.ppo.worlds import ControlWorld
from tests.outer.ppo.toys import ToyWorld, toy_config

CONFIG = toy_config(
    "outer.template_tasks=2",
    "outer.highest_lr=0.05",
    "outer.missing={knobs: 0.0, registers: 1.0}",
    "outer.start_perturbation=0.5",
    "outer.against=best_constant",
)
ALL = PolicyStageConfig()


def world() -> ControlWorld:
    pytest.importorskip("metaopt_envs", reason="the environments are a package of their own")
    return ControlWorld(CONFIG)


def test_draws_follow_weights_and_ranges() -> None:
    found = [world().draw(seed, ALL) for seed in range(400)]
    assert found == [pickle.loads(pickle.dumps(world())).draw(seed, ALL) for seed in range(400)]  # noqa: S301  (as Ray does)
    families = Counter(bucket.family for bucket in found)
    assert families["digits_mlp"] == pytest.approx(300, abs=40)
    assert families["quadratic"] == 400 - families["digits_mlp"]
    assert {bucket.template for bucket in found if bucket.family == "quadratic"} == set(tasks.get("quadratic").templates("meta_train"))
    assert all(16 <= bucket.horizon <= 64 for bucket in found)
    assert {bucket.decisions for bucket in found} == {2, 3, 4, 5}
    assert {bucket.inner for bucket in found} == {"adamw", "unitless_adam"}
    assert all(len(bucket.draws) == 2 for bucket in found)


def test_a_stage_admits_what_it_says() -> None:
    stage = PolicyStageConfig(families=("quadratic",), most_decisions=3)
    found = [world().draw(seed, stage) for seed in range(60)]
    assert {bucket.family for bucket in found} == {"quadratic"}
    assert {bucket.decisions for bucket in found} == {2, 3}


def test_settings_reach_the_environment() -> None:
    group = world().make()
    assert group.num_envs == 4  # type: ignore[attr-defined]
    settings = group.settings  # type: ignore[attr-defined]
    assert (settings.knobs, settings.registers, settings.table) == (("lr",), True, "wide")
    assert (settings.knob_missing, settings.eval_missing, settings.registers_missing) == (0.0, 0.3, 1.0)
    assert (settings.perturbed, settings.highest_lr, settings.rescue) == (0.5, 0.05, True)
    assert settings.against == "best_constant"
    assert world().critic_inputs == group.single_observation_space["v"].shape[0]  # type: ignore[attr-defined]


def test_the_card_knows_what_was_met() -> None:
    met = world().met()
    assert met.support["family"] == ["digits_mlp", "quadratic"]
    assert 16 <= met.support["horizon"][0] < met.support["horizon"][1] <= 64
    assert len(met.task_hashes) == 2 * 2 * sum(len(tasks.get(name).templates("meta_train")) for name in ("quadratic", "digits_mlp"))
    assert all(spec.hash in met.task_hashes for spec in world().draw(3, ALL).specs())


def test_references_are_prepared_once_and_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("METAOPT_CACHE", str(tmp_path))
    tiny = toy_config("tasks=[{family: quadratic, horizon: [16, 32], templates: 2}]", "outer.template_tasks=3")
    control, told = ControlWorld(tiny), []
    pool = LocalPool(CollectSetup(tiny, ToyWorld()))

    def progress(what: str, done: int, total: int, numbers: object = None) -> None:
        told.append((what, done, total))

    reasons = control.prepare(pool, progress, lambda: False)
    assert told == [("reference curve", done, 12) for done in (0, 4, 8, 12)]
    assert sum(reasons.values()) <= 12
    assert pool.stats.issued == 12
    assert control.prepare(pool, None, lambda: False) == reasons
    assert pool.stats.issued == 12, "the second time they are there"
    assert ControlWorld(toy_config()).prepare(pool, progress, lambda: True) == {}
    assert len(told) == 4, "a signal ends it"


def test_without_the_package_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "metaopt_envs", None)
    with pytest.raises(ConfigError, match=r"^a policy is trained in the package metaopt_envs, which cannot be imported"):
        ControlWorld(CONFIG).make()


def test_what_is_drawn_does_not_depend_on_the_seed_of_the_run() -> None:
    other = ControlWorld(toy_config("outer.template_tasks=2", "seed=7"))
    assert other.met().task_hashes == world().met().task_hashes, "runs of other seeds find the curves of their tasks there"
    assert np.array_equal(other.draw(5, ALL).draws, world().draw(5, ALL).draws)
