"""The change in meta-loss on fixed particles: zero for equal thetas, signed for better and worse ones."""

import math

import pytest
import torch

from metaopt import inner, learners, tasks
from metaopt.config.schema import TaskConfig
from metaopt.learners import Learner
from metaopt.outer.validation import meta_loss_change
from metaopt.tasks.families.quadratic import QuadraticFamily

FAMILIES = [TaskConfig(family="quadratic", shards=1, horizon=(5, 20))]


def theta(log_lr: float) -> dict[str, torch.Tensor]:
    return {**learners.get("learnable_adam").init_theta(0), "log_lr": torch.tensor(log_lr)}


def change(before: float, after: float, families: list[TaskConfig] = FAMILIES, learner: Learner | None = None):
    return meta_loss_change(learner or learners.get("learnable_adam"), theta(before), theta(after), families)


def test_equal_thetas_do_not_differ() -> None:
    same = change(-3.0, -3.0)
    assert same.difference == pytest.approx(0.0, abs=1e-7)
    assert same.low == pytest.approx(same.high, abs=1e-6)
    assert same.before == pytest.approx(same.after, abs=1e-7)


def test_a_better_theta_lowers_and_a_worse_one_raises_it() -> None:
    better, worse = change(-9.0, -2.0), change(-2.0, -9.0)
    assert better.high < 0 < worse.low
    assert better.difference == pytest.approx(better.after - better.before, abs=1e-6)
    assert (better.difference, better.before) == pytest.approx((-worse.difference, worse.after), abs=1e-6)
    assert change(-9.0, -2.0) == better  # nothing but its arguments


def test_it_runs_every_meta_valid_template_to_the_longest_horizon(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = inner.run

    def spy(learner, stacked, batch, seeds, budget, **options):
        seen.append((batch[0].program, budget, len(batch), tuple(seeds)))
        return real(learner, stacked, batch, seeds, budget, **options)

    monkeypatch.setattr(inner, "run", spy)
    change(-3.0, -2.0)
    family = tasks.get("quadratic")
    programs = [family.build(family.sample(template, 0, (1, 1))).program for template in family.templates("meta_valid")]
    assert [program for program, *_ in seen] == programs
    for _, budget, count, seeds in seen:
        assert (budget, count) == (20, 8)
        assert seeds[:4] == seeds[4:]  # both thetas meet the same runs
        assert len(set(seeds)) == 4


def test_interval_is_stratified_over_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {0: torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 2.0, 3.0]), 1: torch.tensor([2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 4.0])}
    calls = iter(range(2))
    monkeypatch.setattr(inner, "run", lambda *a, **k: type("T", (), {"normalised": losses[next(calls)].expand(3, 8)}))
    got = change(0.0, 0.0)
    first, second = torch.tensor([-1.0, 0.0, 1.0, 2.0]), torch.tensor([-2.0, -2.0, -2.0, 2.0])
    assert got.difference == pytest.approx((0.5 - 1.0) / 2)
    half = 1.96 * math.sqrt(float(first.var() + second.var()) / 4) / 2
    assert (got.low, got.high) == pytest.approx((got.difference - half, got.difference + half))
    assert (got.before, got.after) == (1.5, pytest.approx((1.5 + 1.0) / 2))


def test_families_without_validation_templates_give_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "get", lambda name: QuadraticFamily({"meta_train": {"3x1": (3, 1, "none")}}))
    got = change(-3.0, -2.0)
    assert all(math.isnan(value) for value in vars(got).values())
