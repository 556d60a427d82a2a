"""`LearnedSchedule`: the same run as the learner's, exact resume, groups, and errors that name what is wrong."""

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import metaopt
from metaopt import seeds, tasks
from metaopt.artifacts import Artifact, new_card
from metaopt.errors import ConfigError, IncompatibleCheckpointError, UnsafeArtifactError
from metaopt.inner import run
from metaopt.inner.step import fresh_carries
from metaopt.learners.hypergradients.schedule import LEARNABLE, scheduled_learner
from metaopt.learners.update_rules.classic import CLASSIC
from metaopt.optim import LearnedOptimizer, LearnedSchedule
from metaopt.tasks.task import stack_tasks

STEPS, SEED = 12, 7
BATCHES = 1  # the branch of a run's key that its batches are drawn from
POINT = {"lr": 0.02, "momentum": 0.8, "beta1": 0.85, "weight_decay": 0.05}
TORCH: dict[str, Any] = {
    "sgd": lambda p, **o: torch.optim.SGD(p, **{"lr": 0.5, **o}),
    "momentum": lambda p, **o: torch.optim.SGD(p, **{"lr": 0.5, "momentum": 0.5, **o}),
    "nesterov": lambda p, **o: torch.optim.SGD(p, **{"lr": 0.5, "momentum": 0.5, "nesterov": True, **o}),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "rmsprop": lambda p, **o: torch.optim.RMSprop(p, **{"momentum": 0.5, **o}),
}


def schedule(rule: str = "adamw", learn: tuple[str, ...] | None = None, shape: str = "linear", name: str = "mine") -> Artifact:
    """An artifact whose every value differs from its neighbours."""
    learn = learn or tuple(name for name in LEARNABLE if name in CLASSIC[rule]().hyperparameters)
    options = {"learn": list(learn), "values": 4, "shape": shape, **{one: POINT[one] for one in learn}}
    theta = {one: value + torch.tensor([-0.5, 0.4, 0.1, -1.0]) for one, value in scheduled_learner(rule, **options).init_theta(0).items()}
    card = new_card(name, rule, options=options, kind="hypergradient", interface="learned_schedule/1")
    return Artifact(card, theta)


def parameters(count: int = 2) -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(3, generator=torch.Generator().manual_seed(i), dtype=torch.float64)) for i in range(count)]


def walk(optimizer: torch.optim.Optimizer, scheduler: LearnedSchedule, steps: range) -> None:
    for step in steps:
        for place, param in enumerate(param for group in optimizer.param_groups for param in group["params"]):
            param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(100 * step + place), dtype=param.dtype)
        optimizer.step()
        scheduler.step()


def params_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [param.detach().clone() for group in optimizer.param_groups for param in group["params"]]


@pytest.mark.parametrize("shape", ["linear", "constant"])
@pytest.mark.parametrize("rule", CLASSIC)
def test_it_retraces_the_learner(rule: str, shape: str) -> None:
    artifact = schedule(rule, shape=shape)
    learner = scheduled_learner(rule, **artifact.card["rule"]["options"])
    family = tasks.get("digits_mlp")
    task = family.build(family.sample("16-tanh-b32", 3, (STEPS, STEPS))).to(dtype=torch.float64)
    theta = {name: value.double() for name, value in artifact.weights.items()}
    trace = run(learner, theta, [task], [SEED], STEPS)
    start = fresh_carries(learner, theta, stack_tasks([task]), torch.tensor([SEED]), theta_stacked=False)["params"]
    params = {name: nn.Parameter(value[0].clone()) for name, value in start.items()}
    optimizer = TORCH[rule](params.values())
    scheduler = LearnedSchedule(optimizer, artifact, STEPS)
    key, losses = seeds.fold_in(torch.tensor(SEED), BATCHES), []
    for t in range(STEPS):

        def closure(t: int = t) -> torch.Tensor:
            optimizer.zero_grad()
            loss = task.loss(params, task.batch(key, torch.tensor(t)))  # type: ignore[arg-type]
            loss.backward()
            return loss

        losses.append(float(optimizer.step(closure).detach()))
        scheduler.step()
    # torch keeps nadam's product of momenta in float32
    tolerance = 1e-7 if rule == "nadam" else 1e-12
    torch.testing.assert_close(torch.tensor(losses, dtype=torch.float64), trace.loss[:, 0], rtol=tolerance, atol=tolerance)
    for name, value in params.items():
        torch.testing.assert_close(value.detach(), trace.carry["params"][name][0], rtol=10 * tolerance, atol=tolerance)


def test_it_sets_all_that_was_learned_and_nothing_else() -> None:
    optimizer = torch.optim.AdamW(parameters(), lr=0.7, betas=(0.5, 0.97), eps=1e-5)
    scheduler = LearnedSchedule(optimizer, schedule(), STEPS)
    group = optimizer.param_groups[0]
    for step in range(3):
        values = scheduler.values_at(step)
        assert (group["lr"], group["betas"], group["weight_decay"]) == (values["lr"], (values["beta1"], 0.97), values["weight_decay"])
        assert scheduler.get_last_lr() == [values["lr"]]
        walk(optimizer, scheduler, range(step, step + 1))
    assert group["eps"] == 1e-5
    assert scheduler.values_at(0)["lr"] == pytest.approx(0.02 * 2.718281828**-0.5, rel=1e-6)


def test_what_was_not_learned_stays_the_users() -> None:
    optimizer = torch.optim.AdamW(parameters(), betas=(0.5, 0.97), weight_decay=0.3)
    scheduler = LearnedSchedule(optimizer, schedule(learn=("lr",)), STEPS)
    walk(optimizer, scheduler, range(3))
    assert (optimizer.param_groups[0]["betas"], optimizer.param_groups[0]["weight_decay"]) == ((0.5, 0.97), 0.3)


def test_groups_keep_their_proportions() -> None:
    one, two, three = parameters(3)
    groups = [{"params": [one], "lr": 0.0}, {"params": [two], "lr": 0.2}, {"params": [three], "lr": 0.1, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.4)
    scheduler = LearnedSchedule(optimizer, schedule(), STEPS)
    walk(optimizer, scheduler, range(2))
    values = scheduler.values_at(2)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, values["lr"], pytest.approx(values["lr"] / 2)]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [values["weight_decay"]] * 2 + [0.0]
    optimizer.add_param_group({"params": parameters(1), "lr": 0.4, "weight_decay": 0.4})
    scheduler.step()
    assert optimizer.param_groups[3]["lr"] == pytest.approx(2 * scheduler.values_at(3)["lr"])


def test_a_weight_decay_that_no_group_has_is_learned_all_the_same() -> None:
    optimizer = torch.optim.SGD(parameters(), lr=0.1)
    scheduler = LearnedSchedule(optimizer, schedule("sgd"), STEPS)
    assert optimizer.param_groups[0]["weight_decay"] == scheduler.values_at(0)["weight_decay"] > 0


@pytest.mark.parametrize("rule", ["momentum", "adamw"])
def test_resume_is_bitwise(rule: str, tmp_path: Path) -> None:
    def fresh() -> tuple[torch.optim.Optimizer, LearnedSchedule]:
        first, second = parameters()
        optimizer = TORCH[rule]([{"params": [first]}, {"params": [second], "lr": 0.01, "weight_decay": 0.0}], lr=0.02, weight_decay=0.1)
        return optimizer, LearnedSchedule(optimizer, schedule(rule), STEPS)

    whole, at = fresh()
    walk(whole, at, range(9))
    part, scheduler = fresh()
    walk(part, scheduler, range(4))
    saved = {"optimizer": part.state_dict(), "scheduler": scheduler.state_dict(), "params": params_of(part)}
    torch.save(saved, tmp_path / "saved.pt")
    loaded = torch.load(tmp_path / "saved.pt", weights_only=True)  # numbers and texts only
    again, restored = fresh()
    for param, value in zip((p for group in again.param_groups for p in group["params"]), loaded["params"], strict=True):
        param.data.copy_(value)
    restored.load_state_dict(loaded["scheduler"])
    again.load_state_dict(loaded["optimizer"])
    walk(again, restored, range(4, 9))
    assert all(torch.equal(a, b) for a, b in zip(params_of(whole), params_of(again), strict=True))
    assert restored.get_last_lr() == at.get_last_lr()
    assert restored.state_dict() == at.state_dict()


def test_a_state_of_another_schedule_is_refused() -> None:
    optimizer = torch.optim.AdamW(parameters())
    state = LearnedSchedule(optimizer, schedule(), STEPS).state_dict()
    longer = LearnedSchedule(torch.optim.AdamW(parameters()), schedule(), STEPS + 1)
    with pytest.raises(IncompatibleCheckpointError, match="state_dict has total_steps 12, the scheduler 13; build it with that one"):
        longer.load_state_dict(state)
    other = LearnedSchedule(torch.optim.AdamW(parameters()), schedule(name="other"), STEPS)
    with pytest.raises(IncompatibleCheckpointError, match=r"state_dict has artifact 'mine@[0-9a-f]+', the scheduler 'other@"):
        other.load_state_dict(state)
    assert other.last_epoch == 0


def test_past_the_end_the_last_values_stay_and_it_says_so_once() -> None:
    optimizer = torch.optim.AdamW(parameters())
    scheduler = LearnedSchedule(optimizer, schedule(), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        walk(optimizer, scheduler, range(3))  # the step after the last update is no step past the end
    last = scheduler.values_at(3)
    with pytest.warns(UserWarning, match=r"step 4 is past total_steps=3 of mine@[0-9a-f]+: the last values stay"):
        walk(optimizer, scheduler, range(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        walk(optimizer, scheduler, range(5))
    assert optimizer.param_groups[0]["lr"] == last["lr"] == pytest.approx(0.02 * 2.718281828**-1.0, rel=1e-6)


def test_copies_go_their_own_way() -> None:
    optimizer = torch.optim.AdamW(parameters())
    scheduler = LearnedSchedule(optimizer, schedule(), STEPS)
    walk(optimizer, scheduler, range(2))
    for twin in (copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):  # noqa: S301
        assert twin.optimizer is not optimizer
        walk(twin.optimizer, twin, range(2, 4))
        assert (twin.last_epoch, scheduler.last_epoch) == (4, 2)


def test_a_rate_that_is_a_tensor_is_written_in_place() -> None:
    optimizer = torch.optim.AdamW(parameters(), lr=torch.tensor(0.5))
    rate = optimizer.param_groups[0]["lr"]
    scheduler = LearnedSchedule(optimizer, schedule(), STEPS)
    walk(optimizer, scheduler, range(2))
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(scheduler.values_at(2)["lr"], rel=1e-6)


def test_a_subclass_is_what_it_derives_from() -> None:
    class Mine(torch.optim.AdamW):
        pass

    LearnedSchedule(Mine(parameters()), schedule(), STEPS)
    LearnedSchedule(torch.optim.Adam(parameters(), decoupled_weight_decay=True), schedule(), STEPS)


SGD, ADAM = torch.optim.SGD, torch.optim.Adam


@pytest.mark.parametrize(
    ("optimizer", "rule", "message"),
    [
        (lambda p: SGD(p, lr=0.1), "adamw", r"schedules rule adamw \(torch.optim.AdamW\), got optimizer SGD whose group 0 has momentum=0"),
        (
            lambda p: SGD(p, lr=0.1),
            "momentum",
            r"rule momentum \(torch.optim.SGD with momentum > 0\), got optimizer SGD whose group 0 has mom",
        ),
        (
            lambda p: SGD(p, lr=0.1, momentum=0.9),
            "sgd",
            r"rule sgd \(torch.optim.SGD with momentum 0\), got .*momentum=0.9, nesterov=False",
        ),
        (lambda p: SGD(p, lr=0.1, momentum=0.9), "nesterov", r"nesterov=True\), got optimizer SGD .* nesterov=False"),
        (lambda p: SGD(p, lr=0.1, momentum=0.9, dampening=0.1), "momentum", "dampening=0.1"),
        (lambda p: ADAM(p), "adamw", r"rule adamw .*got optimizer Adam whose group 0 has amsgrad=False, decoupled_weight_decay=False"),
        (lambda p: ADAM(p, amsgrad=True), "adam", "amsgrad=True"),
        (lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.5), "rmsprop", "centered=True"),
        (lambda p: torch.optim.RMSprop(p), "rmsprop", "learned momentum, and group 0 of RMSprop has none; build it with momentum > 0"),
        (lambda p: torch.optim.Adagrad(p), "adam", r"schedules rule adam \(torch.optim.Adam\), got optimizer Adagrad$"),
        (lambda p: ADAM(p, lr=0.0), "adam", "all groups of Adam have lr 0, which a learned schedule leaves at 0"),
    ],
)
def test_an_optimizer_of_another_rule_is_refused(optimizer: Any, rule: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LearnedSchedule(optimizer(parameters()), schedule(rule), STEPS)


@pytest.mark.parametrize("total", [0, -1, 2.5, True, None])
def test_total_steps_must_be_a_count(total: Any) -> None:
    with pytest.raises(ConfigError, match="total_steps must be an integer >= 1, got"):
        LearnedSchedule(torch.optim.AdamW(parameters()), schedule(), total)


def test_each_class_points_to_the_other() -> None:
    with pytest.raises(ConfigError, match=r"'mine' is a learned schedule; run it with LearnedSchedule\(optimizer, artifact, total_steps\)"):
        LearnedOptimizer(parameters(), schedule())
    with pytest.raises(ConfigError, match="'celo2-base' is of kind update_rule, no learned schedule; run it with LearnedOptimizer"):
        LearnedSchedule(torch.optim.AdamW(parameters()), "celo2-base", STEPS)
    with pytest.raises(ConfigError, match=r"optimizer must be a torch.optim.Optimizer, got list"):
        LearnedSchedule(parameters(), schedule(), STEPS)  # type: ignore[arg-type]


def test_names_and_paths_are_loaded(tmp_path: Path) -> None:
    path = schedule().save(tmp_path / "mine")
    scheduler = metaopt.optim.LearnedSchedule(torch.optim.AdamW(parameters()), artifact=str(path), total_steps=STEPS)
    assert scheduler.artifact == f"mine@{schedule().fingerprint}"
    with pytest.raises(UnsafeArtifactError, match="artifact 'nobody': no such path or name"):
        LearnedSchedule(torch.optim.AdamW(parameters()), "nobody", STEPS)
