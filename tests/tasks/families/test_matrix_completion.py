"""Matrix completion: closed forms of the loss, its gradient and what it conserves; what is seen; what is recovered."""

import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import TaskError
from metaopt.tasks.families.matrix_completion import MatrixCompletion
from metaopt.tasks.task import Task, TaskSpec

FAMILY = tasks.get("matrix_completion")
TEMPLATES = FAMILY.templates("meta_test")
KEY, T0 = seeds.key("run"), torch.tensor(0)


def task_of(template: str, seed: int = 0, horizon: int = 100) -> Task:
    return FAMILY.build(FAMILY.sample(template, seed, (horizon, horizon))).to(dtype=torch.float64)


def test_it_has_test_templates_only_and_offers_gradients_only() -> None:
    assert [len(FAMILY.templates(split)) for split in tasks.SPLITS] == [0, 0, 3]
    assert FAMILY.offers == ()


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_matrix_has_its_rank_and_mean_square_one(template: str) -> None:
    task = task_of(template)
    values = torch.linalg.svdvals(task.numbers["matrix"])
    assert int((values > 1e-4 * values[0]).sum()) == task.program.rank
    assert float(task.numbers["matrix"].square().mean()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("template", TEMPLATES)
def test_entries_are_seen_or_held_out_and_enough_of_them_to_determine_the_matrix(template: str) -> None:
    task = task_of(template)
    p = task.program
    seen, others = task.batch(KEY, T0)["counted"], task.heldout(KEY, T0)["counted"]
    assert torch.equal(seen + others, torch.ones_like(seen))
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    assert int(seen.sum()) == round(p.rows * p.columns * p.seen_percent / 100) > 1.5 * p.rank * (p.rows + p.columns - p.rank)
    assert torch.equal(seen, task.batch(seeds.key("other"), torch.tensor(7))["counted"])
    assert not torch.equal(seen, task_of(template, seed=1).numbers["seen"])


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_product_of_zero_has_the_mean_square_and_no_gradient_and_the_matrix_itself_has_no_loss(template: str) -> None:
    task = task_of(template)
    zero = {name: torch.zeros_like(value) for name, value in task.init(KEY).items()}
    grads, loss = torch.func.grad_and_value(task.loss)(zero, task.batch(KEY, T0))
    seen = task.numbers["seen"].bool()
    assert float(loss) == pytest.approx(float(task.numbers["matrix"][seen].square().mean()))
    assert all(float(grad.abs().max()) == 0.0 for grad in grads.values())
    assert all(float(task.loss(exact(task), batch)) < 1e-20 for batch in (task.batch(KEY, T0), task.heldout(KEY, T0)))


def exact(task: Task) -> dict[str, torch.Tensor]:
    """Return factors whose product is the matrix: of its singular value decomposition, with identities in between."""
    left, values, right = torch.linalg.svd(task.numbers["matrix"], full_matrices=False)
    middle = {f"factor{i}": torch.eye(len(values), dtype=values.dtype) for i in range(1, task.program.factors - 1)}
    return {"factor0": left * values, **middle, f"factor{task.program.factors - 1}": right}


@pytest.mark.parametrize("template", TEMPLATES)
def test_gradients_are_the_closed_form(template: str) -> None:
    """d loss / d W_i = (W_1 .. W_i-1)' E (W_i+1 .. W_L)' with E = 2 (product - matrix) on the entries that count, over their number."""
    task = task_of(template)
    params, seen = task.init(KEY), task.numbers["seen"]
    factors = [params[f"factor{i}"] for i in range(task.program.factors)]
    error = 2.0 * seen * (task.program.product(params) - task.numbers["matrix"]) / seen.sum()
    grads = torch.func.grad(task.loss)(params, task.batch(KEY, T0))
    for i, factor in enumerate(factors):
        before, after = torch.eye(factor.shape[0]).double(), torch.eye(factor.shape[1]).double()
        for other in factors[:i][::-1]:
            before = other @ before
        for other in factors[i + 1 :]:
            after = after @ other
        torch.testing.assert_close(grads[f"factor{i}"], before.T @ error @ after.T, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("template", TEMPLATES)
def test_gradient_flow_conserves_the_balance_of_neighbours(template: str) -> None:
    """W_i' dW_i = dW_i+1 W_i+1', so that W_i' W_i - W_i+1 W_i+1' stays what it was (Arora, Cohen, Hazan, 2018, theorem 1)."""
    task = task_of(template)
    params = task.init(KEY)
    grads = torch.func.grad(task.loss)(params, task.batch(KEY, T0))
    for i in range(task.program.factors - 1):
        left, right = params[f"factor{i}"].T @ grads[f"factor{i}"], grads[f"factor{i + 1}"] @ params[f"factor{i + 1}"].T
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_first_product_has_the_deviation_that_is_promised(template: str) -> None:
    task = task_of(template)
    task.numbers["init_scale"] = torch.tensor(1.3, dtype=torch.float64)
    products = torch.stack([task.program.product(task.init(seeds.key("w", i))) for i in range(20)])
    assert float(products.std()) == pytest.approx(0.01 * 1.3**task.program.factors, rel=0.15)


def test_adam_recovers_entries_that_it_never_saw() -> None:
    task = FAMILY.build(FAMILY.sample("32x20-rank2-factors3-seen50", 0, (400, 400)))
    trace = inner.run(learners.get("adam", schedule="warmup_cosine"), {"lr": torch.tensor(3e-3)}, [task] * 2, [0, 1], 400, eval_every=400)
    assert (trace.eval_loss[0] > 0.7).all()
    assert (trace.eval_loss[-1] < 0.1).all()


def test_unknown_templates_are_refused() -> None:
    with pytest.raises(TaskError, match=r"no template '9x9'.*24x24-rank2"):
        FAMILY.build(TaskSpec("matrix_completion", "9x9", "meta_test", {"init_scale": 1.0, "seed": 0}, 10))
    with pytest.raises(TaskError, match="in meta_train; it has none"):
        FAMILY.build(TaskSpec("matrix_completion", TEMPLATES[0], "meta_train", {"init_scale": 1.0, "seed": 0}, 10))
    assert MatrixCompletion(4, 3, 1, 2, 50).cap > 1.0
