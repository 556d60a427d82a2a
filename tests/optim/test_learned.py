"""What `LearnedOptimizer` adds to the contract: equality with torch.optim, batching, schedules, precisions, reports and errors."""

import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import metaopt
from metaopt.artifacts import Artifact, new_card
from metaopt.errors import ConfigError, UnsafeArtifactError
from metaopt.learners.update_rules import CLASSIC, RULES, apply_rule, get_rule
from metaopt.optim import LearnedOptimizer, apply

SHAPES = ((), (5,), (3, 4), (3, 4), (4, 4), (2, 3, 4), (2, 3, 2, 2))


def parameters(dtype: torch.dtype = torch.float32, shapes: Any = SHAPES) -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(i)).to(dtype)) for i, shape in enumerate(shapes)]


def walk(optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for place, param in enumerate(param for group in optimizer.param_groups for param in group["params"]):
            grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(100 * step + place + 1))
            param.grad = grad.to(param.dtype)
        optimizer.step()


def artifact_of(rule: str, schedule: dict[str, float] | None = None, base_lr: float = 1.0, **fields: Any) -> Artifact:
    return Artifact(new_card("one", rule, step={"base_lr": base_lr, "default_schedule": schedule}, **fields), get_rule(rule).init_theta(0))


TORCH = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "rmsprop": torch.optim.RMSprop,
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("rule", TORCH)
def test_classic_rules_equal_torch_optim(rule: str, dtype: torch.dtype, tolerance: float) -> None:
    ours, theirs = parameters(dtype), parameters(dtype)
    mine, reference = LearnedOptimizer(ours, get_rule(rule)), TORCH[rule](theirs)
    if rule == "nadam" and dtype == torch.float64:
        tolerance = 1e-7  # torch keeps the product of its momenta in float32
    for step in range(30):
        walk(mine, range(step, step + 1))
        walk(reference, range(step, step + 1))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@settings(max_examples=15, deadline=None)
@given(
    rule=st.sampled_from(sorted(RULES)),
    shapes=st.lists(st.lists(st.integers(1, 4), max_size=4).map(tuple), min_size=1, max_size=6),
    full=st.integers(1, 40),
)
def test_stacks_of_any_size_equal_tensors_one_by_one(rule: str, shapes: list[tuple[int, ...]], full: int) -> None:
    stacked = parameters(torch.float64, shapes)
    optimizer = LearnedOptimizer(stacked, get_rule(rule), weight_decay=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apply, "_CPU_CHUNK", full)
        walk(optimizer, range(3))
    for place, start in enumerate(parameters(torch.float64, shapes)):
        value, theta = start.detach(), {key: weight.double() for key, weight in get_rule(rule).init_theta(0).items()}
        state = get_rule(rule).init_state(value)
        for step in range(3):
            grad = torch.randn(value.shape, generator=torch.Generator().manual_seed(100 * step + place + 1)).double()
            value, state = apply_rule(
                get_rule(rule), theta, value, grad, state, torch.tensor(step), get_rule(rule).hyperparameters["lr"], 0.1
            )
        torch.testing.assert_close(stacked[place].detach(), value, rtol=1e-11, atol=1e-12)


def test_lr_times_base_step_of_the_card() -> None:
    once, twice = parameters(), parameters()
    walk(LearnedOptimizer(once, artifact_of("sgd", base_lr=3.0), lr=0.5), range(1))
    walk(LearnedOptimizer(twice, get_rule("sgd", lr=1.5e-2)), range(1))
    for a, b in zip(once, twice, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, math.inf, math.nan, 1e-40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_zero_lr_keeps_every_bit(value: float, dtype: torch.dtype) -> None:
    param = nn.Parameter(torch.full((4,), value, dtype=dtype))
    before = param.detach().clone()
    optimizer = LearnedOptimizer([param], get_rule("adamw"), lr=0.0, weight_decay=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for grad in (0.0, -0.0, 1.0, math.inf, math.nan):
            param.grad = torch.full_like(param, grad)
            optimizer.step()
    assert torch.equal(param.detach().view(torch.uint8), before.view(torch.uint8))
    assert int(optimizer.state[param]["step"]) == 5, "counters go on"


def step_sizes(optimizer: torch.optim.Optimizer, param: nn.Parameter, steps: int) -> list[float]:
    sizes = []
    for _ in range(steps):
        before = param.detach().clone()
        param.grad = torch.ones_like(param)
        optimizer.step()
        sizes.append(float((before - param.detach()).mean()))
    return sizes


def test_total_steps_follows_the_card_and_then_stays_at_the_floor() -> None:
    param = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = LearnedOptimizer([param], artifact_of("sgd", {"warmup_frac": 0.2, "final_frac": 0.1}, base_lr=100.0), total_steps=10)
    sizes = step_sizes(optimizer, param, 10)
    expected = [min((t + 1) / 2, 0.1 + 0.45 * (1 + math.cos(math.pi * max(0, t - 2) / 8))) for t in range(10)]
    assert sizes == pytest.approx(expected, rel=1e-6)
    with pytest.warns(UserWarning, match=r"step 11 is past total_steps=10: the step size stays at 0\.1 of its peak"):
        assert step_sizes(optimizer, param, 1) == pytest.approx([0.1])
    assert step_sizes(optimizer, param, 2) == pytest.approx([0.1, 0.1]), "and says so once: warnings are errors here"
    optimizer.set_total_steps(1000)
    assert step_sizes(optimizer, param, 1)[0] < 0.1, "13 of 1000 steps: warm-up again"


def test_without_total_steps_or_schedule_the_step_is_constant() -> None:
    for artifact, total in ((artifact_of("sgd", {"warmup_frac": 0.2, "final_frac": 0.1}), None), (artifact_of("sgd"), 3)):
        param = nn.Parameter(torch.zeros(3))
        assert step_sizes(LearnedOptimizer([param], artifact, total_steps=total), param, 5) == pytest.approx([1e-2] * 5)


def test_schedulers_multiply_the_card_schedule() -> None:
    param = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = LearnedOptimizer([param], artifact_of("sgd", {"warmup_frac": 0.0, "final_frac": 0.0}, base_lr=100.0), total_steps=4)
    halving = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for t in range(4):
        assert step_sizes(optimizer, param, 1) == pytest.approx([0.5**t * 0.5 * (1 + math.cos(math.pi * t / 4))])
        halving.step()


def test_a_group_added_later_joins_the_schedule_of_the_run() -> None:
    first, late = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    optimizer = LearnedOptimizer([first], artifact_of("adam", {"warmup_frac": 0.0, "final_frac": 0.0}, base_lr=100.0), total_steps=4)
    step_sizes(optimizer, first, 2)
    optimizer.add_param_group({"params": [late]})
    assert step_sizes(optimizer, late, 1) == pytest.approx([0.1 * 0.5], rel=1e-4), "half way, and Adam's own first step"
    assert (int(optimizer.state[first]["step"]), int(optimizer.state[late]["step"])) == (3, 1)


def test_a_learning_rate_may_be_a_tensor() -> None:
    plain, tensor = parameters(), parameters()
    walk(LearnedOptimizer(plain, get_rule("adamw"), lr=0.5), range(2))
    walk(LearnedOptimizer(tensor, get_rule("adamw"), lr=torch.tensor(0.5)), range(2))
    assert all(torch.equal(a, b) for a, b in zip(plain, tensor, strict=True))


@pytest.mark.parametrize(
    ("dtype", "working", "master"),
    [
        (torch.float64, torch.float64, False),
        (torch.float32, torch.float32, False),
        (torch.bfloat16, torch.float32, True),
        (torch.float16, torch.float32, True),
    ],
)
def test_state_dtypes(dtype: torch.dtype, working: torch.dtype, master: bool) -> None:
    params = parameters(dtype)
    optimizer = LearnedOptimizer(params, get_rule("celo2_base"))
    walk(optimizer, range(2))
    for param in params:
        state = optimizer.state[param]
        assert ("master" in state) == master
        assert state["step"].dtype == torch.int64
        assert {value.dtype for key, value in state.items() if key != "step"} == {working}


def test_bfloat16_is_the_rounded_float32_run() -> None:
    low = parameters(torch.bfloat16)
    exact = [nn.Parameter(param.detach().float()) for param in low]
    optimizer, reference = LearnedOptimizer(low, get_rule("adamw")), LearnedOptimizer(exact, get_rule("adamw"))
    for step in range(5):
        walk(optimizer, range(step, step + 1))
        for param, other in zip(low, exact, strict=True):
            assert param.grad is not None
            other.grad = param.grad.float()
        reference.step()
    for param, other in zip(low, exact, strict=True):
        assert torch.equal(optimizer.state[param]["master"], other.detach())
        assert torch.equal(param.detach(), other.detach().bfloat16())


def test_a_write_to_a_16_bit_parameter_reaches_its_master() -> None:
    param = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = LearnedOptimizer([param], get_rule("sgd", lr=1e-4))
    step_sizes(optimizer, param, 3)
    with torch.no_grad():
        param[0] = 5.0  # as loading weights or clipping them does
    step_sizes(optimizer, param, 1)
    assert optimizer.state[param]["master"].tolist() == pytest.approx([5 - 1e-4, *[1 - 4e-4] * 3])


def test_sparse_gradients_are_refused_by_name_and_nothing_moves() -> None:
    module = nn.ModuleDict({"emb": nn.Embedding(4, 3, sparse=True), "out": nn.Linear(3, 1)})
    optimizer = LearnedOptimizer(module.named_parameters(), get_rule("adamw"))
    module["out"](module["emb"](torch.tensor([1]))).sum().backward()
    before = [param.detach().clone() for param in module.parameters()]
    with pytest.raises(RuntimeError, match=r"parameter 'emb\.weight' has a sparse gradient"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    with pytest.raises(RuntimeError, match="parameter 0 of group 0 has a sparse gradient"):
        LearnedOptimizer(module["emb"].parameters(), get_rule("adamw")).step()


def test_non_finite_gradients_are_counted_told_once_and_not_replaced() -> None:
    params = parameters()
    optimizer = LearnedOptimizer(params, get_rule("adamw"))
    walk(optimizer, range(2))
    assert optimizer.nonfinite_gradients == 0
    for place, value in ((2, math.nan), (5, math.inf)):
        grad = torch.zeros_like(params[place])
        grad.view(-1)[0] = value
        params[place].grad = grad
    with pytest.warns(UserWarning, match="2 gradient tensors had NaN or infinity by step 3"):
        optimizer.step()
    optimizer.step()
    assert optimizer.nonfinite_gradients == 4
    assert [place for place, param in enumerate(params) if not bool(torch.isfinite(param).all())] == [2, 5]


def test_the_loss_is_returned_and_asked_for_when_the_rule_reads_it() -> None:
    params = parameters()
    optimizer = LearnedOptimizer(params, artifact_of("sgd", limits={"needs_loss": True}))
    with pytest.raises(ConfigError, match=r"pass a closure or step\(loss=loss\)"):
        optimizer.step()
    assert optimizer.step(loss=2.0) == 2.0
    optimizer.param_groups[0]["lr"] = 0.0
    assert optimizer.step() is None, "torch's distributed loader has no loss to give"
    assert optimizer.step(lambda: 3.0) == 3.0


def test_from_path_from_name_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAOPT_CACHE", str(tmp_path))
    made = artifact_of("celo2_base")
    made.save(tmp_path / "artifacts" / "mine")
    runs = []
    for source in (made, metaopt.load("mine"), "mine", tmp_path / "artifacts" / "mine", str(tmp_path / "artifacts" / "mine")):
        params = parameters()
        walk(LearnedOptimizer(params, source), range(2))
        runs.append(params)
    assert all(torch.equal(a, b) for params in runs[1:] for a, b in zip(runs[0], params, strict=True))


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"lr": -1.0}, ConfigError, "lr must be >= 0 and finite, got -1.0"),
    ({"lr": math.nan}, ConfigError, "lr must be >= 0 and finite, got nan"),
    ({"weight_decay": -0.1}, ConfigError, "weight_decay must be >= 0 and finite, got -0.1"),
    ({"total_steps": 0}, ConfigError, "total_steps must be an integer >= 1 or None, got 0"),
    ({"total_steps": 1.5}, ConfigError, "total_steps must be an integer >= 1 or None, got 1.5"),
    ({"total_steps": True}, ConfigError, "total_steps must be an integer >= 1 or None, got True"),
    ({"artifact": "no-such-artifact"}, UnsafeArtifactError, "artifact 'no-such-artifact': no such path or name"),
    (
        {"artifact": artifact_of("sgd", kind="per_weight")},
        ConfigError,
        "artifact 'one' is of kind per_weight; LearnedOptimizer runs kind update_rule",
    ),
    (
        {"artifact": artifact_of("sgd", kind="policy")},
        ConfigError,
        "artifact 'one' is a policy; run it with PolicyScheduler(optimizer, artifact, total_steps)",
    ),
    ({"artifact": artifact_of("sgd", limits={"needs_total_steps": True})}, ConfigError, "total_steps is missing: one@"),
    (
        {"artifact": Artifact(new_card("cut", "learnable_adam"), {"log_lr": torch.zeros(2)})},
        UnsafeArtifactError,
        "artifact 'cut': weight 'log_eps' does not fit rule learnable_adam: expected (), found none",
    ),
    ({"artifact": Artifact(new_card("new", "later_rule"), {})}, ConfigError, "update rule 'later_rule' is unknown"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        LearnedOptimizer(parameters(), **{"artifact": get_rule("sgd"), **options})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_complex_parameters_and_a_bad_group_are_refused_and_leave_no_group_behind() -> None:
    optimizer = LearnedOptimizer(parameters(), get_rule("sgd"))
    for group in ({"params": [torch.zeros(2, dtype=torch.complex64)]}, {"params": [torch.zeros(2)], "lr": -1}):
        with pytest.raises(ConfigError):
            optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == 1


def test_pickling_keeps_rule_state_and_schedule() -> None:
    params = parameters()
    optimizer = LearnedOptimizer(params, artifact_of("celo2_base", {"warmup_frac": 0.1, "final_frac": 0.0}), total_steps=20)
    walk(optimizer, range(3))
    twin: LearnedOptimizer = pickle.loads(pickle.dumps(optimizer))  # noqa: S301 - its own bytes
    walk(optimizer, range(3, 6))
    walk(twin, range(3, 6))
    copies: list[Tensor] = [param for group in twin.param_groups for param in group["params"]]
    assert all(torch.equal(a, b) for a, b in zip(params, copies, strict=True))


def test_memory_of_state_is_what_the_rule_asks_for() -> None:
    params = parameters(shapes=((64, 64), (64, 64)))
    optimizer = LearnedOptimizer(params, get_rule("mlp"))
    walk(optimizer, range(2))
    stored = sum(value.untyped_storage().nbytes() for param in params for key, value in optimizer.state[param].items() if key != "step")
    assert stored == 24 * 2 * 64 * 64


@pytest.mark.parametrize("rule", [name for name in RULES if name not in CLASSIC])
def test_learned_rules_train_a_model_from_their_hand_set_start(rule: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    inputs = torch.randn(64, 4)
    targets = inputs[:, :1] * inputs[:, 1:2]
    start = {"skip": True, "start": "adam"} if rule == "lstm" else {}  # its usual start is random
    optimizer = LearnedOptimizer(model.parameters(), get_rule(rule, **start), lr=3.0)
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # on the first import of torch's compiler
def test_the_compiled_step_equals_the_eager_one_and_does_not_recompile() -> None:
    compiled, eager = parameters(), parameters()
    schedule = {"warmup_frac": 0.5, "final_frac": 0.0}
    fast = LearnedOptimizer(compiled, artifact_of("mlp", schedule), total_steps=20, compile=True)
    slow = LearnedOptimizer(eager, artifact_of("mlp", schedule), total_steps=20)
    torch._dynamo.reset()
    for step in range(4):
        with torch._dynamo.config.patch(error_on_recompile=step > 0):
            for optimizer in (fast, slow):
                optimizer.param_groups[0]["lr"] = 1.0 / (1 + step)
                walk(optimizer, range(step, step + 1))
    for a, b in zip(compiled, eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
