"""What the hypergradient optimizers promise: torch's own steps when nothing is learned, exact towers, scopes, groups, and safe numbers."""

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaopt import optim
from metaopt.errors import ConfigError
from metaopt.optim import hypergradient_pieces

SHAPES = ((3, 4), (5,), (), (3, 4))
OFF = {"name": "sgd", "lr": 0.0}
MAKES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sgd": (lambda p, **k: optim.HypergradientSGD(p, 0.1, **k), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (
        lambda p, **k: optim.HypergradientSGD(p, 0.1, 0.9, weight_decay=0.01, **k),
        lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.01),
    ),
    "nesterov": (
        lambda p, **k: optim.HypergradientSGD(p, 0.1, 0.9, True, 0.01, **k),
        lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.01, nesterov=True),
    ),
    "adam": (
        lambda p, **k: optim.HypergradientAdam(p, 1e-2, (0.8, 0.99), weight_decay=0.01, **k),
        lambda p: torch.optim.Adam(p, 1e-2, (0.8, 0.99), weight_decay=0.01),
    ),
    "adamw": (lambda p, **k: optim.HypergradientAdamW(p, weight_decay=0.1, **k), lambda p: torch.optim.AdamW(p, weight_decay=0.1)),
    "rmsprop": (lambda p, **k: optim.HypergradientRMSProp(p, **k), torch.optim.RMSprop),
    "rmsprop momentum": (
        lambda p, **k: optim.HypergradientRMSProp(p, 1e-2, 0.9, 1e-6, 0.01, 0.5, **k),
        lambda p: torch.optim.RMSprop(p, 1e-2, 0.9, 1e-6, 0.01, 0.5),
    ),
    "lion": (lambda p, **k: optim.HypergradientLion(p, weight_decay=0.1, **k), lambda p: PaperLion(p, 1e-4, (0.9, 0.99), 0.1)),
}


class PaperLion(torch.optim.Optimizer):
    """Algorithm 2 of the paper, a tensor at a time."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                mean = self.state[param].setdefault("mean", torch.zeros_like(param))
                update = mean.lerp(param.grad, 1 - group["betas"][0]).sign()
                mean.lerp_(param.grad, 1 - group["betas"][1])
                param.sub_(group["lr"] * (update + group["weight_decay"] * param))


def parameters(dtype: torch.dtype = torch.float32, shapes: Any = SHAPES) -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(i)).to(dtype)) for i, shape in enumerate(shapes)]


def walk(optimizer: torch.optim.Optimizer, steps: range, scale: float = 1.0) -> None:
    for step in steps:
        for place, param in enumerate(param for group in optimizer.param_groups for param in group["params"]):
            noise = torch.randn(param.shape, generator=torch.Generator().manual_seed(100 * step + place + 1))
            param.grad = (scale * (noise + 0.3)).to(param.dtype)
        optimizer.step()


def equal(left: list[nn.Parameter], right: list[nn.Parameter]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("link", ["log", "identity"])
@pytest.mark.parametrize("name", MAKES)
def test_a_tower_that_learns_nothing_is_the_base_optimizer_to_the_last_bit(name: str, link: str, dtype: torch.dtype) -> None:
    ours, theirs = parameters(dtype), parameters(dtype)
    make, reference = MAKES[name]
    optimizer = make(ours, hyper=OFF, link=link)
    walk(optimizer, range(20))
    walk(reference(theirs), range(20))
    for a, b in zip(ours, theirs, strict=True):
        if name == "lion":  # one product more in the reference
            torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-7)
        else:
            assert torch.equal(a, b)
    assert optimizer.hyperparameters() == [{"lr": optimizer.param_groups[0]["lr"]}]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("torchs", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_large_tensors_in_pieces_are_the_whole_tensors(torchs: Any, foreach: bool) -> None:
    shapes = ((300, 41), (7,), (2, 3, 32, 64))
    ours, theirs = parameters(shapes=shapes), parameters(shapes=shapes)
    ours[2].data = ours[2].data.to(memory_format=torch.channels_last)
    made = {torch.optim.RMSprop: "RMSProp"}.get(torchs, torchs.__name__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hypergradient_pieces, "_CPU_PIECE", 1024)
        walk(getattr(optim, f"Hypergradient{made}")(ours, lr=0.01, hyper=OFF), range(5))
    walk(torchs(theirs, lr=0.01, foreach=foreach), range(5))
    assert equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("update", ["additive", "cosine"])
@pytest.mark.parametrize("name", MAKES)
def test_pieces_change_what_is_learned_by_rounding_only(name: str, update: str, dtype: torch.dtype) -> None:
    shapes, found = ((40, 41), (7,)), []
    for piece in (64, 1 << 20):
        optimizer = MAKES[name][0](parameters(dtype, shapes), update=update, hyper={"name": "sgd", "lr": 1e-4})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hypergradient_pieces, "_CPU_PIECE", piece)
            walk(optimizer, range(6))
        found.append(optimizer.hyperparameters()[0]["lr"])
    assert found[0] == pytest.approx(found[1], rel=1e-5 if dtype == torch.float32 else 1e-12)
    assert found[0] != optimizer.param_groups[0]["lr"]


def quadratic(param: nn.Parameter, curvature: Tensor) -> None:
    param.grad = (curvature * param).detach()


def test_tower_of_three_on_the_quadratic_of_the_method_document() -> None:
    param = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    tower = [{"name": "sgd", "lr": 0.01}, {"name": "sgd", "lr": 0.001}]
    optimizer = optim.HypergradientSGD([param], 0.1, hyper=tower, link="identity")
    for _ in range(6):
        quadratic(param, torch.tensor([1.0, 0.3, 0.1], dtype=torch.float64))
        optimizer.step()
    assert param.tolist() == pytest.approx([0.439352579, -1.5813428222, 0.4628275406], abs=1e-10)
    assert optimizer.hyperparameters()[0]["lr"] == pytest.approx(0.15161612515783762, abs=1e-15)
    assert optimizer.tower_rates() == [[pytest.approx(0.01323693766605522, abs=1e-15), 0.001]]


def test_one_tower_sums_over_all_groups_before_it_moves() -> None:
    """Two groups of one tensor each learn what one group of both learns; the published bug moves the rate between tensors."""
    apart, together = parameters(torch.float64), parameters(torch.float64)
    first = optim.HypergradientAdam([{"params": apart[:1]}, {"params": apart[1:]}], hyper={"name": "sgd", "lr": 1e-4})
    second = optim.HypergradientAdam(together, hyper={"name": "sgd", "lr": 1e-4})
    walk(first, range(5))
    walk(second, range(5))
    assert equal(apart, together)
    assert first.hyperparameters() == second.hyperparameters()


@pytest.mark.parametrize("name", MAKES)
def test_per_group_and_per_tensor_are_optimizers_of_their_own(name: str) -> None:
    make = MAKES[name][0]
    split: dict[str, list[Any]] = {"per_group": [slice(0, 2), slice(2, 4)], "per_tensor": [slice(i, i + 1) for i in range(4)]}
    for mode, slices in split.items():
        ours, theirs = parameters(), parameters()
        optimizer = make([{"params": ours[:2]}, {"params": ours[2:]}], mode=mode, hyper="adam")
        others = [make(theirs[piece], hyper="adam") for piece in slices]
        for step in range(5):
            walk(optimizer, range(step, step + 1))
            for mine, other in zip(ours, theirs, strict=True):
                assert mine.grad is not None
                other.grad = mine.grad.clone()
            for other_optimizer in others:
                other_optimizer.step()
        assert equal(ours, theirs), mode
        assert optimizer.hyperparameters() == [values for other in others for values in other.hyperparameters()]
        assert optimizer.tower_rates() == [rates for other in others for rates in other.tower_rates()]


def test_groups_keep_their_ratio_and_schedulers_multiply() -> None:
    params = parameters(torch.float64, ((3,), (3,)))
    optimizer = optim.HypergradientSGD([{"params": params[:1], "lr": 0.2}, {"params": params[1:], "lr": 0.05}])
    walk(optimizer, range(4))
    for factor in (1.0, 0.5):
        for group, lr in zip(optimizer.param_groups, (0.2, 0.05), strict=True):
            group["lr"] = factor * lr
        before = [param.detach().clone() for param in params]
        walk(optimizer, range(9, 10))
        rate = optimizer.hyperparameters()[0]["lr"]
        assert rate != 0.2, "it has learned"
        for param, start, share in zip(params, before, (1.0, 0.25), strict=True):
            assert param.grad is not None
            torch.testing.assert_close(start - param.detach(), factor * share * rate * param.grad)


def test_a_scheduled_rate_scales_what_is_learned_by_the_chain_rule() -> None:
    param = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = optim.HypergradientSGD([param], 0.1, hyper={"name": "sgd", "lr": 1e-3}, link="identity")
    rates = [0.1]
    for factor in (1.0, 0.5, 0.25):
        optimizer.param_groups[0]["lr"] = factor * 0.1
        param.grad = torch.tensor([1.0, 2.0], dtype=torch.float64)
        optimizer.step()
        rates.append(optimizer.hyperparameters()[0]["lr"])
    assert rates[2:] == pytest.approx([0.1 + 1e-3 * 5.0, 0.1 + 1e-3 * 5.0 * 1.5]), "d theta / d rate = -factor u"


@pytest.mark.parametrize("mode", ["global", "per_group", "per_tensor"])
@pytest.mark.parametrize("update", ["additive", "cosine"])
def test_a_group_with_lr_zero_stands_still_and_teaches_nothing(mode: str, update: str) -> None:
    still, moving, alone = parameters(), parameters(), parameters()
    before = [param.detach().clone() for param in still]
    groups: list[dict[str, Any]] = [{"params": still, "lr": 0.0}, {"params": moving}]
    optimizer = optim.HypergradientAdamW(groups, mode=mode, update=update, weight_decay=0.1)
    reference = optim.HypergradientAdamW(alone, mode=mode, update=update, weight_decay=0.1)
    walk(optimizer, range(5))
    for step in range(5):  # the same gradients, which depend on the place
        for place, param in enumerate(alone):
            noise = torch.randn(param.shape, generator=torch.Generator().manual_seed(100 * step + len(still) + place + 1))
            param.grad = noise + 0.3
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(before, still, strict=True))
    assert equal(moving, alone)
    assert optimizer.hyperparameters()[-1] == reference.hyperparameters()[-1]
    if mode != "global":
        assert optimizer.hyperparameters()[0] == {"lr": pytest.approx(1e-3)}, "it has never learned"


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, math.inf, math.nan, 1e-40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MAKES)
def test_lr_zero_keeps_every_bit(name: str, dtype: torch.dtype, value: float) -> None:
    param = nn.Parameter(torch.full((4,), value, dtype=dtype))
    before = param.detach().clone()
    optimizer = MAKES[name][0]([param])
    optimizer.param_groups[0]["lr"] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for grad in (0.0, -0.0, 1.0, math.inf, math.nan):
            param.grad = torch.full_like(param, grad)
            optimizer.step()
    assert torch.equal(param.detach().view(torch.uint8), before.view(torch.uint8))
    assert int(optimizer.state[param]["step"]) == 5, "counters go on"
    assert optimizer.hyperparameters() == MAKES[name][0]([param]).hyperparameters(), "nothing moved, so nothing was learned"


@pytest.mark.parametrize("link", ["log", "logit", "square"])
@pytest.mark.parametrize("update", ["additive", "multiplicative", "cosine"])
@pytest.mark.parametrize("height", [1, 3])
def test_rates_stay_positive_and_finite_over_wild_gradients(link: str, update: str, height: int) -> None:
    wanted: Any = {"lr": "log", "momentum": link} if link == "logit" else link
    learn = ("lr", "momentum") if link == "logit" else ("lr",)
    param = nn.Parameter(torch.ones(8))
    optimizer = optim.HypergradientSGD([param], 0.1, 0.5, hyper=["sgd"] * height, learn=learn, link=wanted, update=update)
    source = torch.Generator().manual_seed(0)
    for size in itertools.chain(10.0 ** torch.arange(-30, 31, 3), 10.0 ** torch.randint(-30, 30, (40,), generator=source)):
        param.grad = size * torch.randn(8, generator=source)
        optimizer.step()
        (values,), (rates,) = optimizer.hyperparameters(), optimizer.tower_rates()
        assert all(math.isfinite(value) for value in (*values.values(), *rates))
        assert values["lr"] > 0 or (link == "square" and values["lr"] == 0.0)
        assert 0.0 < values.get("momentum", 0.5) < 1.0
        with torch.no_grad():
            param.fill_(1.0)


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_gradient_leaves_the_tower_alone_and_is_counted(name: str, value: float) -> None:
    params = parameters()
    optimizer = MAKES[name][0](params, hyper=["adam", "sgd"])
    walk(optimizer, range(3))
    values, rates = optimizer.hyperparameters(), optimizer.tower_rates()
    tower = {key: one.clone() for key, one in optimizer.param_groups[0]["tower_state"].items() if key != "skipped"}
    for place, param in enumerate(params):
        param.grad = torch.full_like(param, value if place in (1, 3) else 0.1)
    with pytest.warns(UserWarning, match="NaN or infinity at step 4; it is passed on as it is, and nothing is learned from it"):
        optimizer.step()
    assert (optimizer.nonfinite_gradients, optimizer.skipped) == (2, 1)
    assert (optimizer.hyperparameters(), optimizer.tower_rates()) == (values, rates)
    assert all(torch.equal(one, optimizer.param_groups[0]["tower_state"][key]) for key, one in tower.items())
    whole = [bool(torch.isfinite(param).all()) for param in params]
    assert whole == ([True] * 4 if name == "lion" else [True, False, True, False]), "as in torch; the sign of NaN is 0"


def test_it_warns_once_and_learns_again_as_soon_as_numbers_are_finite() -> None:
    params = parameters()
    optimizer = optim.HypergradientSGD(params, mode="per_tensor")
    walk(optimizer, range(2))
    params[1].grad = torch.full_like(params[1], math.nan)
    with pytest.warns(UserWarning, match="at step 3"):
        optimizer.step()
    at = optimizer.hyperparameters()
    for param in params:  # as a user does who restores the weights
        param.data = param.data.nan_to_num()
    walk(optimizer, range(3, 4))
    then = optimizer.hyperparameters()
    assert then[1] == at[1], "its last step was not finite"
    assert then[0] != at[0]
    walk(optimizer, range(4, 5))
    assert optimizer.hyperparameters()[1] != at[1]
    assert (optimizer.nonfinite_gradients, optimizer.skipped) == (1, 2)


def test_a_first_gradient_that_is_not_finite_is_counted_too() -> None:
    params = parameters()
    optimizer = optim.HypergradientAdam(params)
    for param in params:
        param.grad = torch.full_like(param, math.inf)
    with pytest.warns(UserWarning, match="at step 1"):
        optimizer.step()
    assert (optimizer.nonfinite_gradients, optimizer.skipped) == (4, 0)


def test_an_overflow_of_finite_gradients_is_no_non_finite_gradient() -> None:
    param = nn.Parameter(torch.ones(4))
    optimizer = optim.HypergradientSGD([param])
    for _ in range(2):
        param.grad = torch.full_like(param, 1e30)
        optimizer.step()
    assert (optimizer.nonfinite_gradients, optimizer.skipped) == (0, 1)


def test_a_raw_rate_that_explodes_ends_in_infinities_and_not_in_an_error() -> None:
    """The published towers have no bounds; ours have none under `identity`, if the user wants it so."""
    param = nn.Parameter(torch.ones(4))
    optimizer = optim.HypergradientSGD([param], hyper={"name": "sgd", "lr": 1e30}, link="identity")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(4):
            param.grad = torch.full_like(param, 1e10)
            optimizer.step()
    assert optimizer.hyperparameters()[0]["lr"] > 1e39
    assert not bool(torch.isfinite(param).any())


def test_parameters_that_join_and_leave() -> None:
    params = parameters(torch.float64)
    params[0].requires_grad_(False)
    optimizer = optim.HypergradientSGD(params, momentum=0.9)
    frozen, late = params[0].detach().clone(), params[2].detach().clone()
    for step in range(4):
        for place, param in enumerate(params):
            param.grad = None if place == 0 or (place == 2 and step < 2) else torch.full_like(param, 0.1)
        optimizer.step()
        assert torch.equal(params[2].detach(), late) == (step < 2)
    assert torch.equal(params[0].detach(), frozen)
    assert params[0] not in optimizer.state
    assert [int(optimizer.state[param]["step"]) for param in params[1:]] == [4, 2, 4]


def test_tied_weights_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)).double()
    model[1].weight = model[0].weight
    optimizer = optim.HypergradientSGD(model.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(2, 4, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    assert model[0].weight is model[1].weight
    assert len(optimizer.state) == 1


def counts(optimizer: torch.optim.Optimizer) -> int:
    """Return how many tensors of the parameter's size its state holds."""
    param = optimizer.param_groups[0]["params"][0]
    return sum(isinstance(value, Tensor) and value.numel() == param.numel() for value in optimizer.state[param].values())


@pytest.mark.parametrize(
    ("name", "extra"),
    [("sgd", 1), ("momentum", 0), ("nesterov", 1), ("adam", 1), ("adamw", 1), ("rmsprop", 1), ("rmsprop momentum", 0), ("lion", 1)],
)
def test_memory_is_at_most_one_more_tensor_a_parameter(name: str, extra: int) -> None:
    make, reference = MAKES[name]
    ours, theirs = make(parameters()), reference(parameters())
    walk(ours, range(2))
    walk(theirs, range(2))
    assert counts(ours) - counts(theirs) == extra


def test_memory_of_more_that_is_learned_is_a_tensor_each() -> None:
    optimizer = optim.HypergradientAdam(parameters(), learn=("lr", "beta1", "eps"))
    walk(optimizer, range(1))
    assert counts(optimizer) == 2 + 3


@pytest.mark.parametrize("mode", ["global", "per_tensor"])
@pytest.mark.parametrize("update", ["additive", "cosine"])
def test_one_transfer_to_the_host_a_step(mode: str, update: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    stack = torch.stack

    def counted(tensors: Any, *rest: Any) -> Tensor:
        calls.append(len(tensors))
        return stack(tensors, *rest)

    class Torch:
        stack = staticmethod(counted)

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    monkeypatch.setattr(hypergradient_pieces, "torch", Torch())
    optimizer = optim.HypergradientAdam(parameters(), learn=("lr", "beta1"), mode=mode, update=update)
    walk(optimizer, range(3))
    assert calls == [4, *[4 * (5 if update == "cosine" else 2)] * 2], "sums of the first gradients, then dot products (and squares)"


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_is_the_rounded_float32_run(name: str, dtype: torch.dtype) -> None:
    low = parameters(dtype)
    exact = [nn.Parameter(param.detach().float()) for param in low]
    optimizer, reference = MAKES[name][0](low), MAKES[name][0](exact)
    for step in range(5):
        walk(optimizer, range(step, step + 1))
        for param, other in zip(low, exact, strict=True):
            assert param.grad is not None
            other.grad = param.grad.float()
        reference.step()
    for param, other in zip(low, exact, strict=True):
        assert torch.equal(optimizer.state[param]["master"], other.detach())
        assert torch.equal(param.detach(), other.detach().to(dtype))
    assert optimizer.hyperparameters() == reference.hyperparameters()


def test_a_write_to_a_16_bit_parameter_reaches_its_master() -> None:
    param = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = optim.HypergradientSGD([param], 1e-4, hyper=OFF)
    for step in range(4):
        param.grad = torch.ones_like(param)
        optimizer.step()
        if step == 2:
            param.data[0] = 5.0
    assert optimizer.state[param]["master"].tolist() == pytest.approx([5 - 1e-4, *[1 - 4e-4] * 3])


@pytest.mark.parametrize("name", MAKES)
def test_maximize_is_minimizing_the_opposite(name: str) -> None:
    up, down = parameters(), parameters()
    climbing, falling = MAKES[name][0](up, maximize=True), MAKES[name][0](down)
    walk(climbing, range(4), scale=-1.0)
    walk(falling, range(4))
    assert equal(up, down)
    assert climbing.hyperparameters() == falling.hyperparameters()


def test_momentum_that_is_switched_off_and_on_by_hand() -> None:
    params = parameters(torch.float64, ((3,),))
    optimizer = optim.HypergradientSGD(params, 0.01, 0.9, hyper={"name": "sgd", "lr": 1e-3}, link="identity")
    rate, rates = 0.01, []
    buffer = last = torch.zeros(3, dtype=torch.float64)
    for step, momentum in enumerate((0.9, 0.9, 0.0, 0.0, 0.9, 0.9)):
        optimizer.param_groups[0]["momentum"] = momentum
        walk(optimizer, range(step, step + 1))
        grad = params[0].grad
        assert grad is not None
        rate += 1e-3 * float(grad @ last)
        buffer = momentum * buffer + grad if momentum else buffer
        last = buffer if momentum else grad
        rates.append((optimizer.hyperparameters()[0]["lr"], rate))
    assert [a for a, _ in rates] == pytest.approx([b for _, b in rates], rel=1e-12)


@pytest.mark.parametrize(
    ("update", "steps", "seen"), [("cosine", 600, "steps,"), ("additive", 2500, "steps that were looked at (one in 10),")]
)
def test_noise_without_progress_is_told_once(update: str, steps: int, seen: str) -> None:
    param = nn.Parameter(torch.zeros(64, dtype=torch.float64))
    optimizer = optim.HypergradientSGD([param], 0.3, hyper=OFF, update=update)
    source, told = torch.Generator().manual_seed(0), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            param.grad = param.detach() + torch.randn(64, generator=source, dtype=torch.float64)
            optimizer.step()
    told = [str(one.message) for one in caught]
    assert len(told) == 1
    assert "the hypergradient of lr has been negative" in told[0]
    assert seen in told[0]
    assert optimizer.stationarity is not None
    assert optimizer.stationarity.state == "noise floor"
    assert optimizer.stationarity.cosine == pytest.approx(-0.15, abs=0.05), "-rate / 2"
    assert optim.HypergradientSGD([param], mode="per_tensor").stationarity is None


@pytest.mark.parametrize("size", [1e15, 1e25])
def test_a_norm_that_overflows_keeps_nothing_from_being_learned(size: float) -> None:
    """Sizes of gradients at which a sum of squares is infinite in float32 and a dot product is not, at a step that is watched."""
    param, still = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = optim.HypergradientSGD([param, still], 1e-30, hyper={"name": "sgd", "lr": 1e-9})
    for step in range(1, 11):
        param.grad, still.grad = torch.tensor([1.0, 0.0]), torch.tensor([0.0, size if step == 10 else 0.0])
        optimizer.step()
    assert optimizer.skipped == 0
    assert optimizer.nonfinite_gradients == 0


P = [nn.Parameter(torch.ones(2))]
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("SGD", {"lr": -0.1}, r"lr must be >= 0 and finite, got -0\.1"),
    ("SGD", {"lr": 0.0}, "lr=0 cannot be learned: start above 0, or take 'lr' out of learn"),
    ("SGD", {"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1"),
    ("SGD", {"nesterov": True}, "nesterov=True needs momentum > 0, got momentum=0"),
    ("SGD", {"weight_decay": -1.0}, "weight_decay must be >= 0 and finite, got -1"),
    ("SGD", {"learn": ("beta1",)}, "learn names 'beta1', which sgd does not have"),
    ("SGD", {"learn": ("momentum",)}, "momentum=0 has no place under link logit; start above 0"),
    ("SGD", {"mode": "per_tensors"}, "mode 'per_tensors' is unknown.*per_tensor"),
    ("SGD", {"hyper": "sdg"}, "hyper names 'sdg', which is no part of a tower.*sgd"),
    ("SGD", {"hyper": []}, "hyper is empty"),
    ("SGD", {"link": "lgo"}, "link 'lgo' of lr is unknown.*log"),
    ("SGD", {"update": "sum"}, "update 'sum' is unknown"),
    ("SGD", {"bounds": (0.2, 0.3)}, r"lr=0\.1 lies outside its bounds \[0\.2, 0\.3\]"),
    ("Adam", {"betas": (0.9, 1.0)}, r"beta2 must be in \[0, 1\), got 1"),
    ("Adam", {"betas": 0.9}, r"betas must be two numbers, got 0\.9"),
    ("AdamW", {"eps": -1e-8}, "eps must be >= 0 and finite"),
    ("RMSProp", {"alpha": 1.5}, r"alpha must be in \[0, 1\), got 1\.5"),
    ("Lion", {"learn": ("beta1",)}, "lion takes a sign, whose derivative is 0"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_bad_input_is_one_clear_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        getattr(optim, f"Hypergradient{name}")(P, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "learn", "key", "value", "message"),
    [
        ("SGD", ("momentum",), "momentum", 0.8, r"momentum of group 0 was changed from 0\.9 to 0\.8, but it is learned"),
        ("AdamW", ("lr", "weight_decay"), "weight_decay", 0.1, r"weight_decay of group 0 was changed from 0\.01 to 0\.1"),
        ("Adam", ("beta1",), "betas", (0.95, 0.999), r"beta1 of group 0 was changed from 0\.9 to 0\.95"),
    ],
)
def test_writing_to_what_is_learned_is_refused(name: str, learn: tuple[str, ...], key: str, value: Any, message: str) -> None:
    params = parameters()
    optimizer = getattr(optim, f"Hypergradient{name}")(params, learn=learn, **({"momentum": 0.9} if name == "SGD" else {}))
    walk(optimizer, range(2))
    optimizer.param_groups[0][key] = value
    with pytest.raises(ConfigError, match=message):
        optimizer.step()


def test_complex_and_sparse_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"real floating-point tensors, got torch\.complex64"):
        optim.HypergradientAdam([nn.Parameter(torch.ones(2, dtype=torch.complex64))])
    model = nn.ModuleDict({"emb": nn.Embedding(4, 3, sparse=True), "out": nn.Linear(3, 1)})
    optimizer = optim.HypergradientAdam(model.named_parameters())
    model["out"](model["emb"](torch.tensor([1]))).sum().backward()
    before = [param.detach().clone() for param in model.parameters()]
    with pytest.raises(RuntimeError, match=r"parameter 'emb\.weight' has a sparse gradient"):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not optimizer.state


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_learning_rate_may_be_a_tensor(name: str) -> None:
    plain, tensor = parameters(), parameters()
    walk(getattr(optim, f"Hypergradient{name}")(plain, lr=0.5), range(3))
    walk(getattr(optim, f"Hypergradient{name}")(tensor, lr=torch.tensor(0.5)), range(3))
    assert equal(plain, tensor)


def test_bounds_hold() -> None:
    param = nn.Parameter(torch.ones(4))
    optimizer = optim.HypergradientSGD([param], 0.1, hyper={"name": "sgd", "lr": 1.0}, bounds={"lr": (0.05, 0.2)})
    seen = set()
    for t in range(12):
        param.grad = torch.full_like(param, 1.0 if t < 6 else (-1.0) ** t)
        optimizer.step()
        seen.add(round(optimizer.hyperparameters()[0]["lr"], 12))
    assert min(seen) == 0.05
    assert max(seen) == 0.2


def test_a_rate_that_is_not_learned_is_the_users_own() -> None:
    params = parameters(torch.float64)
    optimizer = optim.HypergradientSGD(params, 0.0, 0.9, learn="momentum")
    before = [param.detach().clone() for param in params]
    walk(optimizer, range(2))
    assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))
    optimizer.param_groups[0]["lr"] = 0.1
    walk(optimizer, range(2, 5))
    assert set(optimizer.hyperparameters()[0]) == {"momentum"}
    assert optimizer.hyperparameters()[0]["momentum"] != 0.9
    assert "direction" not in optimizer.state[params[0]]


@pytest.mark.parametrize("update", ["additive", "cosine"])
def test_where_gradients_lie_in_memory_changes_no_bit(update: str) -> None:
    """MKL's dot products depend on it; views into the buckets of DistributedDataParallel begin anywhere."""
    found = []
    for offset in range(4):
        param = nn.Parameter(torch.ones(1000))
        optimizer = optim.HypergradientSGD([param], 0.01, 0.9, update=update)
        memory = torch.empty(1100)
        for t in range(4):
            grad = memory[offset : offset + 1000]
            grad.copy_(torch.randn(1000, generator=torch.Generator().manual_seed(t)) + 0.1)
            param.grad = grad
            optimizer.step()
        found.append(optimizer.hyperparameters())
    assert found == found[:1] * 4
