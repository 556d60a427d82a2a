"""The gymnasium side: contracts of both checkers, seeds, options, and one run as one row of many."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

import metaopt_envs
from metaopt.errors import ConfigError, TaskError
from metaopt.learners.policies.starts import inner_start
from metaopt.learners.policies.timing import decision_steps
from metaopt_envs import CRITIC_INPUTS, Bucket, GroupEnv, PoolFamily, Settings, TaskPool
from metaopt_envs.reward import Scorer

SMALL = {"families": ("quadratic",), "horizon": (16, 32), "decisions": (2, 4)}
BUCKET = Bucket("quadratic", "10x1-gradient", 32, 4, (1, 2))


def make(**given):
    return gymnasium.make("metaopt_envs:metaopt/HyperparameterControl-v0", **(SMALL | given))


def test_both_checkers_pass():
    env = make()
    check_env(env.unwrapped, skip_render_check=True)
    check_env_of_sb3(env.unwrapped)


def test_spaces():
    env = make()
    assert env.observation_space["pi"].shape == (161,)
    assert env.observation_space["v"].shape == (CRITIC_INPUTS,)
    assert env.action_space.nvec.tolist() == [10, 7, 3, 3, 3, 3, 5, 3, 3]
    assert make(table="published").action_space.nvec.tolist() == [10, 7, 2, 2, 2, 2, 4, 3, 3]
    assert env.spec.max_episode_steps is None


def test_episode_ends_terminated_with_its_reward():
    env = make()
    observation, info = env.reset(seed=4)
    assert env.observation_space.contains(observation)
    assert info["head_mask"].shape == (9,)
    rewards = []
    for _ in range(info["decisions"]):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        rewards.append(reward)
        assert not truncated
    assert terminated
    assert rewards[:-1] == [0.0] * (len(rewards) - 1)
    assert -3 <= rewards[-1] <= np.log(2) + 1e-12
    assert np.isfinite(info["final_loss"])


def test_seed_decides_everything():
    def first(seed):
        observation, info = make().reset(seed=seed)
        return observation["pi"], info["bucket"]

    assert np.array_equal(first(4)[0], first(4)[0])
    assert first(4)[1] == first(4)[1]
    assert len({first(seed)[1] for seed in range(6)}) > 2


def test_task_that_cannot_be_scored_is_drawn_again_and_counted(monkeypatch):
    refused = []

    def refuse_twice(specs, runs, against, of=Scorer.of):
        if len(refused) < 2:
            refused.append(specs[0].hash)
            raise TaskError("no task of this bucket can be scored")
        return of(specs, runs, against)

    monkeypatch.setattr(Scorer, "of", refuse_twice)
    assert make().reset(seed=4)[1]["rejected"] == 2
    assert len(set(refused)) == 2, "not the same one again"
    refused.clear()
    with pytest.raises(TaskError, match="no task"):
        make().reset(seed=4, options={"bucket": BUCKET})


def test_seedless_resets_go_on_to_new_episodes():
    env = make()
    buckets = [env.reset(seed=1)[1]["bucket"], *(env.reset()[1]["bucket"] for _ in range(5))]
    assert len(set(buckets)) > 2


def test_global_generators_are_left_alone():
    import random

    import torch

    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    env = make()
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


def test_group_is_a_vector_environment_without_automatic_resets():
    env = GroupEnv(3, Settings())
    assert env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    observation, info = env.reset(seed=5, options={"bucket": BUCKET})
    assert env.observation_space.contains(observation)
    assert info["head_mask"].shape == (3, 9)
    env.action_space.seed(0)
    for step in range(info["decisions"]):
        observation, reward, terminated, truncated, later = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert reward.shape == terminated.shape == (3,)
        assert not truncated.any()
        assert terminated.all() == (step == info["decisions"] - 1)
    assert later["final_loss"].shape == (3,)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(env.action_space.sample())


def test_a_reset_hands_on_what_is_given_and_whether_anything_is_missing():
    env, given = GroupEnv(2, Settings(knob_missing=1.0, eval_missing=1.0)), inner_start("adamw") * 2
    info = env.reset(seed=5, options={"bucket": BUCKET, "given": given, "missing": False})[1]
    assert np.array_equal(info["values"], given.expand(2, -1).numpy())
    assert info["head_mask"][:, :6].all()
    assert not env.reset(seed=5, options={"bucket": BUCKET})[1]["head_mask"][:, 1:].any()


def test_the_others_go_on_when_a_run_has_ended():
    env = GroupEnv(2, Settings(registers=False))
    env.reset(seed=5, options={"bucket": BUCKET})
    for value in env.group.inner.carry["params"].values():
        value[1] = np.nan
    keep = np.array([[0, 3, 1, 1, 1, 1, 2, 1, 1]] * 2)
    ended, rewards = zip(
        *((terminated.tolist(), reward) for _, reward, terminated, _, _ in (env.step(keep) for _ in range(4))), strict=True
    )
    assert ended == ([False, True],) * 3 + ([True, True],)
    assert np.stack(rewards)[:, 1].tolist() == [-3, 0, 0, 0]


def test_one_run_is_a_row_of_many():
    many, one = GroupEnv(2, Settings()), GroupEnv(1, Settings())
    bucket = Bucket("quadratic", "10x1-none", 32, 4, (1,))
    keep = np.array([0, 3, 1, 1, 1, 1, 2, 1, 1])
    a, b = many.reset(seed=5, options={"bucket": bucket})[0], one.reset(seed=5, options={"bucket": bucket})[0]
    for _ in range(4):
        assert np.allclose(a["pi"][0], b["pi"][0], rtol=1e-3, atol=1e-3)
        a, b = many.step(np.stack([keep] * 2))[0], one.step(keep[None])[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, 'options must have a "bucket"'),
        ({"bucket": BUCKET, "colour": 1}, "options of reset are bucket, given and missing, got 'colour'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        GroupEnv(1, Settings()).reset(seed=0, options=options)


def test_unknown_argument_of_make_is_refused():
    with pytest.raises(TypeError, match="colour"):
        make(colour=1)


def pool(**given):
    return TaskPool((PoolFamily("quadratic", (32, 256), 3.0), PoolFamily("digits_mlp", (64, 512), 1.0, templates=2)), **given)


def test_pool_draws_by_weight_inside_the_ranges():
    buckets = [pool(decisions=(4, 32)).bucket(seed, 8) for seed in range(400)]
    assert np.mean([b.family == "quadratic" for b in buckets]) == pytest.approx(0.75, abs=0.07)
    assert all(b.decisions == len(decision_steps(b.horizon, b.decisions)) for b in buckets)
    assert {len(b.draws) for b in buckets} == {4}
    assert len({b.template for b in buckets if b.family == "digits_mlp"}) == 2
    assert min(b.decisions for b in buckets) == 4
    assert max(b.decisions for b in buckets) > 24


def test_pool_has_two_horizons_of_a_template_and_every_inner_optimizer():
    both = pool(inner=("adamw", "unitless_adam"))
    for buckets in both.kinds.values():
        assert len({(b.template, b.horizon) for b in buckets}) > len({b.template for b in buckets})
    assert {both.bucket(seed, 8).inner for seed in range(40)} == {"adamw", "unitless_adam"}


def test_a_single_run_has_a_single_task():
    buckets = [pool().bucket(seed, 1) for seed in range(40)]
    assert {len(b.draws) for b in buckets} == {1}
    assert len({b.draws for b in buckets}) > 10


def test_pool_has_a_fixed_set_of_tasks_and_other_seeds_have_others():
    one, again, other = ({spec.hash for kinds in pool(seed=seed).kinds.values() for b in kinds for spec in b.specs()} for seed in (0, 0, 1))
    assert one == again
    assert not one & other


def test_stage_of_a_curriculum_restricts_families_and_decisions():
    buckets = [pool().bucket(seed, 8, ["quadratic"], 6) for seed in range(50)]
    assert {b.family for b in buckets} == {"quadratic"}
    assert max(b.decisions for b in buckets) <= 6


def test_family_without_templates_is_named():
    with pytest.raises(Exception, match="modular_arithmetic has no meta_train templates"):
        _ = TaskPool((PoolFamily("modular_arithmetic", (32, 64)),)).kinds


def test_import_registers_the_id():
    assert "metaopt/HyperparameterControl-v0" in gymnasium.registry
    assert metaopt_envs.HyperparameterControl.metadata == {"render_modes": []}
