"""What users write about a tower: defaults, and one line for each mistake."""

import pytest
import torch

from metaopt.errors import ConfigError
from metaopt.learners.hypergradients import BASES, PARTS, build_tower

ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}


def test_the_default_learns_a_positive_rate_with_one_gradient_step():
    tower = build_tower("sgd", {"lr": 0.1})
    (learned,) = tower.learned
    assert (learned.name, learned.link.name, learned.low, learned.high) == ("lr", "log", 1e-10, 100.0)
    assert [(part.name, part.lr) for part in tower.parts] == [("sgd", 1e-2)]


def test_bases_with_steps_of_size_one_have_smaller_rates_of_rates():
    assert build_tower("adamw", ADAM).parts[0].hyperparameters["lr"] == 1e-5


def test_log_is_logit_for_a_fraction():
    tower = build_tower("adam", ADAM, learn=("lr", "beta1"))
    assert [one.link.name for one in tower.learned] == ["log", "logit"]


def test_links_and_bounds_go_by_name():
    tower = build_tower("adam", ADAM, learn=("lr", "beta1"), link={"beta1": "identity"}, bounds={"beta1": (0.5, 0.99)})
    assert [(one.link.name, one.low, one.high) for one in tower.learned] == [("log", 1e-10, 100.0), ("identity", 0.5, 0.99)]


def test_a_start_beyond_the_wide_bounds_moves_them():
    assert build_tower("sgd", {"lr": 500.0}).learned[0].high == 500.0


def test_a_fraction_without_a_link_stays_a_fraction():
    (learned,) = build_tower("adam", ADAM, learn="beta1", link="identity").learned
    assert (learned.low, learned.high) == (0.0, 1.0 - 1e-6)


@pytest.mark.parametrize("name", ["eps", "weight_decay"])
def test_only_a_rate_may_become_negative(name):
    tower = build_tower("adam", ADAM, learn=("lr", name), link="identity")
    assert [one.low for one in tower.learned] == [-float("inf"), 0.0]


def test_parts_take_their_options():
    tower = build_tower("sgd", {"lr": 0.1}, [{"name": "adam", "lr": 0.02, "beta1": 0.5}, "sign"])
    assert tower.parts[0].hyperparameters["beta1"] == 0.5
    assert tower.parts[1].name == "sign"


@pytest.mark.parametrize("base", BASES)
def test_every_base_has_a_tower(base):
    values = BASES[base]().hyperparameters
    tower = build_tower(base, values)
    state = tower.start({"lr": torch.tensor([values["lr"]])})
    assert float(tower.values(state)["lr"]) == pytest.approx(values["lr"], rel=1e-6)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_moves_a_rate_against_its_derivative(part):
    tower = build_tower("sgd", {"lr": 0.1}, part)
    state = tower.observe(tower.start({"lr": torch.tensor([0.1])}), torch.tensor([[-0.5]], dtype=torch.float64))
    assert float(tower.values(state)["lr"]) > 0.1


@pytest.mark.parametrize(
    ("base", "values", "options", "message"),
    [
        ("sgd", {"lr": 0.1}, {"learn": ("momentun",)}, "learn names 'momentun', which sgd does not have"),
        ("momentum", {"lr": 0.1, "momentum": 0.9}, {"learn": ("momentun",)}, "did you mean 'momentum'"),
        ("sgd", {"lr": 0.1}, {"learn": ()}, "learn names nothing"),
        ("sgd", {"lr": 0.1}, {"learn": ("lr", "lr")}, "learn names 'lr' twice"),
        ("lion", {"lr": 1e-4, "beta1": 0.9}, {"learn": ("beta1",)}, "lion takes a sign"),
        ("sgd", {"lr": 0.1}, {"link": "logg"}, "link 'logg' of lr is unknown"),
        ("sgd", {"lr": 0.1}, {"link": {"lrr": "log"}}, "link names 'lrr', which is not learned"),
        ("sgd", {"lr": 0.1}, {"update": "additiv"}, "update 'additiv' is unknown"),
        ("sgd", {"lr": 0.1}, {"bounds": (0.2, 1.0)}, r"lr=0.1 lies outside its bounds \[0.2, 1\]"),
        ("sgd", {"lr": 0.1}, {"bounds": (-1.0, 1.0)}, r"bounds of lr must be low < high within \[0, inf\] under link log"),
        ("sgd", {"lr": 0.1}, {"bounds": 3.0}, r"bounds of lr must be \(low, high\), got 3.0"),
        ("momentum", {"lr": 0.1, "momentum": 0.9}, {"learn": "momentum", "bounds": (0.5, 1.5)}, "within"),
        ("sgd", {"lr": 0.0}, {}, "lr=0 has no place under link log; start above 0"),
        ("momentum", {"lr": 0.1, "momentum": 0.0}, {"learn": ("momentum",)}, "momentum=0 has no place under link logit"),
        ("sgd", {"lr": 0.1}, {"hyper": "adamm"}, "hyper names 'adamm', which is no part of a tower"),
        ("sgd", {"lr": 0.1}, {"hyper": []}, "hyper is empty"),
        ("sgd", {"lr": 0.1}, {"hyper": {"lr": 0.1}}, "hyper names None"),
        ("sgd", {"lr": 0.1}, {"hyper": {"name": "sgd", "rate": 0.1}}, "hyper part sgd has no option 'rate'"),
        ("sgd", {"lr": 0.1}, {"hyper": {"name": "sgd", "lr": -0.1}}, "hyper part sgd: lr must be a number >= 0, got -0.1"),
        ("sgd", {"lr": 0.1}, {"hyper": {"name": "sgd", "lr": "big"}}, "hyper part sgd: lr must be a number >= 0, got 'big'"),
    ],
)
def test_mistakes_are_one_line_that_names_them(base, values, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_tower(base, values, **options)
    assert "\n" not in str(caught.value)
