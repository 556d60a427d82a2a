"""A JAX checkpoint becomes an artifact with the same numbers, that makes the same steps; what does not fit is named."""

import copy
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metaopt
from metaopt.artifacts import convert_jax
from metaopt.artifacts.jax_tables import TABLES
from metaopt.errors import ConfigError, MetaoptError, UnsafeArtifactError
from metaopt.learners.update_rules import MODEL_RULES, get_model_rule, get_rule
from tests.artifacts.flax_writer import in_pieces, write
from tests.artifacts.jax_trees import TREES, NumpyMLP, NumpySmallFC, celo_tree, draw, mlp_tree, rnn_mlp_tree, small_fc_tree, velo_tree


def converted(tmp_path: Path, tree: Any, **arguments: Any) -> metaopt.Artifact:
    return metaopt.load(convert_jax(write(tmp_path / "theta.state", tree), tmp_path / "artifact", **arguments))


def weights(tmp_path: Path, tree: Any, **arguments: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {name: value.numpy() for name, value in converted(tmp_path, tree, **arguments).weights.items()}


def refusal(tmp_path: Path, tree: Any, kind: type[MetaoptError] = UnsafeArtifactError, **arguments: Any) -> str:
    with pytest.raises(kind) as caught:
        convert_jax(write(tmp_path / "theta.state", tree), tmp_path / "artifact", **arguments)
    assert not (tmp_path / "artifact").exists(), "nothing is written where something is wrong"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leaves(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(tree, dict):
        return [path]
    return [leaf for key, value in tree.items() for leaf in leaves(value, (*path, key))]


def without(tree: Any, path: tuple[str, ...]) -> Any:
    tree = copy.deepcopy(tree)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return tree


@pytest.mark.parametrize("kind", TREES)
def test_every_kind_is_recognised_and_fits_its_rule(tmp_path: Path, kind: str) -> None:
    tree = TREES[kind]()
    artifact = converted(tmp_path, tree)
    rule = artifact.card["rule"]
    assert rule["name"] == TABLES[kind].rule
    built = get_model_rule(rule["name"], **rule["options"]) if rule["name"] in MODEL_RULES else get_rule(rule["name"], **rule["options"])
    theta = built.init_theta(0)
    assert {name: (value.shape, value.dtype) for name, value in theta.items()} == {
        name: (value.shape, value.dtype) for name, value in artifact.weights.items()
    }
    ignored = sum(tree["rnn_params"][path.split("/")[1]][path.split("/")[2]].size for path in TABLES[kind].ignored)
    read = sum(np.size(leaf(tree, path)) for path in leaves(tree)) - ignored
    assert read == sum(value.numel() for value in artifact.weights.values()), "every number is used once"


def leaf(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def test_velo_number_by_number(tmp_path: Path) -> None:
    tree = velo_tree(units=6, networks=3)
    theta, rnn, stack = weights(tmp_path, tree), tree["rnn_params"], tree["ff_mod_stack"]["~"]
    x, h = draw(6, seed=8), draw(6, seed=9)
    gates = np.concatenate([x, h]) @ rnn["rnn/linear"]["w"] + rnn["rnn/linear"]["b"]
    ours = theta["lstm_input_weight"] @ x + theta["lstm_hidden_weight"] @ h + theta["lstm_gate_bias"]
    assert np.allclose(ours, gates, atol=1e-6)
    for name, layer in {"lstm_pool": "linear_1", "lstm_project": "linear_2", "mixture": "rnn_to_controls", "rate": "step_size"}.items():
        assert np.array_equal(theta[f"{name}_weight"], rnn[layer]["w"].T)
        assert np.array_equal(theta[f"{name}_bias"], rnn[layer]["b"])
    for name in ("hidden", "cell"):
        assert np.array_equal(theta[f"lstm_initial_{name}"], tree["lstm_init_state"][name][0])
    assert theta["bank_w0"].shape == (3, 4, 30)
    assert np.array_equal(theta["bank_w0"][2, :, 3:6], stack["w0__3"][2].T), "the fourth group are three momenta"
    assert np.array_equal(theta["bank_w0"][1, :, 29], stack["w0__13"][1, 2])
    for i in (1, 2):
        assert np.array_equal(theta[f"bank_w{i}"], stack[f"w{i}"].swapaxes(1, 2))
    assert all(np.array_equal(theta[f"bank_b{i}"], stack[f"b{i}"]) for i in range(3))


def test_celo_is_one_network_without_coefficients(tmp_path: Path) -> None:
    tree = celo_tree()
    theta, stack = weights(tmp_path, tree), tree["ff_mod_stack"]["~"]
    assert np.array_equal(theta["rule_w0"][:, 2], stack["w0__2"][0, 0])
    assert np.array_equal(theta["rule_w2"], stack["w2"][0].T)
    assert np.array_equal(theta["rule_b1"], stack["b1"][0])
    assert np.array_equal(theta["schedule_head_weight"], tree["rnn_params"]["step_size"]["w"].T)
    assert np.array_equal(theta["schedule_project_weight"], tree["rnn_params"]["linear_2"]["w"].T)


def test_rnn_mlp_number_by_number(tmp_path: Path) -> None:
    tree = rnn_mlp_tree(units=6)
    theta, gates = weights(tmp_path, tree), tree["rnn_params"]["rnn/linear"]
    x, h = draw(52, seed=8), draw(6, seed=9)
    ours = theta["input_weight"] @ x + theta["hidden_weight"] @ h + theta["gate_bias"]
    assert np.allclose(ours, np.concatenate([x, h]) @ gates["w"] + gates["b"], atol=1e-5)
    assert np.array_equal(theta["to_mlp_weight"], tree["rnn_to_ff_params"]["rnn_to_ff"]["w"].T)
    assert np.array_equal(theta["to_lstms_bias"], tree["rnn_to_in_params"]["rnn_to_in"]["b"])
    assert np.array_equal(theta["initial_from_lstms"], tree["initial_from_lstm"])
    assert np.array_equal(theta["initial_from_mlp"], tree["initial_from_mlp"])
    assert np.array_equal(theta["w1"], tree["ffmod_params"]["mlp/~/linear_1"]["w"].T)


@pytest.mark.parametrize(("tree", "numpy_rule"), [(mlp_tree(), NumpyMLP), (small_fc_tree(), NumpySmallFC)])
@pytest.mark.parametrize("shape", [(), (5,), (4, 3), (3, 4)])
def test_a_converted_rule_steps_as_the_release_does(tmp_path: Path, tree: Any, numpy_rule: Any, shape: tuple[int, ...]) -> None:
    artifact = converted(tmp_path, tree)
    rule = get_rule(artifact.card["rule"]["name"], **artifact.card["rule"]["options"])
    theta = {name: value.double() for name, value in artifact.weights.items()}
    reference, rng = numpy_rule(tree, shape), np.random.default_rng(3)
    param = torch.tensor(rng.standard_normal(shape))
    state = rule.init_state(param)
    for t in range(20):
        grad = torch.tensor(rng.standard_normal(shape))
        step, state = rule.update(theta, param, grad, state, torch.tensor(t))
        expected = reference.step(param.numpy(), grad.numpy()).reshape(shape)
        assert np.allclose(step.numpy(), expected, rtol=1e-6, atol=1e-15)
        param = param - 10.0 * step


def test_an_artifact_of_a_small_rule_runs(tmp_path: Path) -> None:
    path = convert_jax(write(tmp_path / "theta.state", small_fc_tree()), tmp_path / "mine", step_mult=0.01)
    param = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = metaopt.optim.LearnedOptimizer([param], artifact=path)
    (param**2).sum().backward()
    optimizer.step()
    assert not torch.equal(param.detach(), torch.ones(3, 2))
    card = metaopt.load(path).card
    assert card["name"] == "mine"
    assert card["rule"]["options"] == {"hidden": [4, 4], "step_mult": 0.01}
    assert card["limits"]["notes"][0].startswith("converted from the JAX checkpoint theta.state, sha256 ")
    assert card["licence"] == "that of the checkpoint"
    assert len(card["features"]) == 39


def test_what_a_rule_reads_is_in_the_card(tmp_path: Path) -> None:
    limits = {kind: converted(tmp_path, TREES[kind]()).card["limits"] for kind in ("velo", "rnn_mlp", "mlp")}
    assert (limits["velo"]["needs_loss"], limits["velo"]["needs_total_steps"]) == (True, True)
    assert limits["rnn_mlp"]["needs_loss"] is True
    assert "needs_total_steps" not in limits["rnn_mlp"]
    assert limits["mlp"].keys() == {"notes"}


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda tree: {"params": tree, "gen_id": "x", "step": 7},
        lambda tree: {"0": tree, "1": "", "2": 0},
        lambda tree: {"gradient_learner_state": {"theta_opt_state": {"params": tree, "iteration": np.int32(3)}}, "elapsed_time": 2.5},
        lambda tree: {**tree, "nn": {"~": {**tree["nn"]["~"], "w0": in_pieces(tree["nn"]["~"]["w0"], 50)}}},
    ],
    ids=["inference checkpoint", "tuple", "state of training", "array in pieces"],
)
def test_the_wrapping_does_not_matter(tmp_path: Path, wrapped: Any) -> None:
    plain = converted(tmp_path, small_fc_tree())
    assert converted(tmp_path, wrapped(small_fc_tree())).fingerprint == plain.fingerprint


@pytest.mark.parametrize("kind", TREES)
def test_a_missing_tensor_is_named(tmp_path: Path, kind: str) -> None:
    tree = TREES[kind]()
    for path in leaves(tree)[:: 1 if kind in ("mlp", "small_fc") else 5]:
        message = refusal(tmp_path, without(tree, path), rule=kind)
        assert message == f"{tmp_path / 'theta.state'}: tensor {'/'.join(path)!r} is missing, which is of rule {kind}"


def test_an_extra_tensor_is_named(tmp_path: Path) -> None:
    tree = {**mlp_tree(), "mlp/~/linear_3": {"w": draw(2, 2)}}
    assert refusal(tmp_path, tree).endswith("tensor 'mlp/~/linear_3/w' is none of rule mlp")


def test_a_wrong_shape_says_which_and_what(tmp_path: Path) -> None:
    tree = mlp_tree()
    tree["mlp/~/linear_1"]["w"] = draw(5, 6)
    assert refusal(tmp_path, tree).endswith("tensor 'mlp/~/linear_1/b' has shape (5,) where (6,) is that of rule mlp")
    tree = mlp_tree()
    tree["mlp/~/linear_0"]["w"] = draw(20, 5)
    assert refusal(tmp_path, tree).endswith("tensor 'mlp/~/linear_0/w' has shape (20, 5) where (19, 5) is that of rule mlp")
    tree = velo_tree(units=6)
    tree["rnn_params"]["rnn/linear"]["w"] = draw(6, 24)
    assert "has shape (6, 24) where (12, 24) is that of rule velo" in refusal(tmp_path, tree)


def test_a_file_of_another_rule(tmp_path: Path) -> None:
    message = refusal(tmp_path, mlp_tree(), rule="small_fc")
    assert message.endswith("tensor 'nn/~/w0' is missing, which is of rule small_fc")
    message = refusal(tmp_path, mlp_tree(), ConfigError, rule="velox")
    assert message.startswith("rule 'velox' cannot be converted; did you mean 'velo'? known: mlp, small_fc")
    message = refusal(tmp_path, {"params": {"dense": draw(2)}}, ConfigError)
    assert "no rule has these tensors (params/dense, ...); known are checkpoints of mlp, small_fc, rnn_mlp, velo, celo" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_are_finite_floats(tmp_path: Path, value: float) -> None:
    tree = mlp_tree()
    tree["mlp/~/linear_1"]["b"] = np.full(5, value, np.float32)
    assert refusal(tmp_path, tree).endswith("tensor 'mlp/~/linear_1/b' is not finite")
    tree["mlp/~/linear_1"]["b"] = np.arange(5)
    assert refusal(tmp_path, tree).endswith("tensor 'mlp/~/linear_1/b' is int64, a weight is a floating-point number")
    tree["mlp/~/linear_1"]["b"] = 1e300 * np.ones(5)
    assert refusal(tmp_path, tree).endswith("tensor 'mlp/~/linear_1/b' is not finite in float32")


def test_options_must_be_the_rules_own(tmp_path: Path) -> None:
    assert "update rule mlp has no option 'step_size'" in refusal(tmp_path, mlp_tree(), ConfigError, step_size=1.0)
    message = refusal(tmp_path, mlp_tree(), ConfigError, hidden=(7, 5))
    assert "with these options rule mlp has another 'b0': expected (7,), found (5,)" in message


def test_damage_and_names(tmp_path: Path) -> None:
    path = write(tmp_path / "theta.state", mlp_tree())
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UnsafeArtifactError, match="damaged, or no file of flax"):
        convert_jax(path, tmp_path / "artifact")
    assert "must be letters, digits" in refusal(tmp_path, mlp_tree(), ConfigError, name="no name")


def test_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "convert_jax_checkpoint.py"))["main"]
    path, out = str(write(tmp_path / "theta.state", velo_tree())), str(tmp_path / "small")
    assert script([path, out, "--rule", "velo", "--name", "velo-small", "mixture_factor=1e0", "parameter_scale=false", "start=adam"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    card = metaopt.load(out).card
    assert card["name"] == "velo-small"
    sizes = {"lstm_hidden": 6, "mixture": 3, "mlp_hidden": 4}
    assert card["rule"]["options"] == {**sizes, "mixture_factor": 1.0, "parameter_scale": False, "start": "adam"}
    assert script([path, out, "mixture_factor"]) == 2
    assert "convert_jax_checkpoint: option mixture_factor of update rule velo" in capsys.readouterr().err


def test_every_table_is_complete() -> None:
    for kind, table in TABLES.items():
        names = [row.name for row in table.rows]
        assert len(set(names)) == len(names), kind
        assert not table.ignored.keys() & {path for row in table.rows for path, _ in row.tensors}, kind
        assert bool(table.ignored) == bool(table.why), "what is ignored has a reason"
