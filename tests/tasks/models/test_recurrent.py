"""Recurrent layers against torch's own modules, and what their initial weights promise."""

import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from metaopt import seeds
from metaopt.errors import TaskError
from metaopt.tasks.models.recurrent import CELLS, RecurrentNet

V, E, H, L, B = 11, 5, 7, 6, 3
MODULES = {"rnn": nn.RNN, "irnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def filled(model: RecurrentNet, dtype: torch.dtype = torch.float64):
    """Return weights in which every bias has a value of its own."""
    params = model.init(seeds.key("model"), torch.tensor(1.0, dtype=dtype))
    return {name: value + 0.3 * seeds.normal(seeds.key(name), value.shape, dtype) for name, value in params.items()}


def torch_module(cell: str, params, layers: int) -> nn.Module:
    """Return torch's module with the same weights; its second bias is ours only where it stands inside GRU's candidate."""
    options = {"nonlinearity": "relu"} if cell == "irnn" else {}
    module = MODULES[cell](E, H, num_layers=layers, batch_first=True, dtype=torch.float64, **options)
    with torch.no_grad():
        for i in range(layers):
            getattr(module, f"weight_ih_l{i}").copy_(params[f"cell{i}.weight_ih"])
            getattr(module, f"weight_hh_l{i}").copy_(params[f"cell{i}.weight_hh"])
            getattr(module, f"bias_ih_l{i}").copy_(params[f"cell{i}.bias"])
            second = getattr(module, f"bias_hh_l{i}").zero_()
            if cell == "gru":
                second[2 * H :] = params[f"cell{i}.bias_hn"]
    return module


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_layers_and_their_gradients_equal_torch(cell: str, layers: int) -> None:
    model = RecurrentNet(cell, V, E, H, layers)
    params = filled(model)
    symbols = seeds.randint(seeds.key("x"), (B, L), V)
    module = torch_module(cell, params, layers)
    inputs = params["embed.weight"][symbols].requires_grad_()
    want = module(inputs)[0] @ params["head.weight"].T + params["head.bias"]
    torch.testing.assert_close(model.apply(params, symbols), want.detach(), rtol=1e-12, atol=1e-12)

    weigh = seeds.normal(seeds.key("w"), (B, L, V), torch.float64)
    grads = grad(lambda p: (model.apply(p, symbols) * weigh).sum())(params)
    (want * weigh).sum().backward()
    for i in range(layers):
        for ours, theirs in (("weight_ih", "weight_ih"), ("weight_hh", "weight_hh"), ("bias", "bias_ih")):
            torch.testing.assert_close(grads[f"cell{i}.{ours}"], getattr(module, f"{theirs}_l{i}").grad, rtol=1e-10, atol=1e-10)
    rows = torch.zeros_like(params["embed.weight"]).index_add(0, symbols.reshape(-1), inputs.grad.reshape(-1, E))
    torch.testing.assert_close(grads["embed.weight"], rows, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_float32_agrees_with_torch_to_rounding(cell: str) -> None:
    model = RecurrentNet(cell, V, E, H)
    params, symbols = filled(model, torch.float32), seeds.randint(seeds.key("x"), (B, L), V)
    fine = {name: value.double() for name, value in params.items()}
    want = torch_module(cell, fine, 1)(fine["embed.weight"][symbols])[0] @ fine["head.weight"].T + fine["head.bias"]
    torch.testing.assert_close(model.apply(params, symbols).double(), want.detach(), rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_later_symbols_change_no_earlier_logits(cell: str) -> None:
    model = RecurrentNet(cell, V, E, H, 2)
    params, symbols = filled(model), seeds.randint(seeds.key("x"), (B, L), V)
    changed = symbols.clone()
    changed[:, 3] = (changed[:, 3] + 1) % V
    one, two = model.apply(params, symbols), model.apply(params, changed)
    assert torch.equal(one[:, :3], two[:, :3])
    assert (one[:, 3:] != two[:, 3:]).any(-1).all()  # every later position remembers


@pytest.mark.parametrize("cell", CELLS)
def test_particles_get_what_each_gets_alone(cell: str) -> None:
    model = RecurrentNet(cell, V, E, H)
    params = vmap(model.init)(torch.arange(4), torch.linspace(0.5, 2.0, 4, dtype=torch.float64))
    symbols = seeds.randint(seeds.key("x"), (4, B, L), V)
    together = vmap(grad(lambda p, x: model.apply(p, x).square().mean()))(params, symbols)
    for i in range(4):
        alone = grad(lambda p, x: model.apply(p, x).square().mean())({k: v[i] for k, v in params.items()}, symbols[i])
        for name, value in alone.items():
            torch.testing.assert_close(together[name][i], value, rtol=1e-9, atol=1e-12)


def test_initial_weights_are_those_of_each_cell() -> None:
    scale = torch.tensor(1.5)
    nets = {cell: RecurrentNet(cell, 64, 100, 150).init(seeds.key("m"), scale) for cell in CELLS}
    for cell, params in nets.items():
        gates = {"rnn": 1, "irnn": 1, "gru": 3, "lstm": 4}[cell]
        assert params["cell0.weight_ih"].shape == (gates * 150, 100)
        assert float(params["embed.weight"].std()) == pytest.approx(1.5, rel=0.05)
        share = 0.1 if cell == "irnn" else 1.0
        assert float(params["cell0.weight_ih"].std()) * 100**0.5 == pytest.approx(1.5 * share, rel=0.05)
        assert float(params["head.weight"].std()) * 150**0.5 == pytest.approx(1.5, rel=0.05)
        if cell != "irnn":
            assert float(params["cell0.weight_hh"].std()) * 150**0.5 == pytest.approx(1.5, rel=0.05)
    assert torch.equal(nets["irnn"]["cell0.weight_hh"], torch.eye(150))
    assert nets["lstm"]["cell0.bias"].reshape(4, 150).sum(1).tolist() == [0, 150, 0, 0]  # torch's order: input, forget, cell, output
    assert not nets["gru"]["cell0.bias"].any()
    assert set(nets["gru"]) - set(nets["rnn"]) == {"cell0.bias_hn"}


def test_an_irnn_begins_by_adding_up() -> None:
    """With identity recurrence and inputs that only add, the state is the running sum of what came in."""
    model = RecurrentNet("irnn", V, E, E)
    params = model.init(seeds.key("m"), torch.tensor(1.0, dtype=torch.float64))
    inputs = seeds.uniform(seeds.key("in"), (B, L, E), torch.float64)
    states = model.run({**params, "cell0.weight_ih": torch.eye(E, dtype=torch.float64)}, "cell0", inputs)
    torch.testing.assert_close(states, inputs.cumsum(1))


def test_unknown_cells_are_named() -> None:
    with pytest.raises(TaskError, match=r"RecurrentNet cell 'lsmt' is unknown; did you mean 'lstm'\? known: rnn, irnn, gru, lstm"):
        RecurrentNet("lsmt", V, E, H)
