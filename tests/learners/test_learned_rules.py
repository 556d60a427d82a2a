"""Learned rules: their sizes and parts, what they do with zeros and embeddings, and that they stay sane when training ends."""

import math

import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.learners.update_rules import CLASSIC, FEATURES, RULES, apply_rule, get_rule
from metaopt.learners.update_rules.features import factored_axes, network, random_network, signal_path, silent_output
from metaopt.learners.update_rules.newton_schulz import orthogonalised
from tests.learners.reference import Celo2Reference

LEARNED = [(name, {}) for name in RULES if name not in CLASSIC and name != "celo2_base"]
LEARNED += [("celo2_base", {"output": "graft"}), ("celo2_base", {"output": "rms"})]


def draws(*parts, shape, scale=1.0):
    return scale * seeds.normal(seeds.key("test", *parts), shape, torch.float64)


def count(rule: str, **options: object) -> tuple[int, int]:
    """Numbers in theta: of the network, and beside it."""
    sizes = [(name[0] in "wb" and name[1:].isdigit(), value.numel()) for name, value in get_rule(rule, **options).init_theta(0).items()]
    return sum(size for inside, size in sizes if inside), sum(size for inside, size in sizes if not inside)


def test_sizes_are_the_published_ones() -> None:
    assert count("mlp") == (1762, 0)
    assert count("celo2_base") == (347, 2)
    assert count("celo2") == (347, 1)
    assert count("small_fc") == (190, 7)
    assert count("small_fc", hidden=(32, 32)) == (2402, 7)
    assert count("small_fc", learn_decays=False) == (190, 0)
    assert count("star") == (200, 7)
    assert count("nn_adam")[1] == 4 * 32 * (19 + 32 + 1) + 33 * 4 + 2 * 32 + 4
    assert count("learnable_adam")[1] == 4
    assert count("lstm", inputs="dm", start="random", skip=False)[1] == 5141
    assert [len(FEATURES[name]) for name in ("mlp", "small_fc", "celo2_base", "celo2", "nn_adam", "star", "lstm")] == [
        19,
        39,
        30,
        30,
        19,
        39,
        2,
    ]


def state_bytes(rule: str, shape: tuple[int, ...], **options: object) -> int:
    return 4 * sum(value.numel() for value in get_rule(rule, **options).init_state(torch.zeros(shape)).values())


def test_states_have_the_published_sizes() -> None:
    assert state_bytes("mlp", (10, 3)) == 24 * 30
    assert state_bytes("small_fc", (10, 3)) == 16 * 30 + 3 * 4 * (10 + 3)  # and rows and columns for three decays
    assert state_bytes("small_fc", (10,)) == (16 + 12) * 10
    assert state_bytes("celo2", (10,)) == 8 * 10
    assert state_bytes("nn_adam", (10, 3)) == 8 * 30 + 4 * (4 + 2 * 32 + 2)


def test_random_network_is_scaled_and_bounded() -> None:
    theta = random_network((400, 100, 2), 0)
    assert float(theta["w0"].abs().max()) <= 2 / math.sqrt(400) * (1 + 1e-6)
    assert 0.85 / 20 < float(theta["w0"].std()) < 1 / 20  # clamping two-sided at 2 sd leaves 0.96 of it
    assert not theta["b0"].any()


@pytest.mark.parametrize("sizes", [(5, 4, 2), (5, 8, 6, 3), (5, 4, 4, 4, 1)])
def test_signal_path_carries_one_feature_exactly(sizes: tuple[int, ...]) -> None:
    theta = signal_path(random_network(sizes, 7), 3)
    features = draws("x", shape=(5, 11)).float()
    out = network(theta, features, torch.ones(5))
    assert torch.equal(out[0], features[3])
    assert not out[1:].any()


def test_silent_output_keeps_the_hidden_layers() -> None:
    theta = random_network((5, 4, 3), 7)
    silent = silent_output({**theta, "momentum_offset": torch.ones(3)})
    assert not network(silent, draws("x", shape=(5, 11)).float(), torch.ones(5)).any()
    assert all(torch.equal(silent[name], theta[name]) for name in ("w0", "b0"))
    assert silent["momentum_offset"].all()


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (1, 7), (7, 1)], ids=str)
def test_orthogonalised_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = draws("m", shape=shape)
    values = torch.linalg.svdvals(orthogonalised(1e3 * matrix))
    assert ((values > 0.65) & (values < 1.25)).all()
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    overlap = (left.T @ orthogonalised(matrix) @ right.T).diagonal()  # the singular vectors are the same
    torch.testing.assert_close(overlap.sort().values, values.sort().values, rtol=1e-6, atol=1e-6)


def test_orthogonalised_is_quiet_at_zero() -> None:
    zero = torch.zeros(3, 4, requires_grad=True)
    out = orthogonalised(zero)
    assert not out.any()
    assert torch.isfinite(torch.autograd.grad(out.sum(), zero)[0]).all()


def test_an_embedding_of_celo2_takes_the_steps_of_a_vector() -> None:
    rule, shape = get_rule("celo2", start="random"), (3, 4)
    theta = {name: value.double() for name, value in rule.init_theta(3).items()}
    expected = Celo2Reference({key: value.numpy() for key, value in theta.items()}, shape, {"output": "rms", "embedding": True})
    flat, table = rule.init_state(torch.zeros(12, dtype=torch.float64)), rule.init_embedding_state(torch.zeros(shape, dtype=torch.float64))
    for t in range(5):
        param, grad = draws("p", t, shape=shape), draws("g", t, shape=shape)
        step, table = rule.update(theta, param, grad, table, torch.tensor(t))
        same, flat = rule.update(theta, param.reshape(-1), grad.reshape(-1), flat, torch.tensor(t))
        torch.testing.assert_close(step.reshape(-1), same, rtol=1e-14, atol=0)
        torch.testing.assert_close(step, torch.as_tensor(expected.step(param.numpy(), grad.numpy())), rtol=1e-10, atol=1e-14)


def test_offsets_move_decays_as_published() -> None:
    """Offsets that take momenta to 0.542, 0.958 and 0.998, the published decays of muLO."""
    rule = get_rule("small_fc")
    goal, begin = torch.tensor([0.542, 0.958, 0.998]), torch.tensor([0.9, 0.99, 0.999])
    theta = {**rule.init_theta(0), "momentum_offset": torch.log((1 - goal) / (1 - begin)) / 10}
    param = torch.zeros(5)
    _, state = rule.update(theta, param, torch.ones(5), rule.init_state(param), torch.tensor(0))
    torch.testing.assert_close(state["m"][:, 0], 1 - goal, rtol=1e-4, atol=1e-6)
    far = {
        **rule.init_theta(0),
        **{f"{name}_offset": torch.full((k,), 9.0) for name, k in (("momentum", 3), ("second", 1), ("factored", 3))},
    }
    _, state = rule.update(far, param, torch.ones(5), rule.init_state(param), torch.tensor(0))
    assert (state["m"] == 1).all()  # a decay below 0 is taken as 0


def test_ties_are_ordered_by_index() -> None:
    assert [factored_axes(torch.Size(s)) for s in ((4, 4), (3, 5), (5, 3), (3, 3, 3), (5, 5, 2), (2, 9, 9, 1))] == [
        (1, 0), (1, 0), (0, 1), (2, 1), (1, 0), (2, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), [*LEARNED, ("sgd", {}), ("adamw", {}), ("nadam", {}), ("rmsprop", {})])
@pytest.mark.parametrize("bad", [0.0, math.inf, -math.inf, math.nan])
def test_lr_zero_returns_the_same_bits(name: str, options: dict[str, str], bad: float) -> None:
    rule = get_rule(name, **options)
    param = torch.tensor([[1.5, -0.0, 1e-40], [3.0, math.inf, 7.0]])
    grad = torch.full((2, 3), bad)
    for lr in (0.0, torch.tensor(0.0)):
        got, _ = apply_rule(rule, rule.init_theta(0), param, grad, rule.init_state(param), torch.tensor(0), lr, weight_decay=0.1)
        assert torch.equal(got.view(torch.int32), param.view(torch.int32))


def test_decoupled_decay_is_in_units_of_the_step() -> None:
    rule, param, grad = get_rule("sgd"), draws("p", shape=(3,)), draws("g", shape=(3,))
    got, _ = apply_rule(rule, {}, param, grad, rule.init_state(param), torch.tensor(0), 0.1, weight_decay=0.5)
    torch.testing.assert_close(got, param - 0.1 * (grad + 0.5 * param), rtol=1e-15, atol=0)


def late_losses(output: str) -> torch.Tensor:
    """Normalised train losses [T, 2] of the hand-set start for 1,500 steps on noise-free bowls that it solves in far fewer."""
    family = tasks.get("quadratic")
    bowls = [family.build(family.sample("10x1-none", seed, (1500, 1500))) for seed in (0, 1)]
    learner = learners.get("celo2_base", start="adam", output=output)
    theta = {**learner.init_theta(0), "log_step": torch.full((2,), math.log(0.03))}
    return inner.run(learner, theta, bowls, [0, 1], 1500).normalised


def test_late_training_with_graft_stays_solved_and_rms_does_not_settle() -> None:
    graft, rms = late_losses("graft"), late_losses("rms")
    assert torch.isfinite(graft).all()
    solved, last = graft[900:1000].mean(0), graft[-100:].mean(0)
    assert (solved < 1e-2).all()
    assert (last <= 1.05 * solved + 1e-6).all()  # does not rise again
    # A direction of unit RMS keeps stepping when the gradient is gone: finite, but orders of magnitude above.
    assert torch.isfinite(rms).all()
    assert (rms[-100:].mean(0) > 10 * last).all()


def test_late_training_on_digits_with_graft() -> None:
    family = tasks.get("digits_mlp")
    task = family.build(family.sample("16-tanh-b32", 0, (1000, 1000)))
    learner = learners.get("celo2_base", start="adam", output="graft")
    theta = {**learner.init_theta(0), "log_step": torch.full((2,), math.log(0.01))}
    losses = inner.run(learner, theta, [task], [0], 1000).normalised[:, 0]
    assert torch.isfinite(losses).all()
    assert float(losses[-100:].mean()) < 0.02
    assert float(losses[-100:].mean()) < float(losses[600:700].mean()) + 5e-3  # does not rise again
