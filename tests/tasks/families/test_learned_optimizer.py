"""Learned-optimizer tasks: the objective written out, its floor by enumeration, derivatives against finite differences."""

import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.tasks.families.learned_optimizer import Unroll, gradient_descent_floor
from metaopt.tasks.models import UnrolledRule
from metaopt.tasks.streams import Logistic, Quadratic
from metaopt.tasks.task import Task

FAMILY = tasks.get("learned_optimizer_task")
TEMPLATES = [template for split in tasks.SPLITS for template in FAMILY.templates(split)]
PROGRAMS = [Unroll(kind(4), UnrolledRule(5, "tanh"), 3, 4, objective) for kind in (Quadratic, Logistic) for objective in ("mean", "final")]
compiler = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler


def task_of(template: str, seed: int = 0, horizon: int = 100, dtype: torch.dtype = torch.float32):
    return FAMILY.build(FAMILY.sample(template, seed, (horizon, horizon))).to(dtype=dtype)


def cheapest() -> str:
    return min(TEMPLATES, key=lambda template: (program := task_of(template).program).steps * program.count)


def drawn(program: Unroll):
    numbers = {"floor": torch.zeros((), dtype=torch.float64), "init_scale": torch.ones((), dtype=torch.float64)}
    params = program.init(numbers, seeds.key("rule"))
    params = {name: value + 0.1 * seeds.normal(seeds.key(name), value.shape, torch.float64) for name, value in params.items()}
    return numbers, params, program.batch(numbers, {}, seeds.key("run"), torch.tensor(3))


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_objective_is_the_mean_of_relative_losses(program: Unroll) -> None:
    numbers, params, batch = drawn(program)
    visited = program.rule.apply(params, lambda x: program.problems.gradient(batch, x), batch["start"], 4)
    total, counted = 0.0, [3] if program.objective == "final" else range(4)
    for p in range(3):
        own = {name: value[p : p + 1] for name, value in batch.items()}
        first = float(program.problems.loss(own, own["start"]))
        total += sum(float(program.problems.loss(own, visited[k][p : p + 1])) / first for k in counted) / len(counted) / 3
    assert float(program.loss(numbers, params, batch)) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("program", PROGRAMS)
def test_derivatives_through_the_unroll_equal_finite_differences(program: Unroll) -> None:
    numbers, params, batch = drawn(program)
    grads, h = torch.func.grad(lambda p: program.loss(numbers, p, batch))(params), 1e-6
    for name, value in params.items():
        direction = seeds.normal(seeds.key("direction", name), value.shape, torch.float64)
        up, down = (program.loss(numbers, {**params, name: value + sign * h * direction}, batch) for sign in (1, -1))
        assert float((grads[name] * direction).sum()) == pytest.approx(float(up - down) / (2 * h), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_rule_that_does_not_move_is_one(program: Unroll) -> None:
    numbers, params, batch = drawn(program)
    still = {name: torch.zeros_like(value) for name, value in params.items()}
    raw = program.loss(numbers, still, batch)
    assert float(raw) == pytest.approx(1.0, rel=1e-12)
    for floor in (0.0, 0.3):
        assert float(program.normalise({"floor": torch.tensor(floor).double()}, raw)) == pytest.approx(1.0)
        assert float(program.normalise({"floor": torch.tensor(floor).double()}, torch.tensor(floor).double())) == 0.0


def test_the_floor_of_one_step_on_quadratics_is_nearly_exact_line_search() -> None:
    """With one step, the best constant step for a problem is g'g / g'Hg; the grid of rates comes close to it from above."""
    program = Unroll(Quadratic(6), UnrolledRule(5, "tanh"), 3, 1, "final")
    batch = program.heldout({"floor": torch.zeros((), dtype=torch.float64)}, {}, seeds.key("any"), torch.tensor(0))
    x = batch["start"]
    g = program.problems.gradient(batch, x)
    rate = (g * g).sum(-1) / (g * program.problems.gradient(batch, g)).sum(-1)
    exact = float((program.problems.loss(batch, x - rate.unsqueeze(-1) * g) / program.problems.loss(batch, x)).mean())
    assert exact <= gradient_descent_floor(program) < exact + 0.05


def test_floors_fall_with_the_length_of_the_unroll() -> None:
    floors = [gradient_descent_floor(Unroll(Quadratic(5), UnrolledRule(4, "relu"), 2, steps, "final")) for steps in (1, 3, 10, 20)]
    assert floors == sorted(floors, reverse=True)
    assert floors[0] > 0.05
    assert floors[-1] < 0.01


def test_problems_of_training_differ_by_step_and_are_never_the_heldout_ones() -> None:
    task, key = task_of(cheapest()), seeds.key("run")
    starts = [task.batch(key, torch.tensor(t))["start"] for t in range(50)]
    kept, again = task.heldout(key, torch.tensor(0))["start"], task.heldout(seeds.key("other"), torch.tensor(7))["start"]
    assert torch.equal(kept, again)
    assert len(kept) == 64
    rows = {row.numpy().tobytes() for start in starts for row in start}
    assert len(rows) == 50 * task.program.count
    assert not rows & {row.numpy().tobytes() for row in kept}


def test_templates_hold_both_kinds_of_problems_and_short_unrolls() -> None:
    programs = [task_of(template).program for template in TEMPLATES]
    assert {type(program.problems) for program in programs} == {Quadratic, Logistic}
    assert {program.objective for program in programs} == {"mean", "final"}
    assert min(program.steps for program in programs) < 4 < 10 < max(program.steps for program in programs) <= 20
    assert len(set(programs)) == len(programs)


def test_an_outer_optimizer_teaches_the_rule_to_descend() -> None:
    task = task_of(cheapest(), horizon=100)
    learner = learners.get("adam", lr=0.03, schedule="warmup_cosine")
    trace = inner.run(learner, {}, [task], [0], 100, eval_every=100)
    assert float(trace.eval_loss[-1, 0]) < 0.35 < 0.8 < float(trace.eval_loss[0, 0])


@pytest.mark.slow
@compiler
def test_compiled_steps_equal_eager_ones() -> None:
    program = Unroll(Quadratic(3), UnrolledRule(4, "silu"), 2, 3, "mean")
    task = Task(program, {name: torch.tensor(value) for name, value in {"init_scale": 1.0, "floor": 0.1, "horizon": 5.0}.items()}, {})
    learner = learners.get("sgd", lr=0.1)
    eager, compiled = (inner.run(learner, {}, [task, task], [0, 1], 5, compile=compile) for compile in (False, True))
    torch.testing.assert_close(compiled.loss, eager.loss, rtol=1e-4, atol=1e-5)
