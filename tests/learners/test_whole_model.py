"""Schedule-Free AdamW, Prodigy and L-BFGS: their reference implementations step by step, under vmap, and through the runner."""

import contextlib
import io
from dataclasses import replace

import prodigyopt
import pytest
import schedulefree
import torch
from torch.func import vmap

from metaopt import inner, seeds, tasks
from metaopt.learners import SCHEDULES, Schedule, schedule_factor
from metaopt.learners.lbfgs import LBFGS
from metaopt.learners.prodigy import Prodigy
from metaopt.learners.schedule_free import ScheduleFreeAdamW

STEPS, HORIZON = 25, 40
LEARNERS = [ScheduleFreeAdamW(lr=0.05), Prodigy(d0=1e-3), LBFGS(lr=0.5)]


def bowl(horizon=HORIZON, template="8x4-minimum", dtype=torch.float64):
    family = tasks.get("quadratic")
    return family.build(family.sample(template, 1, (horizon, horizon))).to(dtype=dtype)


def problem(params, noise=0.0):
    """A smooth loss of a matrix and a vector that is no quadratic."""
    target = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
    return (params["w"] - target).pow(2).mul(torch.arange(1, 7).reshape(2, 3)).sum() + (params["b"] - 1 + noise).cosh().sum()


def start():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in {"w": (2, 3), "b": (4,)}.items()}


def ours(learner, noises, scales=None):
    """Return `params` after every update, flat."""
    h, params, path = learner.hypers({}), start(), []
    state = learner.init_state(h, params)
    for t, noise in enumerate(noises):
        point = learner.gradient_point(h, params, state)
        grads = torch.func.grad(problem)(point, noise)
        lr = h["lr"] * schedule_factor(learner.schedule, torch.tensor(t), torch.tensor(float(HORIZON), dtype=torch.float64))
        params, state = learner.update(h, params, grads, state, torch.tensor(t), lr, scales or dict.fromkeys(params, 1.0))
        path.append(torch.cat([p.reshape(-1) for p in params.values()]))
    return torch.stack(path)


def theirs(make, noises, schedule=SCHEDULES["constant"], around=None):
    params = {name: value.requires_grad_() for name, value in start().items()}
    with contextlib.redirect_stdout(io.StringIO()):  # Prodigy greets
        optimizer = make(list(params.values()))
    rate, path = optimizer.param_groups[0]["lr"], []
    around = around or (lambda optimizer: None)
    for t, noise in enumerate(noises):
        factor = schedule_factor(schedule, torch.tensor(t), torch.tensor(float(HORIZON), dtype=torch.float64))
        optimizer.param_groups[0]["lr"] = rate * float(factor)

        def closure(noise=noise):
            optimizer.zero_grad()
            loss = problem(params, noise)
            loss.backward()
            return loss

        optimizer.step(closure)
        with around(optimizer) or contextlib.nullcontext():
            path.append(torch.cat([p.detach().reshape(-1).clone() for p in params.values()]))
    return torch.stack(path)


def noises(scale=0.3):
    return (scale * torch.randn(STEPS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).tolist()


@contextlib.contextmanager
def evaluating(optimizer):
    optimizer.eval()
    yield
    optimizer.train()


@pytest.mark.parametrize("warmup_steps", [0, 10])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_schedule_free_is_the_package_at_x(warmup_steps, weight_decay):
    def make(params):
        optimizer = schedulefree.AdamWScheduleFree(params, lr=0.05, warmup_steps=warmup_steps, weight_decay=weight_decay, foreach=False)
        optimizer.train()
        return optimizer

    schedule = Schedule(warmup_steps / HORIZON, 1.0)
    found = ours(ScheduleFreeAdamW(schedule=schedule, lr=0.05, weight_decay=weight_decay), noises())
    torch.testing.assert_close(found, theirs(make, noises(), around=evaluating), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "d_coef": 2.0}, {"use_bias_correction": True, "safeguard_warmup": True}])
@pytest.mark.parametrize("schedule", ["constant", "warmup_cosine"])
def test_prodigy_is_the_package(options, schedule):
    names = {"use_bias_correction": "bias_correction"}
    learner = Prodigy(schedule=SCHEDULES[schedule], d0=1e-3, **{names.get(key, key): value for key, value in options.items()})
    reference = theirs(lambda params: prodigyopt.Prodigy(params, d0=1e-3, **options), noises(), SCHEDULES[schedule])
    torch.testing.assert_close(ours(learner, noises()), reference, rtol=1e-10, atol=1e-12)


def test_prodigy_waits_for_the_first_gradient():
    learner, h, params = Prodigy(), Prodigy().hypers({}), start()
    zeros = {name: torch.zeros_like(value) for name, value in params.items()}
    state = learner.init_state(h, params)
    after, new = learner.update(h, params, zeros, state, torch.tensor(0), 1.0, dict.fromkeys(params, 1.0))
    assert all(torch.equal(after[name], params[name]) for name in params)
    assert (float(new["d"]), float(new["count"])) == (1e-6, 0.0)


@pytest.mark.parametrize("history", [3, 10])
@pytest.mark.parametrize("lr", [1.0, 0.4])
@pytest.mark.parametrize("scale", [0.0, 0.3])  # with noise some steps have no upward curvature
def test_lbfgs_is_torchs(history, lr, scale):
    learner = LBFGS(lr=lr, history=history)
    reference = theirs(lambda params: torch.optim.LBFGS(params, lr=lr, max_iter=1, history_size=history), noises(scale))
    torch.testing.assert_close(ours(learner, noises(scale)), reference, rtol=1e-8, atol=1e-9)


def test_lbfgs_solves_a_smooth_problem_in_a_few_steps_and_stays():
    path = ours(LBFGS(), [0.0] * 40)
    assert float((path[25] - path[-1]).abs().max()) < 1e-6
    assert torch.equal(path[-2], path[-1]), "below the smallest gradient nothing changes"


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.name)
def test_a_stack_of_runs_equals_runs_alone_and_rates_come_from_theta(learner):
    task = bowl()
    rates = torch.tensor([0.3, 0.1, 0.02], dtype=torch.float64)
    together = inner.run(learner, {"lr": rates}, [task] * 3, [5, 5, 6], STEPS, eval_every=10, theta_stacked=True)
    for i, (rate, seed) in enumerate(zip(rates, (5, 5, 6), strict=True)):
        alone = inner.run(replace(learner, lr=float(rate)), {}, [task], [seed], STEPS, eval_every=10)
        torch.testing.assert_close(together.loss[:, i], alone.loss[:, 0], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(together.eval_loss[:, i], alone.eval_loss[:, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.name)
def test_they_learn_and_report_the_loss_of_their_params(learner):
    task, key = bowl(60), seeds.key("run")
    carry = learner.init({}, task, key)
    first = task.normalise(task.loss(carry["params"], task.heldout(key, torch.tensor(0))))
    for t in range(60):
        batch = task.batch(key, torch.tensor(t))
        before = carry["params"]
        carry, record = learner.advance({}, task, carry, batch)
        torch.testing.assert_close(record.loss, task.loss(before, batch), rtol=1e-12, atol=0)
    last = task.normalise(task.loss(carry["params"], task.heldout(key, torch.tensor(0))))
    assert float(last) < 0.5 * float(first)
    assert int(carry["t"]) == 60


@pytest.mark.parametrize("learner", LEARNERS[:2], ids=lambda learner: learner.name)
def test_step_scales_shrink_the_step_of_their_parameter(learner):
    frozen = ours(learner, noises(), {"w": 0.0, "b": 1.0})
    assert torch.equal(frozen[-1][:6], start()["w"].reshape(-1))
    assert not torch.equal(frozen[-1][6:], start()["b"])


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.name)
def test_zero_gradients_give_finite_derivatives_and_the_learner_is_data(learner):
    assert hash(learner) == hash(replace(learner))
    assert learner.init_theta(0) == {}
    assert "lr" in learner.hyperparameters
    assert all(isinstance(value, float) for value in learner.hyperparameters.values())
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    params = {"b": torch.zeros(3, dtype=torch.float64)}
    h = learner.hypers({"lr": rate})
    state = learner.init_state(h, params)
    for _ in range(2):
        params, state = learner.update(h, params, {"b": torch.zeros(3, dtype=torch.float64)}, state, torch.tensor(0), rate, {"b": 1.0})
    total = params["b"].sum() + 0.0 * rate
    assert torch.isfinite(torch.autograd.grad(total, rate)[0])


def test_the_average_weighs_warmup_less():
    """With weights lr_max**2 the first iterates of a warm-up hardly count; with constant steps all count the same."""
    learner = ScheduleFreeAdamW(schedule=SCHEDULES["constant"], lr=0.1)
    h, params = learner.hypers({}), {"b": torch.zeros(1, dtype=torch.float64)}
    state, iterates = learner.init_state(h, params), []
    for t in range(5):
        params, state = learner.update(h, params, {"b": torch.ones(1, dtype=torch.float64)}, state, torch.tensor(t), 0.1, {"b": 1.0})
        iterates.append(state["z"]["b"])
    torch.testing.assert_close(params["b"], torch.stack(iterates).mean(0), rtol=1e-12, atol=0)


def test_all_of_them_map_over_models():
    for learner in LEARNERS:
        h = learner.hypers({})
        params = {"b": torch.arange(6, dtype=torch.float64).reshape(2, 3) + 1}

        def one(params, learner=learner, h=h):
            return learner.update(h, params, params, learner.init_state(h, params), torch.tensor(0), h["lr"], {"b": 1.0})[0]["b"]

        torch.testing.assert_close(vmap(one)(params)[1], one({"b": params["b"][1]}), rtol=1e-12, atol=0)
