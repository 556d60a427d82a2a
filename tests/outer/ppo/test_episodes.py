"""Whole episodes: joining, choosing and packing."""

from dataclasses import replace

import pytest
import torch

from metaopt.outer.ppo.episodes import Episodes, pack
from tests.outer.ppo.sequences import networks, played

NETWORK, CRITIC = networks()


def test_join_pads_and_keeps_the_order() -> None:
    a, b = played([3, 5], NETWORK, CRITIC, seed=4), played([2, 7, 1], NETWORK, CRITIC, seed=3)
    joined = Episodes.join([a, b])
    assert joined.valid.shape == (7, 5)
    assert joined.valid.sum(0).tolist() == [3, 5, 2, 7, 1]
    assert joined.decisions == 18
    assert joined.version == 3
    for part, start in ((a, 0), (b, 2)):
        steps, count = part.valid.shape
        for name in ("pi", "v", "action", "log_prob", "value", "reward"):
            got = getattr(joined, name)[:steps, start : start + count]
            assert torch.equal(got[part.valid], getattr(part, name)[part.valid])
        assert torch.equal(joined.head_mask[start : start + count], part.head_mask)
        assert torch.equal(joined.bootstrap[start : start + count], part.bootstrap)


def test_select_undoes_join() -> None:
    a, b = played([3, 5], NETWORK, CRITIC, seed=4), played([5, 2], NETWORK, CRITIC, seed=3)
    again = Episodes.join([a, b]).select(torch.tensor([0, 1]))
    assert torch.equal(again.pi[a.valid], a.pi[a.valid])
    assert torch.equal(again.head_mask, a.head_mask)


def test_packing_takes_every_decision_once_longest_episodes_first() -> None:
    episodes = played([3, 5, 1, 5], NETWORK, CRITIC)
    packing = pack(episodes.valid)
    assert packing.sizes == (4, 3, 3, 2, 2)
    assert packing.episode.tolist() == [1, 3, 0, 2, 1, 3, 0, 1, 3, 0, 1, 3, 1, 3]
    place = [(t, e) for t, n in enumerate(packing.sizes) for e in [1, 3, 0, 2][:n]]
    assert packing.row.tolist() == [t * 4 + e for t, e in place]
    assert torch.equal(packing.take(episodes.pi), torch.stack([episodes.pi[t, e] for t, e in place]))
    assert torch.equal(packing.put(packing.take(episodes.reward), episodes.valid)[episodes.valid], episodes.reward[episodes.valid])


def test_packing_of_some_episodes_keeps_their_order_and_drops_empty_ones() -> None:
    valid = torch.arange(4).unsqueeze(-1) < torch.tensor([2, 4, 0, 2])
    assert pack(valid, torch.tensor([3, 2, 0])).episode.tolist() == [3, 0, 3, 0]
    assert pack(valid, torch.tensor([3, 2, 0])).sizes == (2, 2)


def test_put_leaves_zeros() -> None:
    valid = torch.arange(3).unsqueeze(-1) < torch.tensor([1, 3])
    packing = pack(valid)
    assert packing.put(torch.ones(4), valid).tolist() == [[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": torch.zeros(4, 2)}, r"Episodes.reward must begin with \[T, E\] = \[5, 2\]"),
        ({"bootstrap": torch.zeros(3)}, "Episodes.bootstrap must have E = 2 rows, got 3"),
        ({"valid": torch.tensor([[True, True]] * 2 + [[False, True]] + [[True, True]] * 2)}, "must not become True again"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(played([3, 5], NETWORK, CRITIC), **change)
