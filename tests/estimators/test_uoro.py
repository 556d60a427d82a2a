"""UORO: its product of two vectors has the exact derivative as its mean, by enumeration of all signs."""

import itertools

import pytest
import torch
from torch.func import jacrev, vmap

from metaopt import learners
from metaopt.errors import ConfigError
from metaopt.estimators import UORO, flatten, unflatten, uoro
from metaopt.estimators.uoro import SketchLearner, balanced
from metaopt.seeds import key
from metaopt.tasks.task import Task
from tests.estimators.float64 import source
from tests.oracles import smooth
from tests.oracles.influence_balancing import Endless, Nothing

STEPS = 3
TASK = Task(Nothing(), {"horizon": torch.tensor(12.0, dtype=torch.float64)}, {})


def patterns(count: int) -> torch.Tensor:
    return 1.0 - 2.0 * torch.tensor(list(itertools.product((0.0, 1.0), repeat=count)), dtype=torch.float64)


def test_factors_are_balanced_and_their_product_stays() -> None:
    left, right = [torch.tensor([[3.0], [0.0]]), torch.tensor(4.0)], torch.tensor([0.1, -0.2, 0.0])
    sizes = [torch.tensor(1.0), torch.tensor(0.5)]
    new_left, new_right = balanced(left, right, sizes)
    for before, after in zip(left, new_left, strict=True):
        torch.testing.assert_close(after[..., None] * new_right, before[..., None] * right)
    lengths = [float((piece / size).norm()) for piece, size in zip(new_left, sizes, strict=True)]
    assert (lengths[0] ** 2 + lengths[1] ** 2) ** 0.5 == pytest.approx(float(new_right.norm()))
    for zero_left, zero_right in (([torch.zeros(2), torch.zeros(())], right), (left, torch.zeros(3))):
        none_left, none_right = balanced(zero_left, zero_right, sizes)
        assert not none_right.any()
        assert not any(piece.any() for piece in none_left)


def state_after(vector: torch.Tensor, steps: int) -> torch.Tensor:
    theta = unflatten(vector, smooth.Smooth().init_theta())
    carry = smooth.Smooth().init(theta, None, None)
    for _ in range(steps):
        carry, _ = smooth.Smooth().advance(theta, None, carry, {})
    return carry["s"]


def test_the_mean_of_the_product_is_the_derivative_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two signs for the beginning and two a step: all 2^(2 + 2 STEPS) patterns at once.
    theta, learner = smooth.Smooth().init_theta(), SketchLearner(smooth.Smooth())
    chosen = patterns(2 + 2 * STEPS)
    monkeypatch.setattr(uoro, "signs", lambda where, shape, dtype: where)  # the key is the draw itself
    monkeypatch.setattr(uoro.seeds, "fold_in", lambda where, data: where)
    carry = vmap(lambda draw: learner.init(theta, TASK, draw))(chosen[:, :2])
    summed = torch.zeros(3, dtype=torch.float64)
    for t in range(STEPS + 1):
        sketch = torch.einsum("rs,rp->sp", carry["left"][0], carry["right"]) / len(chosen)
        want = jacrev(lambda vector, t=t: state_after(vector, t))(flatten(theta))
        torch.testing.assert_close(sketch, want, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(carry["sum"].mean(0), summed, rtol=1e-12, atol=1e-14)
        if t < STEPS:
            draw = chosen[:, 2 + 2 * t : 4 + 2 * t]
            carry, record = vmap(lambda state, part: learner.advance(theta, TASK, state, {"signs": part}))(carry, draw)
            summed = summed + jacrev(lambda vector, t=t: smooth.losses(unflatten(vector, theta), t + 1)[t])(flatten(theta))
            assert float(record.loss.std()) < 1e-15
    assert float(carry["sum"].var(0).sum()) > 0.01  # each alone is far from it


def test_signs_come_with_the_batches_and_belong_to_run_and_step() -> None:
    theta = {"lr": torch.tensor(0.05, dtype=torch.float64)}
    estimator = UORO(window=3).build(learners.get("momentum"), source(9), 2, seed=4)
    estimator.estimate(theta, 0)
    assert estimator.pairs.tasks[0].program.entries == 20  # weights and momentum of a 10 x 1 problem
    batches = estimator.pairs._batches(range(4), 5)
    assert batches["signs"].shape == (5, 4, 20)
    assert set(batches["signs"].unique().tolist()) == {-1.0, 1.0}
    flat = batches["signs"].reshape(20, 20)
    assert float((flat @ flat.T / 20).fill_diagonal_(0).abs().max()) < 0.9  # no two of them alike
    other = UORO(window=3).build(learners.get("momentum"), source(9), 2, seed=5)
    other.estimate(theta, 0)
    assert not torch.equal(other.pairs._batches(range(4), 5)["signs"], batches["signs"])
    again = UORO(window=3).build(learners.get("momentum"), source(9), 2, seed=4)
    again.load(estimator.state())
    assert torch.equal(again.pairs._batches(range(4), 5)["signs"], batches["signs"])


def test_the_wrapped_task_is_the_task() -> None:
    episodes = source(9)
    wrapped = uoro._SignedEpisodes(episodes, smooth.Smooth(), 0)
    wrapped.theta = smooth.Smooth().init_theta()
    task, plain = wrapped.task(1, 0), episodes.task(1, 0)
    assert wrapped.stage == 0
    assert (task.program.cap, task.shared) == (plain.program.cap, plain.shared)
    params = task.init(key("k"))
    assert torch.equal(params["x"], plain.init(key("k"))["x"])
    for kind in ("batch", "heldout"):
        batch = getattr(plain, kind)(key("k"), torch.tensor(2))
        assert torch.equal(task.loss(params, batch), plain.loss(params, batch))
        assert torch.equal(getattr(task, kind)(key("k"), torch.tensor(2))["noise"], batch["noise"])
    assert torch.equal(task.normalise(torch.tensor(2.0)), plain.normalise(torch.tensor(2.0)))
    assert uoro._unsigned(task).program == plain.program
    assert hash(task.program) == hash(wrapped.task(0, 3).program)


def test_compiling_is_refused() -> None:
    with pytest.raises(ConfigError, match="uoro runs uncompiled only, got compile=true"):
        UORO(window=2).build(smooth.Smooth(), Endless(), 2, 0, compiled=True)
