"""Baselines: budgets that contain each other, defaults as documented, names with schedules, text for trials."""

from itertools import pairwise

import pytest
import torch

from metaopt import baselines
from metaopt.errors import ConfigError
from metaopt.learners import SCHEDULES, WHOLE_MODEL, GradientLearner
from metaopt.learners.update_rules import RULES


@pytest.mark.parametrize("name", baselines.names())
def test_larger_budgets_contain_smaller_ones(name):
    baseline = baselines.get(name)
    design = baseline.trials(baselines.MOST_TRIALS)
    for count in (*baselines.TRIALS, 40):
        assert baseline.trials(count) == design[:count]
    assert len(set(design)) == baselines.MOST_TRIALS, "no trial twice"
    assert design[0] == baseline.default()
    grids = [set(baseline.rates(trials)) for trials in baselines.TRIALS]
    assert [len(grid) for grid in grids] == list(baselines.TRIALS)
    assert grids[0] < grids[1] < grids[2]
    assert grids[0] == {baseline.default_lr}
    assert list(baseline.rates(15)) == sorted(baseline.rates(15))


@pytest.mark.parametrize("name", baselines.names())
def test_every_trial_sets_hyperparameters_that_the_learner_has_and_stays_in_range(name):
    baseline = baselines.get(name)
    learner = baseline.learner()
    own = (learner.rule if isinstance(learner, GradientLearner) else learner).hyperparameters
    rates = baseline.rates(15)
    for trial in baseline.trials(baselines.MOST_TRIALS)[1:]:
        assert trial.hyperparameters.keys() <= own.keys()
        assert rates[0] <= trial.rate <= rates[-1]
        for axis in baseline.axes:
            assert axis.low <= trial.hyperparameters[axis.name] <= axis.high, axis


@pytest.mark.parametrize("name", baselines.names())
def test_small_budgets_cover_the_rates(name):
    """Fifteen trials leave no gap wider than a fifth of the range on its logarithmic scale."""
    baseline = baselines.get(name)
    low, high = baseline.rates(15)[0], baseline.rates(15)[-1]
    places = sorted(torch.tensor([t.rate / low for t in baseline.trials(15)[1:]]).log().div(torch.tensor(high / low).log()).tolist())
    assert max(b - a for a, b in pairwise([0.0, *places, 1.0])) < 0.2


def test_the_default_is_the_documented_one():
    """torch's own defaults, read from its classes."""
    param = [torch.zeros(2, 2, requires_grad=True)]
    torchs = {"adamw": torch.optim.AdamW, "nadam": torch.optim.NAdam, "radam": torch.optim.RAdam, "adafactor": torch.optim.Adafactor}
    for name, make in torchs.items():
        group, trial = make(param).param_groups[0], baselines.get(name).default().hyperparameters
        assert trial["lr"] == pytest.approx(group["lr"]), name
        assert trial["weight_decay"] == group["weight_decay"], name
        if "betas" in group:
            assert (trial["beta1"], trial["beta2"]) == group["betas"], name


@pytest.mark.parametrize("rule", ["sgd", "momentum", "adam", "adamw"])
def test_a_hypergradient_optimizer_searches_what_its_base_does_and_its_own_rate(rule):
    base = next(one for one in map(baselines.get, baselines.names()) if one.rule == rule)
    learning = baselines.get(f"hypergradient_{rule}")
    assert learning.rates(15) == base.rates(15)
    own, *others = learning.axes
    assert (own.name, tuple(others)) == ("hyper_lr", base.axes)
    assert own.low < learning.default().hyperparameters["hyper_lr"] < own.high
    assert learning.schedule == "constant"
    assert {name: value for name, value in learning.default().values if name != "hyper_lr"} == base.default().hyperparameters


def test_distance_over_gradients_begins_at_the_authors_values():
    for name in ("dog", "ldog"):
        assert baselines.get(name).default().hyperparameters == {"lr": 1.0, "reps_rel": 1e-6, "weight_decay": 0.0}
        assert baselines.get(name).schedules == ("constant",)


def test_online_rules_begin_at_the_authors_values():
    assert baselines.get("metaoptimize").default().hyperparameters["meta_lr"] == 1e-3
    assert baselines.get("hdm_best").default().hyperparameters == {"lr": 1.0, "momentum_lr": 1.0}
    assert baselines.get("hdm_best").full_batch, "it compares losses, which noise would decide"


def test_rates_are_thirds_of_a_decade():
    rates = baselines.get("adamw").rates(15)
    assert rates[5] == 1e-3
    assert rates[-1] == 1.0
    assert all(b / a == pytest.approx(10 ** (1 / 3), rel=1e-3) for a, b in pairwise(rates))
    trials = baselines.get("adamw").rate_trials()
    assert [trial.rate for trial in trials] == list(rates)
    assert {trial.hyperparameters["beta2"] for trial in trials} == {0.999}


@pytest.mark.parametrize("name", baselines.names())
def test_every_baseline_names_an_optimizer_and_schedules_that_exist(name):
    baseline = baselines.get(name)
    assert (baseline.rule in RULES) != (baseline.rule in WHOLE_MODEL)
    assert set(baseline.schedules) <= set(SCHEDULES)
    assert baseline.schedule == baseline.schedules[0]
    for variant in baselines.variants(name):
        assert baselines.get(variant).learner().schedule == SCHEDULES[baselines.get(variant).schedule]


def test_variants_are_optimizers_under_their_schedules():
    assert baselines.variants("adamw", "lbfgs") == ("adamw", "adamw+constant", "adamw+wsd", "adamw+inverse_sqrt", "lbfgs")
    assert len(set(baselines.variants())) == len(baselines.variants())
    assert baselines.get("adamw+warmup_cosine") == baselines.get("adamw")
    other = baselines.get("adamw+wsd")
    assert (other.name, other.schedule, other.trials(5)) == ("adamw+wsd", "wsd", baselines.get("adamw").trials(5))
    assert set(baselines.DEFAULT) <= set(baselines.names())


@pytest.mark.parametrize("name", ["adamw", "prodigy", "lbfgs"])
def test_trials_survive_text(name):
    baseline = baselines.get(name)
    for trial in (*baseline.trials(15), *baseline.rate_trials()):
        assert baseline.parse(baseline.option(trial)) == trial
    assert baseline.option(baseline.at(0.25)) == "0.25"
    assert baseline.parse("") == baseline.default()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: baselines.get("adamww"), "did you mean 'adamw'"),
        (lambda: baselines.get("adamww+wsd"), "did you mean 'adamw'"),
        (lambda: baselines.get("adamw+wsdd"), "baseline adamw has no schedule 'wsdd'; did you mean 'wsd'"),
        (lambda: baselines.get("lbfgs+wsd"), "baseline lbfgs has no schedule 'wsd'"),
        (lambda: baselines.get("adamw").trials(0), r"trials must be in \[1, 100\], got 0"),
        (lambda: baselines.get("adamw").trials(101), "got 101"),
        (lambda: baselines.get("adamw").parse("lr=0.1,betaa1=0.9"), "baseline adamw has no hyperparameter 'betaa1'; did you mean 'beta1'"),
        (lambda: baselines.get("adamw").parse("beta1=high"), "takes a number for beta1, got 'high'"),
        (lambda: baselines.get("adamw").parse("-1"), "takes a learning rate > 0, got '-1'"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
