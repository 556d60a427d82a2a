"""Tables: normalisers against the analytic variance and log C, least squares as the floor of a linear net, users' tables in one line."""

import math

import numpy as np
import pytest
import torch

from metaopt import inner, learners, seeds, tasks
from metaopt.errors import TaskError
from metaopt.tasks import data, registry
from metaopt.tasks.families.tabular import tables
from metaopt.tasks.models import SmallHead
from metaopt.tasks.sampling import Choices
from metaopt.testing import check_task

NAMES = ("tabular_classification", "tabular_regression")


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.REGISTRY, "_entries", dict(registry.REGISTRY._entries))
    monkeypatch.setattr(data, "_SOURCES", dict(data._SOURCES))


def templates(name: str) -> list[str]:
    return [template for split in tasks.SPLITS for template in tasks.get(name).templates(split)]


def task_of(name: str, template: str, seed: int = 0, horizon: int = 100):
    family = tasks.get(name)
    return family.build(family.sample(template, seed, (horizon, horizon)))


def test_every_bundled_table_is_met_in_training() -> None:
    sources = {task_of(NAMES[0], template).program.stream.source.name for template in tasks.get(NAMES[0]).templates("meta_train")}
    assert sources == {"breast_cancer", "wine", "iris"}
    assert all(task_of(NAMES[1], template).program.stream.source.name == "diabetes" for template in templates(NAMES[1]))


@pytest.mark.parametrize("template", templates("tabular_classification"))
def test_a_guess_is_one_whatever_the_number_of_classes(template: str) -> None:
    task = task_of("tabular_classification", template)
    classes = task.program.stream.source.classes
    guess = {name: torch.zeros_like(value) for name, value in task.init(seeds.key(0)).items()}
    raw = task.loss(guess, task.heldout(seeds.key(0), torch.tensor(0)))
    assert float(raw) == pytest.approx(math.log(classes), rel=1e-5)
    assert float(task.normalise(raw)) == pytest.approx(1.0, rel=1e-5)
    assert task.program.model.net.sizes[-1] == classes


def test_the_mean_amount_is_one() -> None:
    """The reference is the variance of the training amounts, which are those of the bundled file."""
    from sklearn.datasets import load_diabetes

    task = task_of("tabular_regression", templates("tabular_regression")[0])
    params = {name: torch.zeros_like(value) for name, value in task.init(seeds.key(0)).items()}
    rows = {"x": task.shared["train_x"], "y": task.shared["train_y"]}
    raw = task.loss(params, rows)
    assert float(raw) == pytest.approx(float(task.numbers["reference"]), rel=1e-5)
    assert float(task.normalise(raw)) == pytest.approx(1.0, rel=1e-5)
    amounts = torch.tensor(load_diabetes(return_X_y=True, scaled=False)[1])
    order = torch.cat([task.shared["train_y"], task.shared["heldout_y"]]).argsort().argsort()  # ties are equal amounts
    own = amounts.sort().values[order[: len(rows["y"])]]
    predicted = (own - own.mean()) / own.std(correction=0)
    torch.testing.assert_close(rows["y"].double(), predicted, rtol=0, atol=1e-5)


def test_a_linear_net_reaches_least_squares_and_no_less() -> None:
    template = next(template for template in templates("tabular_regression") if "depth0" in template)
    task = task_of("tabular_regression", template, horizon=300)
    x, y = task.shared["train_x"].double(), task.shared["train_y"].double()
    best = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1).double()], 1), y.unsqueeze(-1)).solution
    trace = inner.run(learners.get("adam", lr=0.03, schedule="warmup_cosine"), {}, [task], [0], 300)
    params = {name: value[0] for name, value in trace.carry["params"].items()}
    floor = float((x @ best[:-1] + best[-1] - y.unsqueeze(-1)).square().mean())
    assert floor <= float(task.loss(params, {"x": task.shared["train_x"], "y": task.shared["train_y"]})) < floor + 0.02


@pytest.mark.parametrize("name", NAMES)
def test_nets_begin_near_the_reference_at_every_scale(name: str) -> None:
    for template in templates(name):
        for seed in range(3):
            task = task_of(name, template, seed)
            first = task.normalise(task.loss(task.init(seeds.key(seed)), task.heldout(seeds.key(0), torch.tensor(0))))
            assert 0.5 < float(first) < 2.0
            assert isinstance(task.program.model, SmallHead)


@pytest.mark.usefixtures("registries")
def test_a_users_table_becomes_a_family_in_one_line() -> None:
    rows = np.random.default_rng(0).normal(size=(80, 6))
    source = data.register("own", lambda: data.make_data_set("own", rows, rows @ np.arange(6.0), amounts=True))
    family = tasks.tabular_family("own_table", source, counts={"meta_train": 2, "meta_test": 1}, space={"depth": Choices((1, 2))})
    assert tasks.get("own_table") is family
    assert {split: len(family.templates(split)) for split in tasks.SPLITS} == {"meta_train": 2, "meta_valid": 0, "meta_test": 1}
    for template in family.templates("meta_train"):
        assert "depth0" not in template
        check_task(family.build(family.sample(template, 0, (50, 50))))
    named = tasks.tabular_family("iris_table", "iris", grid={"meta_test": {"t": {"width": 8, "depth": 1, "batch": 16}}})
    assert named.build(named.sample("t", 0, (5, 5))).program.model.net.sizes == (4, 8, 3)


def test_what_is_no_table_is_named() -> None:
    with pytest.raises(TaskError, match=r"family t: data set 'digits' has examples of shape \(1, 8, 8\); a table's have one axis"):
        tables("t", (data.get("digits"),))
    with pytest.raises(TaskError, match="must all have labels or all amounts, but iris has labels, diabetes has amounts"):
        tables("t", (data.get("iris"), data.get("diabetes")))
    with pytest.raises(TaskError, match="axis 'widht' is unknown; did you mean 'width'"):
        tables("t", (data.get("iris"),), space={"widht": Choices((8,))})
