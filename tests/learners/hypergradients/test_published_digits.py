"""The published digits table, and the promise of our links on the same task."""

import pytest
import torch

from tests.learners.hypergradients.published_digits import PUBLISHED, RATES, errors


def test_one_level_mends_a_rate_of_1e_4_and_plain_descent_does_not():
    plain, tower = (errors(height, (1e-4,), (0,))[0] for height in (0, 1))
    assert float(plain) > 75
    assert float(tower) < 7


@pytest.mark.slow
@pytest.mark.parametrize("height", PUBLISHED)
def test_the_published_errors_lie_within_a_deviation_of_ours(height):
    error, _ = errors(height, RATES, range(10))
    for found, published in zip(error, PUBLISHED[height], strict=False):
        assert abs(float(found.mean()) - published) <= float(found.std())  # over splits, weights and batches


@pytest.mark.slow
@pytest.mark.parametrize("height", [1, 2, 3, 4, 5])
def test_with_log_links_no_rate_is_negative_or_not_a_number(height):
    """Ten seeds from every decade between 1e-6 and 1e1, at every step; the published implementation gives NaN at rate 1 and height 5."""
    error, rates = errors(height, [10.0**power for power in range(-6, 2)], range(10), link="log")
    assert bool(torch.isfinite(rates).all())
    assert float(rates.min()) > 0
    assert float(error[:7].mean(1).max()) < 7  # all but the largest end as well as from a good rate
