"""The one place where a model rule changes parameters, and the learner that it makes."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from metaopt import learners, tasks
from metaopt.errors import ConfigError
from metaopt.inner import run
from metaopt.learners import SCHEDULES, GradientLearner, ModelRuleLearner
from metaopt.learners.update_rules import MODEL_RULES, RULES, apply_model_rule, get_model_rule, get_rule, is_model_rule
from metaopt.tasks.task import SPLITS, Task
from tests.learners.model_rules import Toy

HORIZON, SEED = 12, 7


def model(dtype: torch.dtype = torch.float32) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    shapes = {"a": (), "b": (3,), "c": (3, 4)}
    draw = {
        name: torch.randn((2, *shape), generator=torch.Generator().manual_seed(i)).to(dtype)
        for i, (name, shape) in enumerate(shapes.items())
    }
    return {name: pair[0] for name, pair in draw.items()}, {name: pair[1] for name, pair in draw.items()}


def step(rule: Toy, params: dict[str, Tensor], grads: dict[str, Tensor], **given: Any) -> dict[str, Tensor]:
    theta = rule.init_theta(0)
    call = {"t": torch.tensor(0), "lr": 1.0, "loss": torch.tensor(2.0), "horizon": torch.tensor(10.0), **given}
    return apply_model_rule(rule, theta, params, grads, rule.init_state(theta, params), **call)[0]


def test_the_kinds_of_rules_are_told_apart() -> None:
    assert all(map(is_model_rule, (Toy(), Toy)))
    assert not any(map(is_model_rule, (get_rule("adam"), type(get_rule("celo2")))))


def test_a_step_is_rate_times_direction_and_decay_for_all_tensors_or_by_name() -> None:
    params, grads = model(torch.float64)
    plain = step(Toy(), params, grads)
    directions = {name: params[name] - plain[name] for name in params}
    for lr, decay in ((0.5, 0.1), ({"a": 0.5, "b": 0.0, "c": torch.tensor(2.0)}, {"a": 0.1, "b": 0.2, "c": torch.tensor(0.0)})):
        for name, value in step(Toy(), params, grads, lr=lr, weight_decay=decay).items():
            size, shrink = (each[name] if isinstance(each, dict) else each for each in (lr, decay))
            torch.testing.assert_close(value, params[name] - size * (directions[name] + shrink * params[name]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bad", [1.0, float("inf"), float("nan")])
def test_a_step_size_of_zero_keeps_every_bit(bad: float) -> None:
    params, grads = model()
    after = step(Toy(), params, {name: torch.full_like(grad, bad) for name, grad in grads.items()}, lr=0.0, weight_decay=0.1)
    assert all(torch.equal(after[name], param) for name, param in params.items())


def test_past_the_end_the_rule_stays_there() -> None:
    params, grads = model()
    end, later, earlier = (step(Toy(), params, grads, t=torch.tensor(t)) for t in (10, 25, 9))
    assert all(torch.equal(end[name], later[name]) for name in params)
    assert not torch.equal(earlier["c"], later["c"])


def test_a_rule_gets_what_it_says_it_reads_in_the_dtype_of_the_parameters() -> None:
    params, grads = model(torch.float64)
    seen: list[Any] = []

    class Spy(Toy):
        def update(self, *arguments: Any) -> Any:
            seen.extend(arguments[-2:])
            return super().update(*arguments)

    step(Spy(), params, grads)
    assert [value.dtype for value in seen] == [torch.float64] * 2
    seen.clear()
    step(Spy(read_loss=False, read_horizon=False), params, grads)
    assert seen == [None, None]


def digits(dtype: torch.dtype = torch.float32) -> Task:
    source = tasks.get("digits_mlp")
    template = next(name for split in SPLITS for name in source.templates(split))
    return source.build(source.sample(template, 3, (HORIZON, HORIZON))).to(dtype=dtype)


def test_the_learner_repeats_the_step_on_the_gradients_of_the_task() -> None:
    task, learner = digits(torch.float64), ModelRuleLearner(Toy(), SCHEDULES["warmup_cosine"], 0.01)
    theta = {name: value.double() for name, value in learner.init_theta(0).items()}
    carry = learner.init(theta, task, torch.tensor(SEED))
    batch = task.batch(torch.tensor(1), torch.tensor(0))
    after, record = learner.advance(theta, task, carry, batch)
    grads, loss, _ = task.gradients(carry["params"], batch, {})
    expected, state = apply_model_rule(
        learner.rule, theta, carry["params"], grads, carry["state"], carry["t"], 0.1, 0.01, loss, torch.tensor(float(HORIZON))
    )
    assert (float(record.loss), int(after["t"])) == (float(loss), 1)
    for name, value in expected.items():
        torch.testing.assert_close(after["params"][name], value, rtol=1e-7, atol=1e-9)  # the schedule counts in float32
    torch.testing.assert_close(after["state"], state)


def test_particles_with_their_own_theta_run_as_they_run_alone() -> None:
    task, learner = digits(), ModelRuleLearner(Toy())
    rows = {"log_gain": torch.tensor([0.0, 0.3]), "fall": torch.tensor([0.5, 0.1])}
    both = run(learner, rows, [task, task], [1, 2], 5, theta_stacked=True)
    for i in range(2):
        alone = run(learner, {name: value[i] for name, value in rows.items()}, [task], [i + 1], 5)
        torch.testing.assert_close(both.loss[:, i], alone.loss[:, 0], rtol=1e-5, atol=1e-6)
    assert both.loss[0, 0] > both.loss[-1, 0], "it learns"


def test_rules_of_both_kinds_share_one_set_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODEL_RULES, "_entries", dict(MODEL_RULES))
    assert learners.register(Toy) is Toy
    assert learners.names() == (*RULES, *MODEL_RULES)
    assert learners.names()[-1] == "toy"
    made = learners.get("toy", schedule="warmup", weight_decay=0.1, decay=0.5)
    assert made == ModelRuleLearner(Toy(decay=0.5), SCHEDULES["warmup"], 0.1)
    assert hash(made) == hash(learners.get("toy", schedule="warmup", weight_decay=0.1, decay=0.5))
    assert isinstance(learners.get("adam"), GradientLearner)
    assert learners.rule_of("toy", decay=0.5) == get_model_rule("toy", decay=0.5)
    for given, message in (
        ({"decay": 1.0}, "option decay of update rule toy"),
        ({"decays": 0.5}, "no option 'decays'; did you mean 'decay'"),
    ):
        with pytest.raises(ConfigError, match=message):
            learners.get("toy", **given)
    with pytest.raises(ConfigError, match="update rule 'toi' is unknown; did you mean 'toy'"):
        learners.get("toi")


def test_a_name_of_the_other_kind_is_taken() -> None:
    taken = dataclass(frozen=True)(type("Taken", (Toy,), {"__annotations__": {"name": str}, "name": field(init=False, default="adam")}))
    with pytest.raises(ConfigError, match="update rule 'adam' is registered already; choose another name"):
        learners.register(taken)
    assert "adam" not in MODEL_RULES
