"""Nets that answer a sequence with one symbol: written out, what they can and cannot see, sizes of the start."""

import pytest
import torch

from metaopt import seeds
from metaopt.tasks.models.symbol_nets import LastPosition, SummedSymbols
from metaopt.tasks.models.transformer import Transformer

V, B = 11, 6
SUMMED = SummedSymbols(V, 5, 8)
LAST = LastPosition(Transformer(V, 2, 12, 3, 24, 1, "relu", norm="none"))
MODELS = (SUMMED, LAST)


def filled(model):
    params = model.init(seeds.key("model"), torch.tensor(1.0, dtype=torch.float64))
    return {name: value + 0.2 * seeds.normal(seeds.key(name), value.shape, torch.float64) for name, value in params.items()}


def symbols(name: str = "x") -> torch.Tensor:
    return seeds.randint(seeds.key(name), (B, 2), V)


def test_the_summed_net_written_out() -> None:
    params, x = filled(SUMMED), symbols()
    vectors = params["embed.weight"][x[:, 0]] + params["embed.weight"][x[:, 1]]
    hidden = (vectors @ params["layer0.weight"].T + params["layer0.bias"]).clamp(min=0.0)
    torch.testing.assert_close(SUMMED.apply(params, x), hidden @ params["layer1.weight"].T + params["layer1.bias"])


def test_the_summed_net_cannot_tell_the_order_and_the_transformer_can() -> None:
    x = symbols()
    summed, last = filled(SUMMED), filled(LAST)
    torch.testing.assert_close(SUMMED.apply(summed, x), SUMMED.apply(summed, x.flip(-1)))
    assert not torch.allclose(LAST.apply(last, x), LAST.apply(last, x.flip(-1)))


def test_the_answer_is_the_transformers_at_the_last_position_and_depends_on_the_first_symbol() -> None:
    params, x = filled(LAST), symbols()
    assert torch.equal(LAST.apply(params, x), LAST.net.apply(params, x)[:, 1])
    other = torch.stack([(x[:, 0] + 1) % V, x[:, 1]], -1)
    assert (LAST.apply(params, other) - LAST.apply(params, x)).abs().amax(-1).min() > 1e-6


@pytest.mark.parametrize("model", MODELS)
def test_looked_up_matrices_are_named_and_start_at_the_scale(model) -> None:
    one, two = (model.init(seeds.key("w"), torch.tensor(scale)) for scale in (1.0, 2.0))
    assert model.embeddings <= one.keys()
    torch.testing.assert_close(two["embed.weight"], 2.0 * one["embed.weight"])
    assert float(one["embed.weight"].std()) == pytest.approx(1.0, abs=0.3)
    assert model.apply(one, symbols()).shape == (B, V)
