"""Statistics that are summed up block by block are those of `unitless`, whatever the size of a block."""

import math

import pytest
import torch

from metaopt.learners.policies import unitless_blocks
from metaopt.learners.policies.unitless import STATISTICS, mean_statistics, tensor_statistics
from metaopt.learners.policies.unitless_blocks import BLOCK, Block, blocks, largest, mean_block_statistics, sum_blocks, summed_statistics
from metaopt.seeds import key, normal

EPS, RATE = 0.4, 3e-3


def tensors(size, seed=0, dtype=torch.float32):
    """Gradient, momentum, denominator, update and weights [size]."""
    grad, other, update, param = (normal(key("blocks", seed, i), (size,), torch.float64).to(dtype) for i in range(4))
    return grad, 0.3 * grad + 0.1 * other, other.abs(), update, param


def statistics(grad, momentum, denominator, update, param, eps=EPS, rate=RATE, clip=1.0):
    def make(part):
        return Block(grad[part], momentum[part], denominator[part], eps, update[part], param[part], rate)

    return summed_statistics([sum_blocks(largest(grad), grad.numel(), make)], clip)[0]


def wanted(grad, momentum, denominator, update, param, eps=EPS, rate=RATE, clip=1.0):
    return tensor_statistics(*(x.double() for x in (grad, momentum, denominator)), eps, update.double(), param.double(), rate, clip)


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 64, 1001])
@pytest.mark.parametrize("block", [1, 3, 64, BLOCK])
def test_blocks_give_what_the_whole_tensor_does(size, block, monkeypatch):
    if size > 64 and block == 1:
        return
    monkeypatch.setattr(unitless_blocks, "BLOCK", block)
    given = tensors(size)
    assert_close(statistics(*given), wanted(*given))
    assert_close(statistics(*given, clip=0.5), wanted(*given, clip=0.5))


def test_a_large_tensor_is_cut():
    size = 2 * BLOCK + 12345
    assert [(part.start, part.stop) for part in blocks(size)] == [(0, BLOCK), (BLOCK, 2 * BLOCK), (2 * BLOCK, size)]
    given = tensors(size)
    assert_close(statistics(*given), wanted(*given))


@pytest.mark.parametrize("zero", range(5))
def test_degenerate_input_has_the_same_meaning(zero):
    given = list(tensors(40))
    given[zero] = torch.zeros(40)
    assert_close(statistics(*given), wanted(*given))
    nothing = [torch.zeros(40)] * 5
    assert_close(statistics(*nothing), wanted(*nothing))
    same = list(tensors(40))
    same[1] = same[0]
    assert_close(statistics(*same), wanted(*same))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_not_hidden(bad):
    for place in (0, 1, 3, 4):
        given = [x.clone() for x in tensors(40)]
        given[place][7] = bad
        found, expected = statistics(*given), wanted(*given)
        assert not torch.isfinite(found).all()
        finite = torch.isfinite(expected)
        assert_close(found[finite], expected[finite])


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**-20, 2.0**20, 2.0**100])
def test_the_unit_of_the_gradient_changes_no_bit(scale):
    """Also where squares of float32 would vanish or overflow; epsilon and denominator have the unit too."""
    grad, momentum, denominator, update, param = tensors(1001)
    plain = statistics(grad, momentum, denominator, update, param)
    assert torch.equal(statistics(grad * scale, momentum * scale, denominator * scale, update, param, EPS * scale), plain)


def test_without_a_denominator_nothing_is_ruled_by_epsilon():
    grad, momentum, _, update, param = tensors(50)
    found = sum_blocks(largest(grad), 50, lambda part: Block(grad[part], momentum[part], None, 0.0, update[part], param[part], RATE))
    assert summed_statistics([found])[0, STATISTICS.index("sqrt_v_hat_gt_epsilon")] == 1


def test_the_mean_over_tensors_is_the_unweighted_one():
    lists = [[x.reshape(shape) for x in tensors(math.prod(shape), seed)] for seed, shape in enumerate([(3, 5), (7,), (2, 2, 2)])]
    grads, momenta, denominators, updates, params = (list(column) for column in zip(*lists, strict=True))
    eps, rates = torch.tensor([0.1, 0.5, 1.0]), torch.tensor([1e-3, 0.5, 0.0])
    arguments = (grads, momenta, denominators, eps, updates, params, rates, torch.tensor(0.5))
    assert_close(mean_block_statistics(*arguments).float(), mean_statistics(*arguments))


def test_the_largest_entry():
    assert largest(torch.tensor([1.0, -3.0])) == 3.0
    assert largest(torch.tensor([4.0, -3.0])) == 4.0
    assert math.isnan(largest(torch.tensor([4.0, math.nan])))
