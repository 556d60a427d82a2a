"""`LearnedOptimizer` with a rule that sees all tensors: what it takes, how its state lies, the loss, and the length of the run."""

import copy
import inspect
import io
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaopt.artifacts import Artifact, new_card
from metaopt.errors import ConfigError, IncompatibleCheckpointError
from metaopt.learners.update_rules import MODEL_RULES, apply_model_rule, get_rule
from metaopt.optim import LearnedOptimizer
from metaopt.testing import OPTIMIZER_CLAUSES, check_optimizer_contract
from tests.learners.model_rules import Toy

SHAPES = ((), (5,), (3, 4), (3, 4), (2, 3, 4), (2, 3, 2, 2))
LOSSES = (2.0, 1.5, 1.7, 0.9, 1.1, 0.5)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODEL_RULES, "_entries", {**MODEL_RULES, "toy": Toy})


def parameters(dtype: torch.dtype = torch.float32, shapes: Any = SHAPES) -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(i)).to(dtype)) for i, shape in enumerate(shapes)]


def everything(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return (param for group in optimizer.param_groups for param in group["params"])


def walk(optimizer: LearnedOptimizer, steps: range) -> None:
    for step in steps:
        for place, param in enumerate(everything(optimizer)):
            grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(100 * step + place + 1))
            param.grad = grad.to(param.dtype)
        optimizer.step(loss=LOSSES[step % len(LOSSES)])


def toy_artifact(**options: Any) -> Artifact:
    return Artifact(new_card("one", "toy", options=options), {"log_gain": torch.tensor(0.3), "fall": torch.tensor(0.4)})


# `step` without torch's hook wrapper, so that a subclass may call it without calling hooks twice.
bare_step = torch.no_grad()(inspect.unwrap(LearnedOptimizer.step))


class Fed(LearnedOptimizer):
    """Steps that are given no loss have one all the same, as the contract knows nothing of losses."""

    def step(self, closure: Any = None, *, loss: Any = None) -> Any:
        return bare_step(self, closure, loss=1.0 if closure is None and loss is None else loss)


@pytest.mark.parametrize("rule", [Toy(), Toy(read_loss=False, read_horizon=False)])
def test_a_rule_that_sees_all_tensors_keeps_the_contract(rule: Toy) -> None:
    """But for what it is: parameters that join meet the run of the others, and NaN in one gradient reaches all through the maximum."""
    lacks = {"add_param_group", "non_finite_gradients"}
    checked = check_optimizer_contract(lambda params: Fed(params, rule, total_steps=50), skip=lacks)
    assert set(checked) == set(OPTIMIZER_CLAUSES) - lacks


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_steps_are_those_of_the_one_function(dtype: torch.dtype, tolerance: float) -> None:
    rule, params = Toy(), parameters(dtype)
    optimizer = LearnedOptimizer([{"params": params[:3], "lr": 0.5}, {"params": params[3:], "weight_decay": 0.1}], rule, total_steps=5)
    theta = {name: value.to(dtype) for name, value in rule.init_theta(0).items()}
    values = {str(place): param.detach().clone() for place, param in enumerate(params)}
    state = rule.init_state(theta, values)
    lr = {name: 0.05 if int(name) < 3 else 0.1 for name in values}
    decay = {name: 0.0 if int(name) < 3 else 0.1 for name in values}
    for step in range(5):
        walk(optimizer, range(step, step + 1))
        grads = {str(place): param.grad for place, param in enumerate(params)}
        loss, horizon = torch.tensor(LOSSES[step], dtype=dtype), torch.tensor(5.0)
        values, state = apply_model_rule(rule, theta, values, grads, state, torch.tensor(step), lr, decay, loss, horizon)  # type: ignore[arg-type]
        for name, value in values.items():
            torch.testing.assert_close(params[int(name)].detach(), value, rtol=tolerance, atol=tolerance)


def test_a_tensor_keeps_its_own_state_and_the_first_one_what_is_shared() -> None:
    params = parameters()
    optimizer = LearnedOptimizer(params, Toy(), total_steps=10)
    for param in params[1:]:
        param.grad = torch.ones_like(param)
    assert not optimizer.state[params[1]], "looking at a state before the first step makes no home"
    optimizer.step(loss=2.0)
    assert params[0] not in optimizer.state, "no gradient, no state"
    assert set(optimizer.state[params[1]]) == {"step", "m", "shared.mean", "shared.last"}
    assert all(set(optimizer.state[param]) == {"step", "m"} for param in params[2:])
    assert float(optimizer.state[params[1]]["shared.last"]) == 2.0
    pointers = [optimizer.state[params[1]][key].data_ptr() for key in ("m", "shared.mean")]
    walk(optimizer, range(2))
    assert pointers == [optimizer.state[params[1]][key].data_ptr() for key in ("m", "shared.mean")], "in place"
    assert set(optimizer.state[params[0]]) == {"step", "m"}, "who comes later finds it there"
    assert [int(optimizer.state[param]["step"]) for param in params[:2]] == [2, 3]


def test_without_a_gradient_nothing_moves_but_time() -> None:
    params = parameters()
    optimizer = LearnedOptimizer(params, Toy(), total_steps=10)
    optimizer.step(loss=1.0)
    assert not any(optimizer.state.values())
    assert optimizer.param_groups[0]["elapsed_steps"] == 1


def test_a_group_that_is_added_joins_the_run() -> None:
    params, late = parameters(), nn.Parameter(torch.ones(4))
    optimizer = LearnedOptimizer(params, Toy(), total_steps=10)
    walk(optimizer, range(3))
    optimizer.add_param_group({"params": [late], "lr": 0.5})
    walk(optimizer, range(3, 4))
    assert int(optimizer.state[late]["step"]) == 1
    assert set(optimizer.state[late]) == {"step", "m"}
    assert not torch.equal(late, torch.ones(4))
    assert optimizer.param_groups[1]["total_steps"] == 10


def test_what_a_rule_keeps_of_its_inputs_is_a_copy() -> None:
    class Keeps(Toy):
        def init_state(self, theta: Any, params: Any) -> Any:
            one = next(iter(params.values()))
            fresh = {"new": one.new_zeros(()), "old": one.new_zeros(())}
            return {
                "tensors": {name: {"grad": p * 0, "param": p * 0, "now": p * 0, "before": p * 0} for name, p in params.items()},
                "shared": fresh,
            }

        def update(self, theta: Any, params: Any, grads: Any, state: Any, t: Any, loss: Any, horizon: Any) -> Any:
            own = {
                name: {"grad": grads[name], "param": params[name], "now": grads[name] + 0, "before": state["tensors"][name]["now"]}
                for name in params
            }
            return grads, {"tensors": own, "shared": {"new": loss, "old": state["shared"]["new"]}}

    param = nn.Parameter(torch.ones(3))
    optimizer = LearnedOptimizer([param], Keeps(), total_steps=9)
    for value in (1.0, 2.0):
        param.grad = torch.full((3,), value)
        before = param.detach().clone()
        optimizer.step(loss=value)
    param.grad.zero_()  # type: ignore[union-attr]
    state = optimizer.state[param]
    assert torch.equal(state["grad"], torch.full((3,), 2.0))
    assert torch.equal(state["param"], before)
    assert torch.equal(state["before"], torch.ones(3)), "what moves from one key to the next is read before anything is written"
    assert (float(state["shared.old"]), float(state["shared.new"])) == (1.0, 2.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_resume_is_bitwise_and_keeps_dtypes(dtype: torch.dtype) -> None:
    whole = LearnedOptimizer(parameters(dtype), toy_artifact(), total_steps=20)
    walk(whole, range(4))
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed = LearnedOptimizer([nn.Parameter(param.detach().clone()) for param in everything(whole)], toy_artifact(), total_steps=20)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    twin: LearnedOptimizer = pickle.loads(pickle.dumps(whole))  # noqa: S301 - its own bytes
    for optimizer in (whole, resumed, twin, copy.deepcopy(twin)):
        walk(optimizer, range(4, 8))
    for mine, again, other in zip(everything(whole), everything(resumed), everything(twin), strict=True):
        assert torch.equal(mine, again)
        assert torch.equal(mine, other)
        kinds = [{key: (value.dtype, value.shape) for key, value in one.state[p].items()} for one, p in ((whole, mine), (resumed, again))]
        assert kinds[0] == kinds[1]
        assert {name for name, _ in kinds[0].items()} >= {"step", "m"}


def test_bfloat16_is_the_rounded_float32_run_and_follows_what_others_write() -> None:
    low = parameters(torch.bfloat16)
    exact = [nn.Parameter(param.detach().float()) for param in low]
    optimizer, reference = LearnedOptimizer(low, Toy(), total_steps=9), LearnedOptimizer(exact, Toy(), total_steps=9)
    for step in range(5):
        if step == 3:
            with torch.no_grad():
                low[2][0, 0], exact[2][0, 0] = 5.0, 5.0
        walk(optimizer, range(step, step + 1))
        for param, other in zip(low, exact, strict=True):
            other.grad = param.grad.float()  # type: ignore[union-attr]
        reference.step(loss=LOSSES[step])
    for param, other in zip(low, exact, strict=True):
        assert torch.equal(optimizer.state[param]["master"], other.detach())
        assert torch.equal(param.detach(), other.detach().bfloat16())


def test_16_bit_and_float32_parameters_go_together() -> None:
    params = [*parameters(torch.bfloat16, SHAPES[:3]), *parameters(torch.float32, SHAPES[3:])]
    optimizer = LearnedOptimizer(params, Toy(), total_steps=9)
    walk(optimizer, range(2))
    assert [param.dtype for param in params] == [torch.bfloat16] * 3 + [torch.float32] * 3
    assert ["master" in optimizer.state[param] for param in params] == [True] * 3 + [False] * 3


def test_the_loss_is_asked_for_and_must_be_one_number() -> None:
    params = parameters()
    optimizer = LearnedOptimizer(params, Toy(), total_steps=9)
    for param in params:
        param.grad = torch.ones_like(param)
    with pytest.raises(ConfigError, match=r"step\(\) got no loss, which this rule reads: pass a closure or step\(loss=loss\)"):
        optimizer.step()
    before = [param.detach().clone() for param in params]
    with pytest.raises(ConfigError, match=r"loss must be one number, got shape \(2,\)"):
        optimizer.step(loss=torch.ones(2))
    assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))
    given = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    assert optimizer.step(loss=given) is given
    assert optimizer.step(lambda: 2.0) == 2.0
    assert float(optimizer.state[params[0]]["shared.last"]) == 2.0


def test_a_step_with_lr_0_and_no_loss_makes_the_state_and_tells_the_rule_nothing() -> None:
    params, others = parameters(), parameters()
    optimizer, reference = (LearnedOptimizer(p, Toy(), total_steps=9) for p in (params, others))
    for param in params:
        param.grad = torch.zeros_like(param)
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.param_groups[0]["lr"] = 0.0
    assert optimizer.step() is None
    assert all("m" in optimizer.state[param] for param in params)
    assert int(optimizer.state[params[0]]["step"]) == 0
    optimizer.param_groups[0]["lr"] = rates[0]
    walk(optimizer, range(3))
    walk(reference, range(3))
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True)), "as if it had not been"


def test_the_first_step_of_torchs_distributed_loader() -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    def model_and_optimizer() -> tuple[nn.Module, LearnedOptimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        model[0].weight.requires_grad_(False)
        return model, LearnedOptimizer(model.parameters(), Toy(), total_steps=20)

    def train(model: nn.Module, optimizer: LearnedOptimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = model(torch.ones(2, 4)).square().sum()
            loss.backward()
            optimizer.step(loss=loss)

    model, optimizer = model_and_optimizer()
    train(model, optimizer, 3)
    saved = copy.deepcopy((model.state_dict(), get_optimizer_state_dict(model, optimizer)))
    train(model, optimizer, 2)
    again, second = model_and_optimizer()
    again.load_state_dict(saved[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        set_optimizer_state_dict(again, second, saved[1])
    train(again, second, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert second.param_groups[0]["elapsed_steps"] == 5


def moves(optimizer: LearnedOptimizer, param: nn.Parameter, steps: int) -> list[float]:
    """Return how far steps on a gradient of one go; the rule without a loss, at full momentum."""
    sizes = []
    for _ in range(steps):
        before = param.detach().clone()
        param.grad = torch.ones_like(param)
        optimizer.step()
        sizes.append(float((before - param.detach()).mean()))
    return sizes


def test_the_rule_reads_the_length_of_the_run_and_stays_at_its_end() -> None:
    param = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = LearnedOptimizer([param], Toy(decay=0.0, read_loss=False), total_steps=4)
    assert moves(optimizer, param, 4) == pytest.approx([0.1 * (1 - 0.5 * t / 4) for t in range(4)])
    with pytest.warns(UserWarning, match="step 5 is past total_steps=4: the rule stays at its end; set_total_steps extends the run"):
        assert moves(optimizer, param, 1) == pytest.approx([0.05])
    assert moves(optimizer, param, 2) == pytest.approx([0.05, 0.05]), "and says so once: warnings are errors here"
    state = {key: value.clone() for key, value in optimizer.state[param].items()}
    optimizer.set_total_steps(14)
    assert all(torch.equal(state[key], value) for key, value in optimizer.state[param].items())
    assert moves(optimizer, param, 1) == pytest.approx([0.1 * (1 - 0.5 * 7 / 14)])


def test_the_length_of_the_run_is_required_kept_and_checked() -> None:
    params = parameters()
    with pytest.raises(ConfigError, match="total_steps is missing: toy reads the length of the run"):
        LearnedOptimizer(params, Toy())
    optimizer = LearnedOptimizer(params, Toy(), total_steps=9)
    with pytest.raises(ConfigError, match="total_steps is missing"):
        optimizer.set_total_steps(None)
    walk(optimizer, range(2))
    other = LearnedOptimizer(parameters(), Toy(), total_steps=10)
    with pytest.raises(IncompatibleCheckpointError, match="state_dict has total_steps 9, the optimizer 10"):
        other.load_state_dict(optimizer.state_dict())
    optimizer.set_total_steps(10)
    other.load_state_dict(optimizer.state_dict())
    LearnedOptimizer(params, Toy(read_horizon=False))


def test_parameters_of_several_precisions_or_devices_are_refused() -> None:
    params = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.float64))]
    optimizer = LearnedOptimizer(params, Toy(), total_steps=9)
    for param in params:
        param.grad = torch.ones_like(param)
    with pytest.raises(
        ConfigError, match=r"rule toy sees all parameters together, got torch.float32 on cpu and torch.float64 on cpu; give"
    ):
        optimizer.step(loss=1.0)
    assert not any(optimizer.state.values())


def test_shards_are_refused_by_name(tmp_path: Any) -> None:
    import torch.distributed as dist
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        shard = nn.Parameter(distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)]))
        optimizer = LearnedOptimizer([("body.weight", shard)], Toy(), total_steps=9)
        shard.grad = distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)])
        with pytest.raises(ConfigError, match=r"parameter 'body\.weight' is sharded \(DTensor\), and rule toy sees whole tensors"):
            optimizer.step(loss=1.0)
    finally:
        dist.destroy_process_group()


def test_an_artifact_says_what_its_rule_reads_and_must_fit() -> None:
    optimizer = LearnedOptimizer(parameters(), toy_artifact(), total_steps=9)
    assert optimizer.param_groups[0]["artifact"].startswith("one@")
    with pytest.raises(ConfigError, match="total_steps is missing: one@"):
        LearnedOptimizer(parameters(), toy_artifact())
    with pytest.raises(ConfigError, match="update rule toy has no option 'decays'; did you mean 'decay'"):
        LearnedOptimizer(parameters(), toy_artifact(decays=0.5), total_steps=9)
    with pytest.raises(ConfigError, match="update rule 'adamv' is unknown; did you mean 'adam'"):
        LearnedOptimizer(parameters(), Artifact(new_card("one", "adamv"), {}), total_steps=9)
    assert LearnedOptimizer(parameters(), get_rule("adamw")).state == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler
def test_the_compiled_step_equals_the_eager_one_and_does_not_recompile() -> None:
    compiled, eager = parameters(), parameters()
    fast = LearnedOptimizer(compiled, Toy(), total_steps=20, compile=True)
    slow = LearnedOptimizer(eager, Toy(), total_steps=20)
    torch._dynamo.reset()
    for step in range(4):
        with torch._dynamo.config.patch(error_on_recompile=step > 0):
            for optimizer in (fast, slow):
                optimizer.param_groups[0]["lr"] = 1.0 / (1 + step)
                walk(optimizer, range(step, step + 1))
    for a, b in zip(compiled, eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
