"""What is trained: updates are functions of the state and the step, happen whole or not at all, and are averaged."""

import math
from dataclasses import replace

import pytest
import torch

from metaopt.outer.ppo.collect import play
from metaopt.outer.ppo.episodes import Episodes
from metaopt.outer.ppo.state import PPOState
from tests.outer.ppo.toys import ToyBucket, ToyWorld, toy_config

WORLD = ToyWorld()


def state(*overrides: str) -> PPOState:
    return PPOState(toy_config(*overrides), WORLD)


def parts(ppo: PPOState, step: int) -> list[Episodes]:
    seeds = (10 * step, 10 * step + 1)
    return [
        play(WORLD.make(), ppo.network, ppo.critic, ToyBucket("quadratic", 8, 2 + i), seed, step).episodes for i, seed in enumerate(seeds)
    ]


def steps(ppo: PPOState, numbers: range) -> list[dict[str, float]]:
    found = []
    for step in numbers:
        statistics = ppo.learn(step, parts(ppo, step))
        assert statistics is not None
        found.append(statistics)
    return found


def test_statistics_name_the_heads_that_were_there() -> None:
    (found,) = steps(state(), range(1))
    assert {name for name in found if name.startswith("entropy_")} == {"entropy_lr"}
    assert found["entropy_lr"] == pytest.approx(math.log(7), abs=0.02)
    assert found["entropy"] == pytest.approx(found["entropy_lr"])
    assert {"policy_loss", "value_loss", "kl", "clip_fraction", "grad_norm", "explained_variance", "epochs", "steps"} <= set(found)


def test_state_continues_bit_for_bit() -> None:
    whole, first, second = state(), state(), state()
    steps(whole, range(4))
    steps(first, range(2))
    second.load(first.state())
    steps(second, range(2, 4))
    for name, value in whole.weights["network"].items():
        assert torch.equal(value, second.weights["network"][name]), name
        assert torch.equal(whole.averaged[name], second.averaged[name]), name
    assert all(torch.equal(value, second.weights["critic"][name]) for name, value in whole.weights["critic"].items())


def test_the_average_is_that_of_the_weights_after_each_update() -> None:
    ppo, seen = state("outer.average_decay=0.5"), []
    assert torch.equal(ppo.averaged["heads.weight"], ppo.weights["network"]["heads.weight"]), "before the first update there is one policy"
    for step in range(3):
        steps(ppo, range(step, step + 1))
        seen.append(ppo.weights["network"])
    for name in ("heads.weight", "normaliser.mean"):
        expected = sum(w * one[name].double() for w, one in zip((0.25, 0.5, 1.0), seen, strict=True)) / 1.75
        torch.testing.assert_close(ppo.averaged[name].double(), expected, atol=1e-6, rtol=1e-5)
    assert ppo.averaged["normaliser.updates"] == 3


def test_an_update_that_is_not_finite_is_taken_back() -> None:
    ppo, reference = state(), state()
    steps(ppo, range(1))
    steps(reference, range(1))
    broken = [replace(part, log_prob=part.log_prob - float("inf")) for part in parts(ppo, 1)]
    assert ppo.learn(1, broken) is None
    assert torch.equal(ppo.averaged["heads.weight"], reference.averaged["heads.weight"])
    steps(ppo, range(1, 3))
    steps(reference, range(1, 3))
    for module in ("network", "critic"):
        assert all(torch.equal(value, reference.weights[module][name]) for name, value in ppo.weights[module].items())


def test_what_good_batches_changed_is_taken_back_too() -> None:
    ppo, reference = state("outer.ppo.batches=8"), state("outer.ppo.batches=8")
    found = parts(ppo, 0)
    pi = found[0].pi.clone()
    pi[0, 0] = float("inf")  # spoils one batch of eight, and the normaliser at the end
    assert ppo.learn(0, [replace(found[0], pi=pi), *found[1:]]) is None
    assert ppo.optimizer.state_dict()["state"] == reference.optimizer.state_dict()["state"] == {}
    steps(ppo, range(1))
    steps(reference, range(1))
    assert all(torch.equal(value, reference.weights["network"][name]) for name, value in ppo.weights["network"].items())


def test_every_outer_step_shuffles_anew() -> None:
    ppo, other = state(), state()
    found = parts(ppo, 0)
    ppo.learn(0, found)
    other.learn(1, found)
    assert ppo.optimizer.param_groups[0]["lr"] == other.optimizer.param_groups[0]["lr"]
    assert not torch.equal(ppo.weights["network"]["heads.weight"], other.weights["network"]["heads.weight"])


def test_the_rate_falls_in_a_line() -> None:
    ppo = state("outer.final_lr_frac=0.5", "outer.steps=10")
    rates = []
    for step in (0, 4, 9):
        steps(ppo, range(step, step + 1))
        rates.append(ppo.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([3e-3, 3e-3 * 0.8, 3e-3 * 0.55])
    constant = state()
    steps(constant, range(3, 4))
    assert constant.optimizer.param_groups[0]["lr"] == 3e-3


def test_weights_are_copies() -> None:
    ppo = state()
    before = ppo.weights
    kept = before["network"]["heads.weight"].clone()
    steps(ppo, range(2))
    assert torch.equal(before["network"]["heads.weight"], kept)
    assert not torch.equal(ppo.weights["network"]["heads.weight"], kept)


def test_the_order_of_groups_is_part_of_the_update() -> None:
    ppo, other = state(), state()
    found = parts(ppo, 0)
    ppo.learn(0, found)
    other.learn(0, found[::-1])
    assert not torch.equal(ppo.weights["network"]["heads.weight"], other.weights["network"]["heads.weight"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_updates_on_a_gpu_agree_and_their_weights_come_home() -> None:
    ppo, reference = PPOState(toy_config(), WORLD, "cuda"), state()
    found = parts(reference, 0)
    on_gpu, on_cpu = ppo.learn(0, found), reference.learn(0, found)
    assert on_gpu is not None
    assert on_cpu is not None
    assert on_gpu["entropy"] == pytest.approx(on_cpu["entropy"], abs=1e-4)
    for name, value in reference.weights["network"].items():
        torch.testing.assert_close(ppo.weights["network"][name], value, atol=1e-3, rtol=1e-3)
        assert ppo.averaged[name].device.type == "cpu"
    again = PPOState(toy_config(), WORLD, "cuda")
    again.load(ppo.state())
    assert torch.equal(again.weights["critic"]["head.weight"], ppo.weights["critic"]["head.weight"])


def test_a_batch_that_is_not_finite_is_left_out_and_the_others_count() -> None:
    ppo = state("outer.ppo.batches=8", "outer.ppo.epochs=1")
    found = parts(ppo, 0)
    log_prob = found[0].log_prob.clone()
    log_prob[0, 0] = -float("inf")  # one episode of eight, a batch each
    statistics = ppo.learn(0, [replace(found[0], log_prob=log_prob), *found[1:]])
    assert statistics is not None
    assert (statistics["steps"], statistics["skipped_batches"]) == (7, 1)
