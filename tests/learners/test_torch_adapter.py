"""The adapter of torch's optimizers: the same runs as the pure forms, and as pure as they are."""

import copy
import pickle
from dataclasses import dataclass

import pytest
import schedulefree
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import ConfigError
from metaopt.inner.looped import Rows, is_vectorised, over_particles
from metaopt.learners import SCHEDULES
from metaopt.learners.lbfgs import LBFGS
from metaopt.learners.schedule_free import ScheduleFreeAdamW
from metaopt.learners.torch_adapter import TorchLearner, adapt

STEPS = 20


def bowls(*draws, template="8x4-minimum"):
    family = tasks.get("quadratic")
    return [family.build(family.sample(template, draw, (STEPS, STEPS))).to(dtype=torch.float64) for draw in draws]


def assert_same_runs(one, two, theta=None, rtol=1e-8):  # torch keeps one of NAdam's numbers in float32
    theta = theta or {}
    traces = [inner.run(learner, theta, bowls(1, 2), [5, 6], STEPS, eval_every=7, theta_stacked=bool(theta)) for learner in (one, two)]
    for name in ("loss", "normalised", "eval_steps", "eval_loss", "eval_raw", "diverged"):
        torch.testing.assert_close(getattr(traces[0], name), getattr(traces[1], name), rtol=rtol, atol=1e-12)


@pytest.mark.parametrize(
    ("pure", "adapted"),
    [
        (learners.get("momentum", lr=0.05), adapt("SGD", lr=0.05, momentum=0.9)),
        (learners.get("adamw", "warmup_cosine", lr=0.1), adapt("AdamW", "warmup_cosine", lr=0.1)),
        (learners.get("nadam", "wsd", lr=0.1, beta1=0.8), adapt("NAdam", "wsd", lr=0.1, betas=[0.8, 0.999])),
        (learners.get("adafactor", lr=0.1), adapt("Adafactor", lr=0.1)),
        (LBFGS(lr=0.5, history=4), adapt("LBFGS", lr=0.5, max_iter=1, history_size=4)),
        (
            ScheduleFreeAdamW(schedule=SCHEDULES["constant"], lr=0.1),
            TorchLearner(schedulefree.AdamWScheduleFree, (("foreach", False), ("lr", 0.1))),
        ),
    ],
    ids=lambda learner: getattr(getattr(learner, "rule", learner), "name", ""),
)
def test_adapted_and_pure_optimizers_make_the_same_runs(pure, adapted):
    assert_same_runs(pure, adapted)


def test_rates_come_from_stacked_theta():
    assert_same_runs(learners.get("sgd"), adapt("SGD"), {"lr": torch.tensor([0.1, 0.01], dtype=torch.float64)})


def test_advance_writes_to_none_of_its_arguments():
    learner, (task,), key = adapt("Adam", lr=0.1), bowls(1), seeds.key("run")
    carry = learner.init({}, task, key)
    for t in range(3):
        batch = task.batch(key, torch.tensor(t))
        before = copy.deepcopy(carry)
        one, two = (learner.advance({}, task, carry, batch)[0] for _ in range(2))
        assert torch.equal(carry["params"]["x"], before["params"]["x"])
        assert torch.equal(one["params"]["x"], two["params"]["x"])
        carry = one
    exp_avg = before["optimizer"]["state"][0]["exp_avg"]
    assert not torch.equal(exp_avg, carry["optimizer"]["state"][0]["exp_avg"])


def test_a_line_search_solves_a_full_batch_task():
    family = tasks.get("quadratic")
    task = family.build(family.sample("15x3-none", 3, (10, 10)))
    trace = inner.run(adapt("LBFGS", max_iter=5, line_search_fn="strong_wolfe"), {}, [task], [1], 10, eval_every=10)
    assert float(trace.eval_loss[-1, 0]) < 0.05 * float(trace.eval_loss[0, 0])


@dataclass(frozen=True)
class Scaled:
    """A program of two parameters, the steps of one of which are scaled."""

    cap = 10.0
    step_scales = property(lambda self: {"b": 0.25})

    def shared(self):
        return {}

    def init(self, numbers, key):
        return {"a": torch.ones(3), "b": torch.ones(2)}

    def batch(self, numbers, shared, key, step):
        return {"x": torch.zeros(())}

    heldout = batch

    def loss(self, numbers, params, batch):
        return sum((value**2).sum() for value in params.values())

    def normalise(self, numbers, raw):
        return raw / 5.0


def test_step_scales_are_groups():
    task = tasks.Task(Scaled(), {"horizon": torch.tensor(5.0)}, {})
    adapted, pure = (inner.run(one, {}, [task], [1], 5) for one in (adapt("SGD", lr=0.1), learners.get("sgd", lr=0.1)))
    torch.testing.assert_close(adapted.loss, pure.loss)


def test_the_runner_loops_over_what_is_not_vectorised():
    learner = adapt("SGD", lr=0.1)
    assert not is_vectorised(learner)
    assert is_vectorised(learners.get("sgd"))
    trace = inner.run(learner, {}, bowls(1, 2), [5, 6], 3, compile=True)
    assert isinstance(trace.carry, Rows)
    assert [carry["t"] for carry in trace.carry] == [3, 3]


def test_a_loop_and_vmap_take_the_same_arguments():
    def one(theta, pair, key):
        return pair["a"] * theta + key, pair["b"].sum()

    arguments = (torch.tensor(2.0), {"a": torch.arange(3.0), "b": torch.ones(3, 4)}, torch.arange(3))
    looped, mapped = (over_particles(learner, one, (None, 0, 0))(*arguments) for learner in (adapt("SGD"), learners.get("sgd")))
    for left, right in zip(looped, mapped, strict=True):
        assert torch.equal(left, right)


def test_adapters_are_data():
    learner = adapt("SGD", "warmup_cosine", lr=0.1)
    assert pickle.loads(pickle.dumps(learner)) == learner  # noqa: S301
    assert hash(learner) == hash(adapt("SGD", "warmup_cosine", lr=0.1))
    assert learner != adapt("SGD", "warmup_cosine", lr=0.2)
    assert learner.name == "SGD"
    assert learner.init_theta(0) == {}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adapt("AdamWW"), "torch.optim has no optimizer 'AdamWW'; did you mean 'AdamW'"),
        (lambda: adapt("SGD", learning_rate=0.1), "SGD does not take {'learning_rate': 0.1}"),
        (lambda: adapt("SGD", lr=-1.0), "SGD does not take {'lr': -1.0}: Invalid learning rate"),
        (lambda: adapt("SGD", "cosine"), "schedule 'cosine' is unknown"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(ConfigError, match=message.replace("{", r"\{").replace(".", r"\.")):
        call()
