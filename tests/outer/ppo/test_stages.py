"""The curriculum: a stage ends when it should, and at once."""

import json

import pytest

from metaopt.outer.ppo.stages import WINDOW, Stages
from tests.outer.ppo.toys import toy_config

CURRICULUM = "outer.curriculum=[{families: [quadratic], until_reward: -0.5, until_frac: 0.25}, {most_decisions: 4, until_frac: 0.5}, {}]"


def stages(curriculum: str = CURRICULUM) -> Stages:
    return Stages(toy_config("outer.steps=80", curriculum).outer)


def walk(found: Stages, rewards: list[float | None], start: int = 0) -> list[int]:
    indices = []
    for step, reward in enumerate(rewards, start):
        found.after(step + 1, reward)
        indices.append(found.index)
    return indices


def test_a_stage_ends_by_its_part_of_the_steps() -> None:
    indices = walk(stages(), [-2.0] * 80)
    assert indices == [0] * 19 + [1] * 20 + [2] * 41


def test_a_stage_ends_by_ten_good_steps_in_the_mean() -> None:
    assert walk(stages(), [-0.4] * 12) == [0] * (WINDOW - 1) + [1] * 3
    assert walk(stages(), [-0.5] * 12) == [0] * 12, "above, not at"
    mixed = [-2.0] * 3 + [0.0] * 10
    assert walk(stages(), mixed).index(1) == 10, "the mean of the last ten, of which two are still bad, is above"


def test_a_stage_is_judged_by_its_own_rewards() -> None:
    found = stages("outer.curriculum=[{until_reward: -0.5, until_frac: 0.9}, {until_reward: -0.5, until_frac: 0.95}, {}]")
    assert walk(found, [0.0] * 25) == [0] * 9 + [1] * 10 + [2] * 6


def test_steps_without_episodes_do_not_count() -> None:
    assert walk(stages(), [None, -0.1] * 10)[-1] == 1
    assert walk(stages(), [None] * 19)[-1] == 0


def test_stages_say_what_they_admit() -> None:
    found = stages()
    assert found.stage.families == ("quadratic",)
    walk(found, [0.0] * WINDOW)
    assert (found.stage.families, found.stage.most_decisions) == (None, 4)


def test_without_a_curriculum_everything_is_admitted_for_ever() -> None:
    found = stages("outer.curriculum=[]")
    assert walk(found, [9.0] * 80) == [0] * 80
    assert (found.stage.families, found.stage.most_decisions) == (None, None)


@pytest.mark.parametrize("cut", [3, 9, 10, 11, 25])
def test_state_continues(cut: int) -> None:
    rewards: list[float | None] = [-0.9, -0.2, None, -0.1] * 10
    whole = walk(stages(), rewards)
    first, second = stages(), stages()
    begun = walk(first, rewards[:cut])
    second.load(json.loads(json.dumps(first.state())))
    assert begun + walk(second, rewards[cut:], cut) == whole
