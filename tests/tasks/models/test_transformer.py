"""Causal transformers: attention against torch's, no look into the future, symbols as rows."""

import pytest
import torch
from torch import nn
from torch.func import grad, vmap
from torch.nn import functional as F

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.models.sequence import attention, embed
from metaopt.tasks.models.transformer import Transformer

V, L, M, B = 13, 6, 12, 3


def filled(model: Transformer, scale: float = 1.0):
    params = model.init(seeds.key("model"), torch.tensor(scale, dtype=torch.float64))
    return {name: value + 0.2 * seeds.normal(seeds.key(name), value.shape, torch.float64) for name, value in params.items()}


def net(**changes: object) -> Transformer:
    return Transformer(**({"symbols": V, "length": L, "width": M, "heads": 3, "hidden": 20, "layers": 2} | changes))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [1, 3, 4])
def test_attention_equals_torchs(heads: int, causal: bool) -> None:
    params, tokens = filled(net(heads=heads)), seeds.normal(seeds.key("t"), (B, L, M), torch.float64)

    def split(which: str) -> torch.Tensor:
        values = tokens @ params[f"layer0.{which}.weight"].T + params[f"layer0.{which}.bias"]
        return values.reshape(B, L, heads, M // heads).transpose(1, 2)

    read = F.scaled_dot_product_attention(split("query"), split("key"), split("value"), is_causal=causal).transpose(1, 2).reshape(B, L, M)
    want = read @ params["layer0.out.weight"].T + params["layer0.out.bias"]
    torch.testing.assert_close(attention(params, "layer0", tokens, heads, causal), want, rtol=1e-12, atol=1e-12)


def test_a_layer_equals_torchs_encoder_layer() -> None:
    """One pre-norm layer with rectified units is what `nn.TransformerEncoderLayer` computes under a causal mask."""
    model = net(layers=1, activation="relu")
    params, symbols = filled(model), seeds.randint(seeds.key("x"), (B, L), V)
    module = nn.TransformerEncoderLayer(M, 3, 20, dropout=0.0, activation="relu", batch_first=True, norm_first=True, dtype=torch.float64)
    ours = {
        "self_attn.in_proj": ("query", "key", "value"), "self_attn.out_proj": ("out",), "linear1": ("up",), "linear2": ("down",),
        "norm1": ("norm0",), "norm2": ("norm1",),
    }  # fmt: skip
    state = {}
    for theirs, names in ours.items():
        for kind in ("weight", "bias"):
            name = f"{theirs}_{kind}" if theirs.endswith("in_proj") else f"{theirs}.{kind}"
            state[name] = torch.cat([params[f"layer0.{which}.{kind}"] for which in names])
    module.load_state_dict(state)
    hidden = params["embed.weight"][symbols] + params["positions"]
    hidden = module(hidden, src_mask=nn.Transformer.generate_square_subsequent_mask(L, dtype=torch.float64), is_causal=True)
    hidden = F.layer_norm(hidden, (M,), params["norm.weight"], params["norm.bias"])
    want = hidden @ params["head.weight"].T + params["head.bias"]
    torch.testing.assert_close(model.apply(params, symbols), want.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_future_symbols_change_no_earlier_logits(norm: str) -> None:
    model = net(norm=norm)
    params, symbols = filled(model), seeds.randint(seeds.key("x"), (B, L), V)
    for place in range(L):
        changed = symbols.clone()
        changed[:, place] = (changed[:, place] + 1) % V
        one, two = model.apply(params, symbols), model.apply(params, changed)
        assert torch.equal(one[:, :place], two[:, :place])
        assert (one[:, place:] != two[:, place:]).any(-1).all()


def test_shorter_sequences_are_prefixes() -> None:
    model = net()
    params, symbols = filled(model), seeds.randint(seeds.key("x"), (B, L), V)
    torch.testing.assert_close(model.apply(params, symbols[:, :4]), model.apply(params, symbols)[:, :4], rtol=1e-12, atol=1e-12)


def test_embedding_is_a_lookup_with_the_gradient_of_one() -> None:
    table, symbols = seeds.normal(seeds.key("e"), (V, M), torch.float64), torch.tensor([[3, 3, 0], [12, 1, 3]])
    assert torch.equal(embed({"e.weight": table}, "e", symbols), table[symbols])
    weigh = seeds.normal(seeds.key("w"), (2, 3, M), torch.float64)
    got = grad(lambda t: (embed({"e.weight": t}, "e", symbols) * weigh).sum())(table)
    torch.testing.assert_close(got, torch.zeros_like(table).index_add(0, symbols.reshape(-1), weigh.reshape(-1, M)))


def test_particles_get_what_each_gets_alone() -> None:
    model = net(norm="rms_norm", activation="silu")

    def loss(params, symbols):
        return model.apply(params, symbols).square().mean()

    params = vmap(model.init)(torch.arange(4), torch.linspace(0.5, 1.5, 4, dtype=torch.float64))
    symbols = seeds.randint(seeds.key("x"), (4, B, L), V)
    together = vmap(grad(loss))(params, symbols)
    for i in range(4):
        for name, value in grad(loss)({k: v[i] for k, v in params.items()}, symbols[i]).items():
            torch.testing.assert_close(together[name][i], value, rtol=1e-9, atol=1e-12)


def test_initial_weights_have_the_declared_spread() -> None:
    params = Transformer(V, 50, 100, 4, 200, 1).init(seeds.key("m"), torch.tensor(1.5))
    for name, fan_in in (("query", 100), ("out", 100), ("up", 100), ("down", 200)):
        assert float(params[f"layer0.{name}.weight"].std()) * fan_in**0.5 == pytest.approx(1.5, rel=0.05)
    assert float(params["embed.weight"].std()) == pytest.approx(1.5, rel=0.1)
    assert float(params["positions"].std()) == pytest.approx(0.15, rel=0.1)
    assert Transformer.embeddings <= params.keys()
    weights = torch.stack([params[f"layer0.{name}.weight"].reshape(-1) for name in ("query", "key", "value", "out")])
    assert float(torch.corrcoef(weights).fill_diagonal_(0).abs().max()) < 0.05


def test_bad_parts_are_named() -> None:
    with pytest.raises(TaskError, match="Transformer heads must divide width, got 5 for 12"):
        net(heads=5)
    with pytest.raises(TaskError, match="model norm 'layernorm' is unknown; did you mean 'layer_norm'"):
        net(norm="layernorm")
