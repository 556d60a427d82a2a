"""Schedules tuned at look-aheads on the small network, made smaller."""

import pytest
import torch

from metaopt.estimators.short_horizon import network_task
from metaopt.estimators.short_horizon.offline import decay_rates, offline

TASK = network_task(batch_size=8, width=16)


@pytest.fixture(scope="module")
def found():
    return offline(TASK, 160, (80, 8, 160), settings=10, inner_seeds=(0, 1))


def test_rows_are_the_look_aheads_with_their_losses(found):
    assert [row.look_ahead for row in found.rows] == [8, 80, 160]
    assert {0, 8, 80, 160} <= set(found.moments)
    assert list(found.moments) == sorted(set(found.moments))
    for row in found.rows:
        assert row.start.shape == row.power.shape == (2,)
        assert row.losses.shape == (len(found.moments), 2)
        assert found.at(row, 80) == row.losses[found.moments.index(80)].tolist()
        assert (row.start >= 10**-3.0).all()
        assert (row.start <= 10**-0.3).all()
        assert (row.power >= 10**-2.0).all()
        assert (row.power <= 10**2.3).all()


def test_all_rows_of_a_seed_begin_alike_and_seeds_differ(found):
    begins = torch.stack([row.losses[0] for row in found.rows])
    assert torch.allclose(begins, begins[:1].expand_as(begins), atol=1e-5)
    assert begins[0, 0] != begins[0, 1]


def test_whoever_looks_to_the_end_ends_no_worse(found):
    short, *_, long = (sum(found.at(row, 160)) for row in found.rows)
    assert long < short


def test_the_same_experiment_twice_is_the_same(found):
    again = offline(TASK, 160, (8, 80, 160), settings=10, inner_seeds=(0, 1))
    for one, two in zip(found.rows, again.rows, strict=True):
        assert torch.equal(one.losses, two.losses)
        assert torch.equal(one.start, two.start)


def test_a_decay_halves_by_its_power():
    rates = decay_rates(torch.tensor([0.4, 0.2]), torch.tensor([1.0, 2.0]), 40.0)
    assert rates(0)[0].tolist() == pytest.approx([0.4, 0.2])
    assert rates(40)[0].tolist() == pytest.approx([0.2, 0.05])
    assert rates(0)[1] == 0.9
