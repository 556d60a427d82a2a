"""Problems for learned optimizers: spectra as declared, gradients those of the losses, draws by the key alone."""

import pytest
import torch
from torch.func import grad, vmap

from metaopt import seeds
from metaopt.tasks.streams.problems import Logistic, Quadratic

COUNT, SIZE = 200, 5
KINDS = [Quadratic(SIZE), Logistic(SIZE)]


@pytest.mark.parametrize("problems", KINDS)
def test_closed_gradients_are_derivatives_of_the_losses(problems) -> None:
    batch = problems.draw(seeds.key("draw"), COUNT, torch.float64)
    x = seeds.normal(seeds.key("x"), (COUNT, SIZE), torch.float64)
    want = grad(lambda x: problems.loss(batch, x).sum())(x)
    torch.testing.assert_close(problems.gradient(batch, x), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("problems", KINDS)
def test_problems_are_drawn_from_the_key(problems) -> None:
    one, again, other = (problems.draw(seeds.key(name), COUNT, torch.float32) for name in "aab")
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)
    assert all(value.shape[0] == COUNT and value.dtype == torch.float32 for value in one.values())
    stacked = vmap(lambda key: problems.draw(key, COUNT, torch.float32))(torch.stack([seeds.key("a"), seeds.key("b")]))
    for name in one:
        torch.testing.assert_close(stacked[name], torch.stack([one[name], other[name]]))
    values = torch.cat([one[name].reshape(COUNT, -1)[:, :5] for name in one], 1).T
    assert float(torch.corrcoef(values).fill_diagonal_(0).abs().max()) < 1.0  # no entry is a copy of another


def test_spectra_are_log_uniform_and_turned() -> None:
    hessian = Quadratic(SIZE).draw(seeds.key("draw"), 2000, torch.float64)["hessian"]
    torch.testing.assert_close(hessian, hessian.transpose(-2, -1), rtol=1e-12, atol=1e-12)
    spectrum = torch.linalg.eigvalsh(hessian)
    assert float(spectrum.min()) >= 0.1 / 100
    assert float(spectrum.max()) < 10.0
    assert float(spectrum.log10().mean()) == pytest.approx(-0.5, abs=0.05)  # a log-uniform top around 1, half of log-uniform 1..100 below
    off_diagonal = hessian - torch.diag_embed(hessian.diagonal(dim1=-2, dim2=-1))
    assert float((off_diagonal.abs().amax((-2, -1)) / spectrum[:, -1]).median()) > 0.1


def test_a_tenth_of_the_labels_is_wrong() -> None:
    """Rows times labels lie on the true weights' side nine times of ten; the weights follow from many rows by regression."""
    problems = Logistic(SIZE)
    batch = problems.draw(seeds.key("draw"), 400, torch.float64)
    truth = seeds.normal(seeds.fold_in(seeds.key("draw"), 1), (400, SIZE, 1), torch.float64)
    right = ((batch["rows"] @ truth) > 0).double().mean()
    assert float(right) == pytest.approx(0.9, abs=0.01)
    assert batch["rows"].shape == (400, 4 * SIZE, SIZE)


def test_logistic_loss_is_log_two_at_zero() -> None:
    problems = Logistic(SIZE)
    batch = problems.draw(seeds.key("draw"), COUNT, torch.float64)
    torch.testing.assert_close(
        problems.loss(batch, torch.zeros(COUNT, SIZE, dtype=torch.float64)), torch.full((COUNT,), 2.0).double().log()
    )
