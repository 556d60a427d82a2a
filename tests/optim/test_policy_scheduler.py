"""`PolicyScheduler`: what it sets and when, what is masked, guard rails, units, and errors that name what is wrong."""

import copy
import itertools
import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from metaopt.artifacts import Artifact, new_card
from metaopt.artifacts.policy import load_policy
from metaopt.errors import ConfigError, UnsafeArtifactError
from metaopt.learners.policies.knobs import HEADS, KNOBS, REGISTER_ACTIONS, TABLES
from metaopt.learners.policies.network import greedy
from metaopt.learners.policies.observation import INPUTS, LAYOUT, NAMES
from metaopt.learners.policies.timing import decision_steps, measured_steps
from metaopt.optim import LearnedOptimizer, LearnedSchedule, PolicyScheduler, UnitlessAdam, policy_scheduler
from tests.optim.policies import DECISIONS, TOTAL, Run, always, loss_of, model, policy

OPTIM = torch.optim
MADE: dict[str, Any] = {
    "SGD": lambda p: OPTIM.SGD(p, lr=0.01),
    "SGD nesterov": lambda p: OPTIM.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "Adam": lambda p: OPTIM.Adam(p, lr=0.01),
    "AdamW": lambda p: OPTIM.AdamW(p, lr=0.01, betas=(0.9, 0.95)),
    "AdamW fused": lambda p: OPTIM.AdamW(p, lr=0.01, fused=True),
    "RMSprop": lambda p: OPTIM.RMSprop(p, lr=0.01),
    "NAdam": lambda p: OPTIM.NAdam(p, lr=0.01),
    "Adadelta": lambda p: OPTIM.Adadelta(p),
    "UnitlessAdam": lambda p: UnitlessAdam(p, lr=0.01),
    "LearnedOptimizer": lambda p: LearnedOptimizer(p, "celo2-base"),
}
LR, WIDE = HEADS.index("lr"), TABLES["wide"].factors
HALVE = {LR: WIDE[0].index(0.8)}  # not a half, but the nearest choice below 1
ADAMW = MADE["AdamW"]
adamw = OPTIM.AdamW


@pytest.mark.parametrize("name", MADE)
def test_it_controls_any_optimizer(name: str) -> None:
    run = Run(MADE[name], policy(), registers=True, heldout=True).advance()
    assert [entry["step"] for entry in run.log] == list(decision_steps(TOTAL, DECISIONS))
    start = run.scheduler._start
    assert list(run.log[0]["values"]) == list(start)
    assert run.log[-1]["values"] != start, "something has been turned"
    for entry in run.log:
        inputs = torch.tensor(entry["inputs"])
        assert inputs.shape == (INPUTS,)
        assert torch.isfinite(inputs).all()
        assert set(entry["action"]) <= {"registers", *start}
    last, group = run.log[-1]["values"], run.optimizer.param_groups[0]
    assert group["lr"] == last["lr"]
    if "one_minus_beta1" in last:
        assert group["betas"][0] == 1.0 - last["one_minus_beta1"]
    if "epsilon" in last:
        assert group["eps"] == last["epsilon"]
    assert all(torch.isfinite(value).all() for value in run.weights())


def test_a_factor_is_a_factor() -> None:
    run = Run(ADAMW, always(HALVE)).advance(5)
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.008)
    run.advance(TOTAL - 5)
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.8 ** len(run.log))
    assert run.log[0]["action"]["lr"] == 0.8
    assert run.log[0]["values"]["lr"] == pytest.approx(0.008)


def test_choices_are_those_of_the_network_with_its_memory() -> None:
    """What was logged is what one pass over all logged inputs says, and would be another without memory."""
    artifact = policy(seed=2, loud=2000.0)
    run, network = Run(lambda p: UnitlessAdam(p, lr=0.01), artifact, registers=True, heldout=True).advance(), load_policy(artifact)
    inputs = torch.tensor([entry["inputs"] for entry in run.log])
    with torch.no_grad():
        whole = greedy(network(inputs.unsqueeze(1))[0], network.nvec).squeeze(1)
        apart = greedy(torch.stack([network.step(row, network.initial_state())[0] for row in inputs]), network.nvec)
    choices = (REGISTER_ACTIONS, *WIDE)
    assert not torch.equal(whole, apart)
    for entry, row in zip(run.log, whole.tolist(), strict=True):
        if not entry["notes"]:
            assert entry["action"] == {name: choices[head][row[head]] for head, name in enumerate(HEADS)}


def test_groups_keep_their_proportions() -> None:
    def make(params: Any) -> Any:
        one, two, *rest = params
        groups = [{"params": [one], "lr": 0.0}, {"params": [two], "lr": 0.02}, {"params": rest, "lr": 0.01, "weight_decay": 0.0}]
        return adamw(groups, weight_decay=0.5)

    run = Run(make, always({**HALVE, HEADS.index("weight_decay"): 2})).advance(5)
    assert [group["lr"] for group in run.optimizer.param_groups] == pytest.approx([0.0, 0.016, 0.008])
    assert [group["weight_decay"] for group in run.optimizer.param_groups] == pytest.approx([1.0, 1.0, 0.0])


def test_what_was_not_trained_is_not_turned() -> None:
    run = Run(ADAMW, policy(knobs=("lr", "clip_ratio"), registers=False), registers=True).advance()
    assert all(set(entry["action"]) == {"lr"} for entry in run.log)
    group = run.optimizer.param_groups[0]
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.95), 1e-8, 0.01)
    assert not run.calls


def test_masks_look_like_those_of_training() -> None:
    """What is masked is zero in the features and in the one-hot vector; without evaluation its inputs are constants."""
    run = Run(MADE["SGD"], policy()).advance()
    pi = torch.tensor([entry["inputs"] for entry in run.log])
    changes = pi[:, LAYOUT["action_features"]]
    assert (changes[1:, 0] != 0).any()
    assert not changes[:, 1:].any()
    previous = [column for column, name in enumerate(NAMES) if name.startswith("previous_") and not name.startswith("previous_lr")]
    assert not pi[:, previous].any()
    of_eval = [column for column, name in enumerate(NAMES) if "eval_loss" in name or name.startswith("loss_ratio")]
    assert set(pi[:, of_eval].flatten().tolist()) == {0.0, 0.5}
    assert not pi[:, LAYOUT["restart_loss"]].any()
    assert (pi[:, LAYOUT["restart_progress"]] == 1).all()


def test_betas_wait_until_their_corrections_are_over() -> None:
    run = Run(lambda p: adamw(p, betas=(0.9, 0.9)), policy(seed=3)).advance()  # 3 / 0.1 = 30 steps
    turned = {entry["step"]: {"one_minus_beta1", "one_minus_beta2"} <= set(entry["action"]) for entry in run.log}
    assert turned == {step: step >= 30 for step in turned}
    assert any(turned.values())
    assert Run(lambda p: UnitlessAdam(p), policy()).advance(5).log[0]["action"].keys() >= {"one_minus_beta1", "one_minus_beta2"}


def test_the_steps_that_training_measures_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    run, found = Run(ADAMW, policy(), total_steps=80, decisions=4), list[int]()
    original = policy_scheduler.step_statistics

    def spy(optimizer: Any, before: Any, steps: int) -> Any:
        found.append(steps - 1)
        return original(optimizer, before, steps)

    monkeypatch.setattr(policy_scheduler, "step_statistics", spy)
    run.advance(80)
    bounds = (0, *decision_steps(80, 4))
    assert bounds == (0, 4, 23, 42, 61)
    assert found == [step for begin, end in itertools.pairwise(bounds) for step in measured_steps(begin, end)]


def test_the_evaluation_is_a_callback_or_an_argument() -> None:
    run = Run(ADAMW, policy(), heldout=True).advance(5)
    assert run.log[0]["eval_loss"] is not None
    passed = Run(ADAMW, policy())
    for at in range(8):
        passed.optimizer.zero_grad()
        loss = loss_of(passed.net, at)
        loss.backward()
        passed.optimizer.step()
        passed.scheduler.step(loss, eval_loss=loss * 0 + 2.5 if at == 1 else None)
    assert [entry["eval_loss"] for entry in passed.log] == [2.5, None], "one that is older than the last decision is none"


def test_training_losses_are_averaged_over_the_steps_since_the_last_decision() -> None:
    losses = [float(3 + at) for at in range(12)]
    for as_tensor in (False, True):
        run = Run(ADAMW, policy(), total_steps=12, decisions=2)
        for loss in losses:
            loss_of(run.net, 0).backward()
            run.optimizer.step()
            run.scheduler.step(torch.tensor(loss) if as_tensor else loss)
        assert [entry["train_loss"] for entry in run.log] == [sum(losses[:4]) / 4, sum(losses[4:8]) / 4]


def test_dry_runs_log_and_set_nothing() -> None:
    plain, dry = model(), Run(ADAMW, policy(), registers=True, dry_run=True).advance()
    optimizer = ADAMW(plain.parameters())
    for at in range(TOTAL):
        optimizer.zero_grad()
        loss_of(plain, at).backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), dry.weights(), strict=True))
    assert (optimizer.param_groups[0]["lr"], dry.calls) == (dry.optimizer.param_groups[0]["lr"], [])
    assert len(dry.log) == DECISIONS
    assert not any(entry["applied"] for entry in dry.log)
    assert any(entry["values"]["lr"] != 0.01 for entry in dry.log), "what it would have set"


def test_a_dry_run_watches_the_schedule_that_is_there() -> None:
    run = Run(ADAMW, always(HALVE), dry_run=True)
    cosine = OPTIM.lr_scheduler.LambdaLR(run.optimizer, lambda step: 0.5 if step > 4 else 1.0)
    for _ in range(12):
        run.advance(1)
        cosine.step()
    assert [entry["values"]["lr"] for entry in run.log[:2]] == pytest.approx([0.008, 0.004])
    assert torch.tensor(run.log[1]["inputs"])[LAYOUT["action_features"]][0] == pytest.approx(math.log(0.5), rel=1e-5)


def test_rates_stay_within_the_guard() -> None:
    down, up = ({LR: WIDE[0].index(factor)} for factor in (0.1, 10.0))
    assert Run(ADAMW, always(down)).advance().log[-1]["values"]["lr"] == pytest.approx(1e-5)
    assert Run(lambda p: adamw(p, lr=1e-6), always(up)).advance().log[-1]["values"]["lr"] == pytest.approx(1e-4)
    assert Run(ADAMW, always(down), guard=(0.5, 1.0)).advance().log[-1]["values"]["lr"] == pytest.approx(5e-3)
    assert Run(ADAMW, always(down), guard=False).advance().log[-1]["values"]["lr"] == pytest.approx(1e-7), "the policy's own bounds"
    capped = always(up)
    capped.card["limits"]["max_lr"] = 0.003
    assert Run(lambda p: adamw(p, lr=1e-3), capped).advance().log[-1]["values"]["lr"] == pytest.approx(0.003)
    assert Run(lambda p: OPTIM.SGD(p, lr=1e-3), capped).advance().log[-1]["values"]["lr"] == pytest.approx(0.1), "another unit"
    assert Run(ADAMW, capped).advance().log[-1]["values"]["lr"] == pytest.approx(0.01), "a start above it is the highest itself"


def diverge(run: Run, steps: int, loss: float = math.nan) -> None:
    for _ in range(steps):
        run.optimizer.zero_grad()
        loss_of(run.net, run.at).backward()
        run.optimizer.step()
        run.scheduler.step(loss)
        run.at += 1


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_run_that_is_not_finite_is_handed_to_a_cosine(loss: float) -> None:
    run = Run(ADAMW, always(HALVE)).advance(5)
    diverge(run, 3, loss)
    assert len(run.log) == 2
    assert run.log[1]["notes"] == ["the run is not finite and no register is filled: lr is halved and falls along a cosine from here on"]
    assert run.log[1]["values"]["lr"] == run.optimizer.param_groups[0]["lr"] == pytest.approx(0.004)
    rates = []
    while run.at < TOTAL:
        diverge(run, 1)
        rates.append(run.optimizer.param_groups[0]["lr"])
    assert len(run.log) == 2, "the policy is out"
    assert rates == pytest.approx([0.004 * 0.5 * (1 + math.cos(math.pi * (k + 1) / 28)) for k in range(28)])


def test_without_guard_the_policy_goes_on() -> None:
    run = Run(ADAMW, always(HALVE), guard=False).advance(5)
    diverge(run, TOTAL - 5)
    assert len(run.log) == DECISIONS
    assert not any(entry["notes"] for entry in run.log)
    assert torch.tensor(run.log[-1]["inputs"])[NAMES.index("train_loss_is_nan")] == 1


def test_a_dry_run_is_not_taken_over() -> None:
    run = Run(ADAMW, always(HALVE), dry_run=True).advance(5)
    diverge(run, TOTAL - 5)
    assert run.optimizer.param_groups[0]["lr"] == 0.01
    assert len(run.log) == DECISIONS
    assert "the run is not finite" in run.log[-1]["notes"][0]


def test_a_filled_register_is_loaded_instead() -> None:
    save = {0: REGISTER_ACTIONS.index("save1"), **HALVE}
    run = Run(ADAMW, always(save), registers=True).advance(5)
    kept = [value.clone() for value in run.stored[1]["net"].values()]
    diverge(run, 3)
    assert run.calls == [("save", 1), ("load", 1)]
    assert run.log[1]["notes"] == ["the run is not finite: register 1 is loaded, which was the best one"]
    assert all(torch.equal(a, b) for a, b in zip(run.weights(), kept, strict=True))
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.8**2), "those of now, not those that were saved"
    run.advance(8)
    assert len(run.log) == 4


def test_registers_are_used_and_seen() -> None:
    """A policy that swaps with register 2 at every decision: the first time it saves."""
    run = Run(ADAMW, always({0: REGISTER_ACTIONS.index("swap2")}), registers=True, heldout=True).advance(9)
    assert run.calls == [("save", 2), ("save", 3), ("load", 2)]
    first, second = run.log
    stored = [torch.tensor(entry["inputs"])[LAYOUT["restart_loss"]] for entry in (first, second)]
    assert not stored[0].any()
    assert stored[1][2] == pytest.approx(math.tanh(math.log(first["eval_loss"] / second["eval_loss"])), rel=1e-5)
    since = torch.tensor(second["inputs"])[LAYOUT["restart_progress"]]
    assert since[2] == pytest.approx((second["step"] - first["step"]) / TOTAL)


def test_a_move_is_measured_from_the_weights_that_were_loaded() -> None:
    run = Run(ADAMW, always({0: REGISTER_ACTIONS.index("swap0")}), registers=True).advance(8)
    loaded = [value.clone() for value in run.weights()]
    run.advance(3)
    moved = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(run.weights(), loaded, strict=True)))
    assert run.scheduler._seen.numbers(run.optimizer).update_norm == pytest.approx(moved, rel=1e-6)


SCALES = [2.0**j for j in (-20, -11, -1, 7, 20)]


def told(run: Run) -> list[dict[str, Any]]:
    """The log without what has units: losses, and epsilon where it is absolute."""
    plain = copy.deepcopy(run.log)
    for entry in plain:
        del entry["train_loss"], entry["eval_loss"]
        entry["values"].pop("epsilon", None)
    return plain


@pytest.mark.parametrize(
    "make",
    [
        lambda p, scale: adamw(p, lr=0.01, betas=(0.9, 0.9), eps=1e-3 * scale, weight_decay=0.1),
        lambda p, scale: UnitlessAdam(p, lr=0.01),
        lambda p, scale: OPTIM.SGD(p, lr=0.01 / scale, momentum=0.9),
    ],
    ids=["AdamW", "UnitlessAdam", "SGD"],
)
def test_the_unit_of_the_loss_changes_no_bit(make: Any) -> None:
    """Observations, choices and weights of whole runs are equal, registers and evaluations included."""
    options: dict[str, Any] = {"registers": True, "heldout": True, "guard": (0.1, 2.0)}  # overflow would know the unit
    plain = Run(lambda p: make(p, 1.0), policy(seed=2, saves=True), **options).advance()
    assert len({tuple(entry["action"].items()) for entry in plain.log}) > 1, "decisions vary"
    assert any(call == "load" for call, _ in plain.calls)
    for scale in SCALES:
        scaled = Run(lambda p, scale=scale: make(p, scale), policy(seed=2, saves=True), scale, **options).advance()
        assert all(torch.equal(a, b) for a, b in zip(plain.weights(), scaled.weights(), strict=True)), scale
        if isinstance(scaled.optimizer, OPTIM.SGD):  # whose rate has the unit of the loss
            for a, b in zip(plain.log, scaled.log, strict=True):
                b["values"]["lr"] = a["values"]["lr"] if b["values"]["lr"] * scale == a["values"]["lr"] else math.nan
        assert told(plain) == told(scaled), scale


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_any_other_unit_changes_rounding_only(factor: float) -> None:
    plain, scaled = (Run(lambda p: UnitlessAdam(p, lr=0.01), policy(), scale, heldout=True).advance() for scale in (1.0, factor))
    inputs = [torch.tensor([entry["inputs"] for entry in run.log]) for run in (plain, scaled)]
    torch.testing.assert_close(*inputs, rtol=0, atol=1e-4)
    assert [entry["action"] for entry in plain.log] == [entry["action"] for entry in scaled.log]


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="an absolute epsilon is a unit: scaling the loss without it changes what is seen"
)
def test_an_absolute_epsilon_leaks_the_unit() -> None:
    plain, scaled = (Run(lambda p: adamw(p, lr=0.01, eps=1e-2), policy(), scale).advance() for scale in (1.0, 0.1))
    inputs = [torch.tensor([entry["inputs"] for entry in run.log]) for run in (plain, scaled)]
    torch.testing.assert_close(*inputs, rtol=0, atol=1e-4)


def test_steps_that_were_skipped_do_not_count() -> None:
    """As with a GradScaler that finds an overflow: the loop goes on, the optimizer does not."""
    run = Run(ADAMW, always(HALVE)).advance(3)
    for _ in range(10):
        run.scheduler.step(math.inf)
    assert not run.log
    run.advance(1)
    assert [entry["step"] for entry in run.log] == [4]
    assert math.isfinite(run.log[0]["train_loss"])


@pytest.mark.parametrize("fused", [False, True])
def test_a_grad_scaler_changes_nothing_but_the_steps_that_it_skips(fused: bool) -> None:
    """Scaled gradients are measured after they were unscaled; a scale of a power of two changes no bit of them."""
    plain = Run(lambda p: adamw(p, lr=0.01, fused=fused), policy()).advance()
    run = Run(lambda p: adamw(p, lr=0.01, fused=fused), policy())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)
    for at in range(TOTAL):
        run.optimizer.zero_grad()
        loss = loss_of(run.net, at)
        scaler.scale(loss).backward()
        scaler.step(run.optimizer)
        scaler.update()
        run.scheduler.step(loss)
    assert run.log == plain.log
    taken = run.scheduler._taken
    for param in run.net.parameters():
        param.grad = torch.full_like(param, math.inf)
    scaler.step(run.optimizer)
    assert run.scheduler._taken == taken + fused, "a fused optimizer is called, and skips by itself"


def test_a_loop_that_calls_it_rarely_decides_once() -> None:
    run = Run(ADAMW, always(HALVE))
    for at in range(TOTAL):
        loss_of(run.net, at).backward()
        run.optimizer.step()
        if at % 12 == 11:
            run.scheduler.step(1.0)
    assert [entry["step"] for entry in run.log] == [12, 24, 36]


def test_a_closure_makes_the_gradients_that_are_measured() -> None:
    def by_closure(run: Run) -> Run:
        for at in range(TOTAL):

            def closure(at: int = at) -> torch.Tensor:
                run.optimizer.zero_grad()
                loss = loss_of(run.net, at)
                loss.backward()
                return loss

            run.scheduler.step(run.optimizer.step(closure))
        return run

    plain, other = Run(ADAMW, policy()).advance(), by_closure(Run(ADAMW, policy()))
    assert plain.log == other.log


def test_past_the_end_the_last_values_stay_and_it_says_so_once() -> None:
    run = Run(ADAMW, policy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.advance(TOTAL)
    last = run.optimizer.param_groups[0]["lr"]
    with pytest.warns(UserWarning, match=r"step 37 is past total_steps=36 of mine@[0-9a-f]+: the last values stay"):
        run.advance(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.advance(3)
    assert run.optimizer.param_groups[0]["lr"] == last
    assert len(run.log) == DECISIONS


def test_a_second_scheduler_is_noticed() -> None:
    run = Run(ADAMW, always(HALVE)).advance(6)
    run.optimizer.param_groups[0]["lr"] = 0.5
    with pytest.warns(UserWarning, match=r"something else has set lr to 0.5, where this scheduler had left 0.008; use one of them"):
        run.advance(4)
    assert "something else has set lr" in run.log[1]["notes"][0]
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.0064)


def test_hooks_come_off() -> None:
    run = Run(ADAMW, policy())
    with run.scheduler as scheduler:
        run.advance(5)
        assert scheduler is run.scheduler
    run.advance(10)
    assert (len(run.log), scheduler._taken) == (1, 5)
    assert not run.optimizer._optimizer_step_pre_hooks
    assert not run.optimizer._optimizer_step_post_hooks


def test_copies_of_an_optimizer_are_its_own() -> None:
    run = Run(ADAMW, policy()).advance(5)
    for twin in (copy.deepcopy(run.optimizer), pickle.loads(pickle.dumps(run.optimizer))):  # noqa: S301
        for param in twin.param_groups[0]["params"]:
            param.grad = torch.ones_like(param)
        twin.step()
    assert run.scheduler._taken == 5


def test_copies_of_a_scheduler_go_their_own_way() -> None:
    run = Run(ADAMW, policy()).advance(6)
    for twin in (copy.deepcopy(run.scheduler), pickle.loads(pickle.dumps(run.scheduler))):  # noqa: S301
        assert twin.optimizer is not run.optimizer
        for param in twin.optimizer.param_groups[0]["params"]:
            param.grad = torch.ones_like(param)
        for _ in range(2):
            twin.optimizer.step()
            twin.step(1.0)
        assert (len(twin.decision_log), len(run.log)) == (2, 1)


def test_parameters_may_come_later_or_stand_still() -> None:
    run = Run(ADAMW, policy())
    run.advance(6)
    run.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))], "lr": 0.02})
    run.advance(TOTAL - 6)
    lrs = [group["lr"] for group in run.optimizer.param_groups]
    assert lrs[1] == pytest.approx(2 * lrs[0])


def test_a_short_run_gets_the_decisions_that_fit() -> None:
    assert [entry["step"] for entry in Run(ADAMW, policy(), total_steps=15, decisions=64).advance(15).log] == [4, 9]
    assert not Run(ADAMW, policy(), total_steps=1).advance(1).log


def adamw_now() -> Any:
    return adamw(model().parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "PolicyScheduler needs total_steps, the length of the run in optimizer steps"),
        ({"total_steps": 0}, "total_steps must be an integer >= 1, got 0"),
        ({"total_steps": 10, "decisions": 2.5}, "decisions must be an integer >= 1, got 2.5"),
        ({"total_steps": 10, "save_fn": print}, "registers need both save_fn and load_fn"),
        ({"total_steps": 10, "load_fn": print}, "registers need both save_fn and load_fn"),
        ({"total_steps": 10, "guard": (2.0, 3.0)}, "guard must be True, False or two factors"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    optimizer = adamw_now()
    with pytest.raises(ConfigError, match=message):
        PolicyScheduler(optimizer, policy(), **options)
    assert not optimizer._optimizer_step_pre_hooks, "nothing is left on the optimizer"


def test_optimizers_that_cannot_be_controlled_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"optimizer must be a torch.optim.Optimizer, got list"):
        PolicyScheduler([], policy(), 10)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="LBFGS takes many evaluations a step and chooses its own step sizes"):
        PolicyScheduler(OPTIM.LBFGS(model().parameters()), policy(), 10)
    with pytest.raises(ConfigError, match="SGD has no learning rate above 0 to set"):
        PolicyScheduler(OPTIM.SGD(model().parameters(), lr=0.0), policy(), 10)


def test_each_class_points_to_the_other() -> None:
    with pytest.raises(ConfigError, match=r"'mine' is a policy; run it with PolicyScheduler\(optimizer, artifact, total_steps\)"):
        LearnedOptimizer(model().parameters(), policy())
    with pytest.raises(ConfigError, match="'mine' is of kind policy, no learned schedule; run it with PolicyScheduler"):
        LearnedSchedule(adamw_now(), policy(), 10)
    with pytest.raises(ConfigError, match="'celo2-base' is of kind update_rule, no policy; run it with LearnedOptimizer"):
        PolicyScheduler(adamw_now(), "celo2-base", 10)
    schedule = Artifact(new_card("plan", "adamw", kind="hypergradient", interface="learned_schedule/1"), {})
    with pytest.raises(ConfigError, match="'plan' is of kind hypergradient, no policy; run it with LearnedSchedule"):
        PolicyScheduler(adamw_now(), schedule, 10)
    with pytest.raises(ConfigError, match="is a zip archive"):
        PolicyScheduler(adamw_now(), "ppo.zip", 10)


def test_names_and_paths_are_loaded(tmp_path: Path) -> None:
    path = policy().save(tmp_path / "mine")
    assert PolicyScheduler(adamw_now(), artifact=str(path), total_steps=10).artifact == f"mine@{policy().fingerprint}"
    with pytest.raises(UnsafeArtifactError, match="artifact 'nobody': no such path or name"):
        PolicyScheduler(adamw_now(), "nobody", 10)


def test_every_knob_can_be_turned() -> None:
    """With UnitlessAdam all of them: a policy that takes the last choice everywhere."""
    choices = {head: len(TABLES["wide"].factors[head - 1]) - 1 for head in range(1, 9)}
    run = Run(lambda p: UnitlessAdam(p), always(choices)).advance(5)
    assert list(run.log[0]["values"]) == list(KNOBS)
    group = run.optimizer.param_groups[0]
    odds = 0.8 / 0.2 * math.e
    found = [group[key] for key in ("lr", "weight_decay", "eps", "clip_ratio", "clip_decay", "trust_decay")]
    assert found == pytest.approx([1e-2, 2e-2, 2e-6, odds / (1 + odds), 2e-2, 0.075])
    assert group["betas"] == pytest.approx((0.8, 0.98))
