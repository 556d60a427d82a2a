"""A cell that imitates backpropagation: known to be right when set by hand, and found by training."""

import math
import runpy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from metaopt import seeds
from metaopt.errors import ConfigError
from metaopt.learners.per_weight import cloning
from metaopt.learners.per_weight.cell import CellSpec
from metaopt.learners.per_weight.cloning import CloneCell, CloneTraining, clone, clone_loss, clone_network, hand_set_theta, update_cosine
from metaopt.learners.per_weight.network import NetworkSpec, fresh_state, predict, present

STEP = 0.1


def setting(size: float = 0.25, step: float = STEP, shift: float = 0.25, ticks: int = 2) -> tuple[CloneCell, dict[str, Tensor]]:
    cell = CloneCell(CellSpec(), size)
    return cell, {name: value.double() for name, value in hand_set_theta(cell, step, ticks, shift).items()}


def mlp(edges: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    for weight, bias in edges:
        x = torch.tanh(x) @ weight[0] + bias[0].sum(0)
    return x


def stored(cell: CloneCell, spec: NetworkSpec, state: dict[str, dict[str, dict[str, Tensor]]]) -> list[tuple[Tensor, Tensor]]:
    return [cell.stored(state["edges"][name]) for name in spec.names]


def test_what_is_stored_is_read() -> None:
    cell = CloneCell(CellSpec(), 0.1)
    weight, bias = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state = cell.store(weight, bias)
    assert state["c"].shape == (3, 4, 16)
    assert torch.allclose(cell.stored(state)[0], weight)
    assert torch.allclose(cell.stored(state)[1], bias)
    assert not state["h"].any()


def test_a_fresh_network_stores_small_weights_of_the_right_size() -> None:
    cell, theta = setting()
    spec = clone_network(100, 3, (40,))
    weight, bias = stored(cell, spec, fresh_state(spec, cell, theta, seeds.key("fresh")))[0]
    assert weight.shape == (1, 100, 40)
    assert not bias.any()
    assert 0.07 < float(weight.std()) < 0.1, "variance 1 / fan-in, cut at two deviations"


@pytest.mark.parametrize("hidden", [(), (6,), (5, 4)])
def test_the_forward_sweep_is_an_mlp(hidden: tuple[int, ...]) -> None:
    errors = []
    for size in (0.1, 0.01):
        cell, theta = setting(size)
        spec = clone_network(8, 3, hidden)
        state = fresh_state(spec, cell, theta, seeds.key("mlp"))
        x = seeds.normal(seeds.key("x"), (1, 8), torch.float64)
        after, logits = predict(spec, cell, theta, state, x)
        expected = mlp(stored(cell, spec, state), x)
        errors.append(float((logits - expected).abs().max() / expected.abs().max()))
        for old, new in zip(stored(cell, spec, state), stored(cell, spec, after), strict=True):
            assert torch.allclose(old[0], new[0], atol=1e-6), "no error, no change"
    assert errors[0] < 1e-2
    assert errors[1] < errors[0] / 50, "of second order in size"


@pytest.mark.parametrize("ticks", [1, 2, 3])
def test_one_layer_changes_by_the_gradient(ticks: int) -> None:
    errors = []
    for size in (0.1, 0.01):
        cell, theta = setting(size, ticks=ticks)
        spec = clone_network(5, 3, (), ticks)
        state = fresh_state(spec, cell, theta, seeds.key("one"))
        x, y = seeds.normal(seeds.key("x"), (1, 5), torch.float64), torch.tensor([2])
        (weight, bias), ((new_weight, new_bias),) = (
            stored(cell, spec, state)[0],
            stored(cell, spec, present(spec, cell, theta, state, x, y)[0]),
        )
        weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        gradient = torch.autograd.grad(F.cross_entropy(mlp([(weight, bias)], x), y), (weight, bias))
        change = torch.cat([(new_weight - weight).detach().flatten(), (new_bias - bias).detach().flatten()])
        wanted = -STEP * torch.cat([part.flatten() for part in gradient])
        errors.append(float((change - wanted).norm() / wanted.norm()))
    assert errors[0] < 2e-2
    assert errors[1] < errors[0] / 20


@pytest.mark.parametrize(("inputs", "hidden", "classes"), [(8, (6,), 3), (20, (16,), 5), (8, (6, 6), 3), (3, (30,), 2)])
def test_deep_networks_change_along_the_gradient(inputs: int, hidden: tuple[int, ...], classes: int) -> None:
    spec, deviations = clone_network(inputs, classes, hidden), []
    for step in (STEP, STEP / 10):
        cell, theta = setting(0.05, step, 0.05)
        cosine = update_cosine(cell, theta, spec, seeds.key("deep", inputs), 6)
        deviations.append(float((1.0 - cosine**2).clamp(min=0).sqrt().mean()))
    assert deviations[0] < 0.2, "messages go down from weights that have changed by one step already"
    assert deviations[1] < deviations[0] / 5, "of first order in the step"


def test_single_precision_is_enough() -> None:
    cell = CloneCell()
    theta = hand_set_theta(cell, STEP)
    assert float(update_cosine(cell, theta, clone_network(20, 5, (16,)), seeds.key("single"), 10).min()) > 0.98


def test_a_cloned_network_learns() -> None:
    cell = CloneCell()
    theta, spec, key = hand_set_theta(cell, STEP), clone_network(6, 2, (8,)), seeds.key("learns")
    teacher = seeds.normal(key, (6, 2))
    state, right = fresh_state(spec, cell, theta, key), []
    for k in range(200):
        x = seeds.normal(seeds.fold_in(key, k), (1, 6))
        y = (x @ teacher).argmax(-1)
        state, logits = present(spec, cell, theta, state, x, y)
        right.append(float(logits.argmax(-1) == y))
    assert sum(right[-100:]) > 85


def test_the_loss_tells_good_cells_from_bad() -> None:
    cell = CloneCell()
    good = {name.removeprefix("cell."): value.requires_grad_() for name, value in hand_set_theta(cell, STEP).items()}
    bad = {name: torch.randn(value.shape, generator=torch.Generator().manual_seed(0)) * 0.2 for name, value in good.items()}
    state = cloning._random_edges(cell, seeds.key("edges"), 256)
    losses = [clone_loss(cell, theta, state, seeds.key("messages"), STEP, 2) for theta in (good, bad)]
    assert float(losses[0][0].detach()) < 0.01 < 0.3 < float(losses[1][0])
    assert not losses[0][1]["c"].requires_grad
    losses[0][0].backward()
    assert good["forward_out"].grad is not None
    assert bool((good["forward_out"].grad[0, 4:] != 0).all()), "units beyond the four can be switched on"


def test_edges_begin_anew() -> None:
    cell, key = CloneCell(), seeds.key("renewed")
    state = cloning._random_edges(cell, key, 400)
    kept = cloning._renewed(cell, state, key, 0.0)
    assert torch.equal(kept["c"], state["c"])
    some = (cloning._renewed(cell, state, key, 0.25)["c"] != state["c"]).any(-1).float().mean()
    assert 0.15 < float(some) < 0.35
    broken = {"h": state["h"], "c": state["c"].clone()}
    broken["c"][0] = math.nan
    broken["c"][1, ..., 0] = 9.0
    healed = cloning._renewed(cell, broken, key, 0.0)
    assert torch.isfinite(healed["c"]).all()
    assert float(cell.stored(healed)[0].abs().max()) < 4.0
    assert torch.equal(healed["c"][2:], state["c"][2:])


def test_training_is_reproducible_and_improves_a_cell() -> None:
    cell, training = CloneCell(CellSpec(state=8, message=2), 0.5), CloneTraining(step=0.3, edges=64, updates=20, rate=1e-3)
    start = hand_set_theta(cell, training.step)
    start["cell.bias"][:4] += 0.02  # weights drift without any error
    theta, losses = clone(cell, 0, training, start)
    again, _ = clone(cell, 0, training, start)
    assert all(torch.equal(theta[name], again[name]) for name in start)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize("bad", [{"spec": CellSpec(state=3)}, {"spec": CellSpec(layer_norm=True)}, {"size": 0.0}])
def test_a_cell_that_cannot_store_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="a cloned cell needs state >= 4, no layer_norm and size > 0"):
        CloneCell(**bad)


def test_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "clone_backpropagation.py"))["main"]
    assert script([str(tmp_path / "theta"), "--start", "hand_set", "--updates", "0"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 4
    assert all(float(line.split("lowest ")[1]) > 0.95 for line in shown)
    assert safetensors.torch.load_file(tmp_path / "theta").keys() == hand_set_theta(CloneCell(), STEP).keys()
    assert script([str(tmp_path / "theta"), "--state", "3"]) == 2
    assert "clone_backpropagation: a cloned cell needs state >= 4" in capsys.readouterr().err


@pytest.mark.slow
def test_training_from_random_weights_goes_towards_it() -> None:
    cell = CloneCell(CellSpec(message=2, input_bias=0.0, forget_bias=8.0), 0.5)
    _, losses = clone(cell, 0, CloneTraining(step=0.3, updates=300))
    assert sum(losses[-50:]) / 50 < 0.2 * sum(losses[:100]) / 100
